//! A plan that refuses, as one message: for where there is no table, because it travels through the engine to whoever asked.

use std::fmt::Write as _;

use super::request::quoted;
use super::{Action, Plan, PlannedVolume, Step};

/// How many volumes are listed before it says "and N more".
const LISTED: usize = 8;

/// Says in a few lines what would be lost, why, and the ways forward.
///
/// Docker's command prints it behind `authorization denied by plugin voltool: `, with its line feeds.
pub fn text(plan: &Plan) -> String {
    let refusing: Vec<&PlannedVolume> = plan.refusing().collect();
    let would = match refusing.iter().any(|volume| volume.action == Action::Destroy) {
        true => "this would destroy",
        false => "this would leave without a name or an owner",
    };
    let mut text = match refusing.len() {
        0 => "this was refused".to_owned(),
        1 => format!("{would} data that exists nowhere else"),
        many => format!("{would} data of {many} volumes that exists nowhere else"),
    };
    for volume in refusing.iter().take(LISTED) {
        let _ = write!(text, "\n  {}", escape(&line(volume)));
    }
    if refusing.len() > LISTED {
        let _ = write!(text, "\n  and {} more", refusing.len() - LISTED);
    }
    for note in &plan.notes {
        let _ = write!(text, "\n  {}", escape(note));
    }
    for way in ways(plan, &refusing) {
        let _ = write!(text, "\n{}", escape(&way));
    }
    text
}

/// One volume: its name, why, how much, and who used it.
fn line(volume: &PlannedVolume) -> String {
    let mut line = format!("{}: {}", volume.name, volume.reason);
    if let Some(files) = volume.files {
        let _ = write!(line, ", {files} {}", if files == 1 { "file" } else { "files" });
    }
    if let Some(user) = &volume.last_used_by {
        let _ = write!(line, ", used by {user}");
    }
    line
}

/// The ways forward, as commands to paste.
fn ways(plan: &Plan, refusing: &[&PlannedVolume]) -> Vec<String> {
    let mut ways = Vec::new();
    let mut writers: Vec<&str> = refusing.iter().filter_map(|volume| volume.written_by.as_deref()).collect();
    writers.sort_unstable();
    writers.dedup();
    if !writers.is_empty() {
        ways.push(format!("stop first what still writes: docker stop {}", words(&writers)));
    }
    if refusing.iter().all(|volume| volume.fine_when_stopped) {
        return ways;
    }
    let names: Vec<&str> = refusing.iter().map(|volume| volume.name.as_str()).collect();
    ways.push(format!("back up first, then do it again: voltool backup {}", words(&names)));
    if let Some(command) = plan.request.steps.first().and_then(own_verb) {
        ways.push(format!("or in one go: {command}"));
    }
    ways.push(
        "or say that such data may go: the label voltool.ephemeral=true, or guard.ephemeral in voltool's configuration"
            .to_owned(),
    );
    ways
}

/// The same with voltool's own verb, which takes a snapshot first; `None` if there is none.
fn own_verb(step: &Step) -> Option<String> {
    match step {
        Step::RemoveContainer { container, volumes, force } => {
            let flags = format!("{}{}", if *force { " -f" } else { "" }, if *volumes { " -v" } else { "" });
            Some(format!("voltool rm --snapshot{flags} {}", quoted(container)))
        }
        Step::RemoveVolume { volume, .. } => Some(format!("voltool volume rm --snapshot {}", quoted(volume))),
        Step::PruneContainers { .. } => None,
        Step::PruneVolumes { filters } => {
            let filters = filters.0.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
            let filters = filters.map(|(key, value)| format!(" --filter {}", quoted(&format!("{key}={value}"))));
            Some(format!("voltool volume prune --snapshot{}", filters.collect::<String>()))
        }
    }
}

/// Names as a shell takes them.
fn words(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ")
}

/// Makes control characters visible: a name must not be able to forge a line, or to move a terminal's cursor.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Decision, Filters, Request, Verdict};
    use crate::inventory::Kind;

    fn volume(name: &str, action: Action) -> PlannedVolume {
        PlannedVolume {
            name: name.to_owned(),
            kind: Kind::Anonymous,
            action,
            certain: true,
            verdict: Verdict::AtRisk,
            reason: "no snapshot".to_owned(),
            size_bytes: Some(5),
            files: Some(2),
            newest_snapshot: None,
            newest_snapshot_time: None,
            changed_files: None,
            changed_bytes: None,
            written_by: None,
            fine_when_stopped: false,
            last_used_by: Some("db at /data".to_owned()),
        }
    }

    fn plan(step: Step, volumes: Vec<PlannedVolume>) -> Plan {
        let request = Request { command: "x".to_owned(), steps: vec![step], api: (1, 41) };
        Plan {
            command: "x".to_owned(),
            verdict: Decision::Refuse,
            volumes,
            containers: Vec::new(),
            notes: Vec::new(),
            request,
            engine: "host".to_owned(),
            time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn it_says_what_why_and_how_to_go_on() {
        let step = Step::RemoveContainer { container: "a b".to_owned(), volumes: true, force: true };
        let said = text(&plan(step, vec![volume("one", Action::Destroy)]));
        assert_eq!(
            said,
            "this would destroy data that exists nowhere else
  one: no snapshot, 2 files, used by db at /data
back up first, then do it again: voltool backup one
or in one go: voltool rm --snapshot -f -v 'a b'
or say that such data may go: the label voltool.ephemeral=true, or guard.ephemeral in voltool's configuration"
        );
    }

    #[test]
    fn many_volumes_are_counted_and_names_cannot_move_the_cursor() {
        let mut filters = Filters::none();
        filters.add("label", "a=b c");
        let volumes = (0..10).map(|n| volume(&format!("v{n}\u{1b}[2J\n"), Action::Orphan)).collect();
        let said = text(&plan(Step::PruneVolumes { filters }, volumes));
        assert!(said.starts_with("this would leave without a name or an owner data of 10 volumes"), "{said}");
        assert!(
            said.contains("and 2 more") && said.contains("voltool volume prune --snapshot --filter 'label=a=b c'"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}') && said.contains("v0\\u{1b}[2J\\n: no snapshot"), "{said}");
    }

    #[test]
    fn what_only_has_to_be_stopped_is_not_backed_up() {
        let mut busy = volume("one", Action::Destroy);
        busy.written_by = Some("db".to_owned());
        busy.fine_when_stopped = true;
        let step = Step::RemoveContainer { container: "db".to_owned(), volumes: true, force: true };
        let said = text(&plan(step, vec![busy]));
        assert!(said.ends_with("\nstop first what still writes: docker stop db"), "{said}");
    }
}
