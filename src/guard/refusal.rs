//! A plan that refuses, as one message: for where there is no table, because it travels through the engine to whoever asked.

use std::fmt::Write as _;

use super::{Action, Plan, PlannedVolume, Step};

/// How many volumes are listed before it says "and N more".
const LISTED: usize = 8;

/// Says in a few lines what would be lost, why, and the ways forward.
///
/// Docker's command prints it behind `authorization denied by plugin voltool: `, with its line feeds.
pub fn text(plan: &Plan) -> String {
    let refusing: Vec<&PlannedVolume> = plan.refusing().collect();
    let mut text = match refusing.as_slice() {
        [] => "this was refused".to_owned(),
        [one] => format!("{} data that exists nowhere else", would(one.action)),
        many => format!("{} data of {} volumes that exists nowhere else", would(many[0].action), many.len()),
    };
    for volume in refusing.iter().take(LISTED) {
        let _ = write!(text, "\n  {}", line(volume));
    }
    if refusing.len() > LISTED {
        let _ = write!(text, "\n  and {} more", refusing.len() - LISTED);
    }
    for note in &plan.notes {
        let _ = write!(text, "\n  {note}");
    }
    for way in ways(plan, &refusing) {
        let _ = write!(text, "\n{way}");
    }
    escape(&text)
}

fn would(action: Action) -> &'static str {
    match action {
        Action::Destroy => "this would destroy",
        Action::Orphan => "this would leave without a name or an owner",
    }
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
    if let Some(command) = plan.request.steps.first().map(own_verb) {
        ways.push(format!("or in one go: {command}"));
    }
    ways.push(
        "or say that such data may go: the label voltool.ephemeral=true, or guard.ephemeral in voltool's configuration"
            .to_owned(),
    );
    ways
}

/// The same with voltool's own verb, which takes a snapshot first.
fn own_verb(step: &Step) -> String {
    match step {
        Step::RemoveContainer { container, volumes, force } => {
            let flags = format!("{}{}", if *force { " -f" } else { "" }, if *volumes { " -v" } else { "" });
            format!("voltool rm --snapshot{flags} {}", word(container))
        }
        Step::RemoveVolume { volume, .. } => format!("voltool volume rm --snapshot {}", word(volume)),
        Step::PruneContainers { .. } => "voltool system prune --snapshot".to_owned(),
        Step::PruneVolumes { filters } => {
            let all = filters.of_volumes().unwrap_or(false);
            format!("voltool volume prune --snapshot{}", if all { " -a" } else { "" })
        }
    }
}

/// Names as a shell takes them.
fn words(names: &[&str]) -> String {
    names.iter().map(|name| word(name)).collect::<Vec<_>>().join(" ")
}

fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

/// Line feeds are this text's own; any other control character comes from a name, and must not reach a terminal.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}
