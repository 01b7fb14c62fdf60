//! `voltool init`: makes a repository.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Make a repository
///
/// Makes a repository where --repo says, and writes that into the configuration file, so that later commands need no flags. A
/// repository is encrypted unless --no-encrypt is given: to a new identity (written to --identity, mode 0600), to the passphrase
/// in --passphrase-file, VOLTOOL_PASSPHRASE_FILE or VOLTOOL_PASSPHRASE, or to each --recipient. A bucket must exist; a directory
/// is made.
///
/// Prints a recovery kit: keep it where it survives the loss of this host. Without the identity or the passphrase, nobody can
/// read the repository.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool init --repo /srv/backup
  voltool init --repo s3://bucket/prefix
  voltool init --repo s3://bucket --s3-endpoint https://s3.example.org --s3-region eu
  voltool init --repo /srv/backup --passphrase-file /root/passphrase
  voltool init --repo /srv/backup --recipient age1… --recipient age1…")]
pub struct InitArgs {
    /// Encrypt to this age recipient, whose identity is kept elsewhere; repeatable
    #[arg(long, value_name = "age1…", conflicts_with = "no_encrypt")]
    pub recipient: Vec<age::x25519::Recipient>,

    /// Store everything readable by everybody who can read the storage
    #[arg(long, conflicts_with_all = ["identity", "passphrase_file"])]
    pub no_encrypt: bool,

    /// Do not write the configuration file
    #[arg(long)]
    pub no_config: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: InitArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("init is not built into this voltool").into())
}
