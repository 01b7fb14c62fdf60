//! `voltool man`: man pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::error::CliError;
use super::ui::Ui;
use super::{Cli, Outcome};

/// Write man pages into a directory
///
/// One page for voltool and one for each verb: voltool.1, voltool-backup.1 and so on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  voltool man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Where the pages go; made if need be
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Runs the verb.
pub fn run(ui: &Ui, args: &ManArgs) -> anyhow::Result<Outcome> {
    let failed =
        |e: std::io::Error| CliError::failed(format!("cannot write man pages into {}: {e}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    ui.detail(&format!("wrote man pages into {}", args.dir.display()));
    Ok(Outcome::Done)
}
