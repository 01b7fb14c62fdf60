//! `voltool apply`: does what a plan has shown, or nothing.

use std::path::PathBuf;

use clap::Args;

use super::guarded::{GuardOptions, Guarded};
use super::{CliError, Context, Kind, Outcome};
use crate::guard::{Plan, Step};

/// Do what a plan has shown, or nothing
///
/// Works the plan out anew and goes on only if it is the same: the same volumes and containers, and every volume as safe as it was. What
/// has come or changed since is left alone, and so is everything else then.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Example:
  voltool volume prune --plan --out plan.json && voltool apply plan.json")]
pub struct ApplyArgs {
    /// A file that --plan --out has written
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: ApplyArgs) -> anyhow::Result<Outcome> {
    let file = args.file.display();
    let text = std::fs::read(&args.file).map_err(|e| CliError::failed(format!("cannot read {file}: {e}")))?;
    let shown: Plan = serde_json::from_slice(&text)
        .map_err(|e| CliError::failed(format!("{file} is not a plan: {e}")).hint("make one with --plan --out FILE"))?;
    let by_name = |step: &Step| matches!(step, Step::RemoveContainer { .. } | Step::RemoveVolume { .. });
    if !shown.request.steps.iter().all(by_name) {
        return Err(
            CliError::failed(format!("{file} does not say by name what it removes, so it cannot be applied")).into()
        );
    }
    if !shown.allows() {
        return Err(CliError::new(Kind::Refused, format!("the plan in {file} was refused"))
            .hint("snapshot what is at risk ('voltool backup'), and make the plan anew")
            .into());
    }
    let lose = shown.volumes.iter().filter(|v| v.verdict == crate::guard::Verdict::GivenUp).map(|v| v.name.clone());
    let options = GuardOptions { json: args.json, lose: lose.collect(), ..GuardOptions::default() };
    let guarded = Guarded::open(ctx, &options).await?;
    if shown.engine != guarded.judge.engine_name {
        let message =
            format!("the plan in {file} is for engine {}, and this one is {}", shown.engine, guarded.judge.engine_name);
        return Err(CliError::failed(message).into());
    }
    let inventory = guarded.inventory().await?;
    let now = guarded.plan_on(&shown.request, &inventory).await?;
    if let Some(difference) = difference(&shown, &now) {
        return Err(CliError::new(
            Kind::Refused,
            format!("the plan in {file} no longer holds: {difference}; nothing was removed"),
        )
        .hint(format!("make it anew: {} --plan --out {file}", shown.command))
        .into());
    }
    super::rm::run_steps(&guarded, shown.request, &options).await
}

/// The first difference between what was shown and what would be done now.
fn difference(shown: &Plan, now: &Plan) -> Option<String> {
    for volume in &now.volumes {
        match shown.volumes.iter().find(|other| other.name == volume.name) {
            None => return Some(format!("volume {} would be taken too", volume.name)),
            Some(other) if other.action != volume.action => {
                return Some(format!("volume {} would meet another end", volume.name));
            }
            Some(other) if other.verdict != volume.verdict => {
                return Some(format!(
                    "volume {} was {}, and is {}",
                    volume.name,
                    other.verdict.as_str(),
                    volume.verdict.as_str()
                ));
            }
            Some(_) => {}
        }
    }
    let gone = shown.volumes.iter().find(|volume| !now.volumes.iter().any(|other| other.name == volume.name));
    if let Some(volume) = gone {
        return Some(format!("volume {} is in use, or gone", volume.name));
    }
    let ids = |plan: &Plan| plan.containers.iter().map(|container| container.id.clone()).collect::<Vec<_>>();
    (ids(shown) != ids(now)).then(|| "the containers are not the same".to_owned())
}
