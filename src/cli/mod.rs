//! The command line: one file per verb, and what all of them share.
//!
//! | file | its one job |
//! | --- | --- |
//! | `mod.rs` | global options and the list of verbs |
//! | `entry.rs` | from arguments to an exit code: runtime, signals, panics |
//! | `context.rs` | the effective settings |
//! | `config.rs` | the configuration file |
//! | `units.rs` | sizes and durations as people write them |
//! | `secret.rs` | identities and passphrases |
//! | `error.rs` | messages, hints and exit codes |
//! | `interrupt.rs` | SIGINT and SIGTERM |
//! | `open.rs` | what most verbs begin with: the repository, the engine, the snapshot that is meant |
//! | `snapshot_ref.rs` | `VOLUME[@SNAPSHOT]` |
//! | `ui/` | tables, bars, numbers; the only place that prints |

pub mod apply;
pub mod audit;
pub mod backup;
pub mod completions;
pub mod config;
pub mod context;
pub mod daemon;
pub mod docker;
mod entry;
pub mod error;
pub mod export;
pub mod guard;
pub mod guarded;
pub mod history;
pub mod init;
pub mod interrupt;
pub mod ls;
pub mod man;
mod markdown;
pub mod open;
pub mod plan_view;
pub mod plugin;
pub mod prune;
pub mod restore;
pub mod rm;
pub mod secret;
pub mod snapshot_ref;
pub mod snapshots;
pub mod system;
pub mod ui;
pub mod undo;
pub mod units;
pub mod volume;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use context::{Context, Settings};
pub use entry::main_with;
pub use error::{CliError, Kind};
pub use snapshot_ref::SnapshotRef;

/// How a command ended that was not stopped by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done: exit code 0.
    Done,
    /// It was done, but some files could not be read; they have been named: exit code 3.
    Incomplete,
    /// It only had to say whether something may be done, and that may not: exit code 4.
    Refused,
    /// Another command did it, and ended with this exit code.
    Exited(u8),
}

/// Snapshots Docker volumes to S3-compatible storage or a directory, and brings them back
///
/// Volumes are backed up incrementally, deduplicated, compressed and encrypted. A repository can be read without voltool, by
/// what its README.txt says.
#[derive(Debug, Parser)]
#[command(
    name = "voltool",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_long_help = AFTER_HELP
)]
pub struct Cli {
    /// Say more, as --verbose; only before the verb, because behind `rm` it is Docker's own -v
    #[arg(short = 'v', action = ArgAction::Count, hide = true)]
    pub verbose_too: u8,
    /// Options of every verb.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER_HELP: &str = "\
Settings come from flags, then the environment, then the configuration file, then defaults. The configuration file is the one \
that --config or VOLTOOL_CONFIG names, else $XDG_CONFIG_HOME/voltool/config.toml, else /etc/voltool/config.toml.

Exit codes:
  0    done
  1    failed
  2    the command line, the environment or the configuration makes no sense
  3    done, but some files could not be read; they are named
  4    refused, because data that exists nowhere else would be lost
  10   no repository there, or none configured
  11   busy: another run holds this volume
  12   wrong key or passphrase
  130  interrupted

Examples:
  voltool init --repo /srv/backup
  voltool init --repo s3://bucket/prefix --s3-endpoint https://s3.example.org
  voltool backup
  voltool restore db";

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file [env: VOLTOOL_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Repository: a directory, file:///path, or s3://bucket/prefix [env: VOLTOOL_REPO]
    #[arg(long, global = true, value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub repo: Option<String>,

    /// URL of an S3-compatible server that is not AWS [env: AWS_ENDPOINT_URL]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub s3_endpoint: Option<String>,

    /// Region of the bucket [env: AWS_REGION]
    #[arg(long, global = true, value_name = "REGION", hide_short_help = true)]
    pub s3_region: Option<String>,

    /// Put the bucket into the path instead of the host name (by itself with an endpoint that is not AWS)
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true
    )]
    pub s3_path_style: Option<bool>,

    /// File with the age identities that open the repository [env: VOLTOOL_IDENTITY] [default: identity.txt beside the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    pub identity: Option<PathBuf>,

    /// File with the passphrase that opens the repository [env: VOLTOOL_PASSPHRASE_FILE, or the passphrase itself in VOLTOOL_PASSPHRASE]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Folder of the local cache, which may be deleted at any time [env: VOLTOOL_CACHE_DIR] [default: /var/cache/voltool, or voltool in $XDG_CACHE_HOME for a user]
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub cache_dir: Option<PathBuf>,

    /// Folder of local state [env: VOLTOOL_STATE_DIR] [default: /var/lib/voltool, or voltool in $XDG_STATE_HOME for a user]
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub state_dir: Option<PathBuf>,

    /// Docker engine to talk to [env: DOCKER_HOST] [default: as the docker command finds it]
    #[arg(short = 'H', long, global = true, value_name = "URL")]
    pub host: Option<String>,

    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more (before the verb also -v; behind it that is Docker's own -v)
    #[arg(long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Draw no progress bars
    #[arg(long, global = true, hide_short_help = true)]
    pub no_progress: bool,

    /// Memory to work with [default: 256MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = units::parse_memory, hide_short_help = true)]
    pub memory: Option<u64>,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The help of a verb is the doc comment on its arguments; one here would replace it.
pub enum Verb {
    Init(init::InitArgs),
    Ls(ls::LsArgs),
    Backup(backup::BackupArgs),
    Snapshots(snapshots::SnapshotsArgs),
    Restore(restore::RestoreArgs),
    Export(export::ExportArgs),
    Rm(rm::RmArgs),
    Volume(volume::VolumeArgs),
    System(system::SystemArgs),
    Apply(apply::ApplyArgs),
    Undo(undo::UndoArgs),
    Docker(docker::DockerArgs),
    Guard(guard::GuardArgs),
    Plugin(plugin::PluginArgs),
    Daemon(daemon::DaemonArgs),
    History(history::HistoryArgs),
    Audit(audit::AuditArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    MarkdownHelp,
}
