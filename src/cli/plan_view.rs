//! How a plan looks: as a table, as JSON, and as a refusal with the ways forward.

use jiff::Timestamp;

use super::guarded::Tier;
use super::ui::{Cell, Column, Table, Tone, format};
use super::{CliError, Context, Kind};
use crate::guard::request::quoted;
use crate::guard::{Action, Plan, PlannedVolume, Verdict};
use crate::inventory::Kind as VolumeKind;

/// Prints a plan to standard output.
pub fn print(ctx: &Context, plan: &Plan, json: bool) -> anyhow::Result<()> {
    if json {
        return ctx.ui.json(plan);
    }
    if plan.volumes.is_empty() {
        ctx.ui.note("no volume would be destroyed or orphaned");
    } else {
        ctx.ui.table(&table(plan))?;
    }
    if !plan.containers.is_empty() {
        let names: Vec<&str> = plan.containers.iter().map(|container| container.name.as_str()).collect();
        ctx.ui.note(&format!("containers that would be removed: {}", names.join(", ")));
    }
    for note in &plan.notes {
        ctx.ui.note(note);
    }
    Ok(())
}

/// Tells a person that a plan is refused, and returns the error to end with.
pub fn refusal(ctx: &Context, plan: &Plan, tier: Tier, table_too: bool) -> CliError {
    if table_too {
        ctx.ui.table_beside(&table(plan));
    }
    let names: Vec<&str> = plan.refusing().map(|volume| volume.name.as_str()).collect();
    let does = match plan.refusing().any(|volume| volume.action == Action::Destroy) {
        true => "destroys",
        false => "leaves without a name or an owner",
    };
    let what = match names.as_slice() {
        [one] => format!("volume {}", short(one)),
        many => format!("{} volumes", many.len()),
    };
    let message =
        format!("'{}' {does} {what}, and that content exists nowhere else; nothing was removed", plan.command);
    let mut error = CliError::new(Kind::Refused, message);
    for (what, command) in ways(plan, tier) {
        error = error.hint(format!("{what}: {command}"));
    }
    if let Some(writer) = plan.refusing().find_map(|volume| volume.written_by.as_ref()) {
        error = error.hint(format!("while {writer} runs, nothing that it writes is known to be safe"));
    }
    error
}

/// The three ways forward, as commands to paste.
pub fn ways(plan: &Plan, tier: Tier) -> Vec<(&'static str, String)> {
    let names: Vec<&str> = plan.refusing().map(|volume| volume.name.as_str()).collect();
    let lose: String = names.iter().map(|name| format!(" --lose {}", quoted(name))).collect();
    let (snapshot, give_up) = match (tier, plan.command.strip_prefix("docker ")) {
        (Tier::Wrapper, Some(rest)) => {
            (format!("voltool docker --snapshot -- {rest}"), format!("voltool docker{lose} -- {rest}"))
        }
        (Tier::Wrapper, None) => (
            format!("voltool docker --snapshot -- {}", plan.command),
            format!("voltool docker{lose} -- {}", plan.command),
        ),
        _ => (format!("{} --snapshot", plan.command), format!("{}{lose}", plan.command)),
    };
    vec![
        ("snapshot it first, then go on", snapshot),
        (
            "only back it up, and keep it",
            format!("voltool backup {}", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ")),
        ),
        ("give it up for good", give_up),
    ]
}

/// The volumes of a plan, what stands in the way first.
fn table(plan: &Plan) -> Table {
    let mut table = Table::new([
        Column::text("VOLUME"),
        Column::text("KIND"),
        Column::text("WOULD BE"),
        Column::text("VERDICT"),
        Column::number("SIZE"),
        Column::text("LAST USED BY"),
        Column::text("SNAPSHOT"),
        Column::text("WHY"),
    ]);
    let mut volumes: Vec<&PlannedVolume> = plan.volumes.iter().collect();
    volumes.sort_by_key(|volume| (!volume.refuses(), volume.action, volume.name.clone()));
    let now = Timestamp::now();
    for volume in volumes {
        let tone = match (volume.refuses(), volume.verdict) {
            (true, _) => Tone::Bad,
            (false, Verdict::AtRisk | Verdict::Unknown | Verdict::GivenUp | Verdict::StaleOk) => Tone::Warn,
            _ => Tone::Good,
        };
        let action = match (volume.action, volume.certain) {
            (Action::Destroy, true) => "destroyed",
            (Action::Destroy, false) => "destroyed (perhaps)",
            (Action::Orphan, _) => "orphaned",
        };
        let mut why = volume.reason.clone();
        if let (Some(bytes), true) = (volume.changed_bytes.filter(|bytes| *bytes > 0), volume.refuses()) {
            why = format!("{why} ({})", format::size(bytes));
        }
        table.row([
            Cell::new(short(&volume.name)),
            Cell::new(if volume.kind == VolumeKind::Anonymous { "anonymous" } else { "named" }),
            Cell::new(action),
            Cell::new(volume.verdict.as_str()).tone(tone),
            Cell::new(volume.size_bytes.map_or("?".to_owned(), format::size)),
            Cell::new(volume.last_used_by.as_deref().unwrap_or("-")),
            Cell::new(volume.newest_snapshot_time.map_or("-".to_owned(), |time| format::age(time, now))),
            Cell::new(why),
        ]);
    }
    table
}

/// A name that nobody chose is long; its beginning says as much, and Docker's people are used to that.
fn short(name: &str) -> &str {
    let made_up = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if made_up { &name[..12] } else { name }
}
