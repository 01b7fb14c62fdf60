//! `voltool plugin take-over`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::daemon::Daemon;
use crate::cli::{Context, Outcome};

/// Take a shared volume from a host that is gone for good
///
/// Only this host may use the volume afterwards. What the other host has written since its newest snapshot does not come along, and if it is
/// alive after all, it can no longer take snapshots of the volume.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  voltool plugin take-over db")]
pub struct TakeOverArgs {
    /// The volume
    #[arg(value_name = "VOLUME", value_parser = NonEmptyStringValueParser::new())]
    pub volume: String,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: TakeOverArgs) -> anyhow::Result<Outcome> {
    match Daemon::of(ctx).take_over(&args.volume).await? {
        Some(from) => ctx.ui.note(&format!("volume {} is this host's now; {from} has lost it", args.volume)),
        None => ctx.ui.note(&format!("no other host holds volume {}: there is nothing to take over", args.volume)),
    }
    Ok(Outcome::Done)
}
