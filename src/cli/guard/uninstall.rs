//! `voltool guard uninstall`: takes away what `install` put there.

use std::path::PathBuf;

use clap::Args;

use super::install::{Found, folder, look};
use crate::cli::{CliError, Context, Outcome};
use crate::guard::argv::Program;

/// Take that docker command away
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool guard uninstall
  voltool guard uninstall --dir /opt/guard/bin")]
pub struct UninstallArgs {
    /// Where it is [default: /usr/local/bin, or ~/.local/bin for a user]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: UninstallArgs) -> anyhow::Result<Outcome> {
    let folder = folder(ctx, args.dir)?;
    let mut removed = 0;
    for program in [Program::Docker, Program::Compose] {
        let place = folder.join(program.name());
        match look(&place)? {
            Found::Ours | Found::OtherVoltool => {
                std::fs::remove_file(&place).map_err(|e| {
                    CliError::failed(format!("cannot remove {}: {e}", place.display()))
                        .hint("run it as the user who installed it")
                })?;
                ctx.ui.note(&format!("{} is gone", place.display()));
                removed += 1;
            }
            Found::Foreign => ctx.ui.detail(&format!("{} is not voltool's, and stays", place.display())),
            Found::Nothing => {}
        }
    }
    if removed == 0 {
        ctx.ui.note(&format!("there is no docker command of voltool's in {}", folder.display()));
    }
    Ok(Outcome::Done)
}
