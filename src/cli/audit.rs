//! `voltool audit`: storage traps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::ui::{Tone, format};
use super::{CliError, Context, Kind, Outcome, open};
use crate::audit::evidence::Limits;
use crate::audit::gather::Snapshots;
use crate::audit::{self, CHECKS, Finding, Level, ObjectType, Skipped};
use crate::docker::Engine;
use crate::snapshot::Excludes;
use crate::units::parse_size;

/// Look for storage traps
///
/// Looks at the engine's containers and volumes for what loses data, or will: data in a container's own layer, in volumes without a name,
/// without a snapshot, and more. Changes nothing. Exits with 4 if anything is found at --level or above, and with 3 if nothing is, but
/// something could not be looked at. docs/audit.md has a section for each check.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
A finding is silenced by the label voltool.audit.ignore=T02,T05 on its volume or container, by audit.ignore in the configuration,
or by --ignore.

Examples:
  voltool audit
  voltool audit --level error --quiet
  voltool audit --only T05 --json | jq -r '.findings[].objects[0].name'")]
pub struct AuditArgs {
    /// Print an object with `findings` and `skipped` as JSON
    #[arg(long)]
    pub json: bool,

    /// The least level that makes the exit code 4; all findings are printed anyway
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    pub level: LevelArg,

    /// Apply these checks only, such as T01,T05
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = parse_id)]
    pub only: Vec<&'static str>,

    /// Leave these checks out, such as T06
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = parse_id)]
    pub ignore: Vec<&'static str>,

    /// What a container's own layer may hold before it counts as data [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub layer_size: Option<u64>,

    /// Where the file system of the engine's machine is, if voltool runs in a container
    #[arg(long, value_name = "DIR", default_value = "/", hide_short_help = true)]
    pub host_root: PathBuf,
}

/// [`Level`], as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[allow(missing_docs)] // They are in `Level`; here they would show as help.
pub enum LevelArg {
    Info,
    #[default]
    Warn,
    Error,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Level {
        match level {
            LevelArg::Info => Level::Info,
            LevelArg::Warn => Level::Warn,
            LevelArg::Error => Level::Error,
        }
    }
}

fn parse_id(text: &str) -> Result<&'static str, String> {
    let first = CHECKS.first().map_or("", |check| check.id);
    let last = CHECKS.last().map_or("", |check| check.id);
    audit::check_of(text)
        .map(|check| check.id)
        .ok_or_else(|| format!("there is no such check: they are {first} to {last}"))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    skipped: &'a [Skipped],
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: AuditArgs) -> anyhow::Result<Outcome> {
    let options = options(ctx, &args)?;
    let engine = open::engine(ctx).await?;
    let catalog = open::catalog(ctx);
    let inventory = open::inventory_noted(ctx, &engine, catalog.as_ref()).await?;
    let (snapshots, failure) = match CHECKS
        .iter()
        .any(|check| options.selected.contains(check.id) && check.needs.contains(&audit::Need::Snapshots))
    {
        true => snapshots(ctx, &engine).await,
        false => (Snapshots::Known(BTreeMap::new()), None),
    };
    let evidence = audit::gather(&engine, &inventory, snapshots, catalog.as_ref(), &options).await;
    let findings = audit::findings(&evidence, &options.selected);
    if args.json {
        ctx.ui.json(&Report { findings: &findings, skipped: &evidence.skipped })?;
    } else {
        show(ctx, &findings, &evidence.skipped)?;
    }
    let level = Level::from(args.level);
    let count = findings.iter().filter(|finding| finding.level >= level).count();
    if count > 0 {
        let found = format!("{} at level {} or above", format::counted(count as u64, "storage trap"), level.name());
        return Err(CliError::new(Kind::Refused, found)
            .hint(
                "each finding says what mends it; docs/audit.md says more, and how to silence one that is meant to be",
            )
            .into());
    }
    match failure {
        // A repository that is configured and cannot be opened is a failure, as for `ls`.
        Some(failure) => Err(failure),
        None if evidence.skipped.iter().any(|skipped| skipped.failed) => Ok(Outcome::Incomplete),
        None => Ok(Outcome::Done),
    }
}

fn options(ctx: &Context, args: &AuditArgs) -> anyhow::Result<audit::Options> {
    let mut ignored: BTreeSet<&str> = args.ignore.iter().copied().collect();
    for id in &ctx.settings.audit_ignore {
        ignored.insert(parse_id(id).map_err(|e| CliError::usage(format!("audit.ignore: {id:?}: {e}")))?);
    }
    let wanted = |id: &&str| (args.only.is_empty() || args.only.contains(id)) && !ignored.contains(id);
    let selected: BTreeSet<&'static str> = CHECKS.iter().map(|check| check.id).filter(wanted).collect();
    let ephemeral = Excludes::new(ctx.settings.guard.ephemeral.iter().cloned())
        .map_err(|e| CliError::usage(format!("guard.ephemeral: {e}")))?;
    let default = Limits::default();
    let limits = Limits {
        max_age: ctx.settings.audit_max_age.unwrap_or(default.max_age),
        layer: args.layer_size.unwrap_or(default.layer),
    };
    let host_root = std::path::absolute(&args.host_root).unwrap_or_else(|_| args.host_root.clone());
    Ok(audit::Options { selected, limits, ephemeral, host_root })
}

/// The newest snapshot of each volume; if that cannot be found out although it should, also the error.
async fn snapshots(ctx: &Context, engine: &Engine) -> (Snapshots, Option<anyhow::Error>) {
    let unknown = |reason: &str, failed: bool| Snapshots::Unknown { reason: reason.to_owned(), failed };
    if ctx.settings.repo.is_none() {
        let reason = match &ctx.settings.config_denied {
            Some(file) => format!("no repository is configured, or {} says which and may not be read", file.display()),
            None => "no repository is configured".to_owned(),
        };
        return (unknown(&reason, ctx.settings.config_denied.is_some()), None);
    }
    let records = async {
        let repo = open::repository_without_index(ctx).await?;
        open::snapshots(ctx, &repo).await
    };
    match records.await {
        Ok((records, _)) => {
            let name = open::engine_name(ctx, engine);
            let shared = ctx.settings.plugin.shared_as.as_ref();
            // Oldest first: the last one of a volume stays.
            let of_engine = records.iter().filter(|record| record.engine == name || Some(&record.engine) == shared);
            (Snapshots::Known(of_engine.map(|record| (record.volume.clone(), record.time)).collect()), None)
        }
        Err(failure) => {
            let reason = format!("the repository cannot be read: {}", super::error::message(&failure));
            (unknown(&reason, true), Some(failure))
        }
    }
}

/// Prints the findings as blocks, the worst first, then what could not be looked at.
fn show(ctx: &Context, findings: &[Finding], skipped: &[Skipped]) -> anyhow::Result<()> {
    let mut text = String::new();
    for finding in findings {
        let tone = match finding.level {
            Level::Error => Tone::Bad,
            Level::Warn => Tone::Warn,
            Level::Info => Tone::Faint,
        };
        let level = ctx.ui.paint_out(tone, finding.level.name());
        let title = ctx.ui.paint_out(Tone::Strong, finding.title);
        text.push_str(&format!("{} {level}: {title}\n", finding.id));
        let objects: Vec<String> = finding.objects.iter().map(|object| shown(object.kind, &object.name)).collect();
        for (heading, value) in [("on", &*objects.join(", ")), ("found", &finding.detail), ("why", finding.why)] {
            text.push_str(&format!("  {heading:<6}{}\n", super::error::escape_controls(value)));
        }
        for (n, line) in finding.fix.lines().enumerate() {
            let heading = if n == 0 { "fix" } else { "" };
            text.push_str(&format!("  {heading:<6}{}\n", super::error::escape_controls(line)));
        }
        text.push('\n');
    }
    if !text.is_empty() {
        ctx.ui.print(&text)?;
    }
    // Several checks that could not see the same thing are told in one line.
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for skipped in skipped {
        by_reason.entry(&skipped.reason).or_default().push(skipped.id);
    }
    for (reason, ids) in by_reason {
        ctx.ui.warn(&format!("not everything was checked ({}): {reason}", ids.join(", ")));
    }
    if findings.is_empty() {
        ctx.ui.note("no storage traps found");
    } else {
        let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count() as u64;
        ctx.ui.note(&format!(
            "{}, {}, {}",
            format::counted(count(Level::Error), "error"),
            format::counted(count(Level::Warn), "warning"),
            format::counted(count(Level::Info), "hint")
        ));
    }
    Ok(())
}

/// An object in words.
fn shown(kind: ObjectType, name: &str) -> String {
    let kind = match kind {
        ObjectType::Volume => "volume ",
        ObjectType::Container => "container ",
        ObjectType::Engine => "engine ",
        ObjectType::Path => "",
    };
    format!("{kind}{name}")
}
