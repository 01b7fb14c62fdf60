//! `voltool init`: makes a repository.

use std::path::PathBuf;

use age::secrecy::ExposeSecret;
use clap::Args;
use serde::Serialize;

use super::config::{Config, RepositoryEntry};
use super::context::{IdentityFile, Source};
use super::{CliError, Context, Outcome, open, secret};
use crate::repo::{ChunkerParams, Lock, Repository};
use crate::store::Store;
use crate::store::probe::{StorageReport, probe};

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

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    repository: &'a str,
    id: &'a str,
    encryption: crate::repo::Encryption,
    recipient: Option<&'a str>,
    identity_file: Option<&'a std::path::Path>,
    config_file: Option<&'a std::path::Path>,
    storage: &'a StorageReport,
}

/// How the new repository is locked, and what there is to tell about it.
struct Locking {
    lock: Lock,
    /// The identity file that was made or used.
    file: Option<PathBuf>,
    /// The lines of the recovery kit that say how it is opened.
    kit: Vec<String>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: InitArgs) -> anyhow::Result<Outcome> {
    let settings = &ctx.settings;
    let store = open::store(ctx).await?;
    store.prepare().await?;
    let url = settings.repository()?.to_string();
    if let Some(error) = already_there(&*store, &url).await? {
        return Err(error.into());
    }
    let report = probe(&*store).await?;
    let locking = locking(ctx, &args)?;
    let chunker = ChunkerParams::default();
    let repo = Repository::create(store, &locking.lock, chunker, Some(report.clone()), &settings.cache_dir).await?;
    let config_file = if args.no_config { None } else { Some(save_config(ctx, &url, &locking)?) };

    let config = repo.config();
    if args.json {
        ctx.ui.json(&Made {
            repository: &url,
            id: repo.id(),
            encryption: config.encryption,
            recipient: config.recipient.as_deref(),
            identity_file: locking.file.as_deref(),
            config_file: config_file.as_deref(),
            storage: &report,
        })?;
        return Ok(Outcome::Done);
    }
    let ui = &ctx.ui;
    ui.print(&format!("Made repository {} at {url}\n", repo.id()))?;
    ui.print(&describe(&report))?;
    for problem in report.problems() {
        ui.warn(&problem);
    }
    if let Some(file) = &config_file {
        ui.print(&format!("Settings are in {}\n", file.display()))?;
    }
    ui.print(&kit(&url, settings, &locking))?;
    Ok(Outcome::Done)
}

/// What the probe found, for people.
fn describe(report: &StorageReport) -> String {
    let yes = |is: bool| if is { "at once" } else { "late" };
    format!(
        "Storage: listings show new objects {} and deletions {}, ranged reads {}, conditional writes are {}, checksums: {}\n",
        yes(report.list_after_put),
        yes(report.list_after_delete),
        if report.ranged_get { "work" } else { "do not work" },
        report.conditional_put,
        report.checksums.as_deref().unwrap_or("none"),
    )
}

/// Asking first keeps `init` from making an identity file for a repository that it then does not make.
async fn already_there(store: &dyn Store, url: &str) -> anyhow::Result<Option<CliError>> {
    Ok(store.size("voltool.json").await?.map(|_| {
        CliError::failed(format!("{url} already holds a repository"))
            .hint("use it as it is, or choose another place with --repo")
    }))
}

fn locking(ctx: &Context, args: &InitArgs) -> anyhow::Result<Locking> {
    let settings = &ctx.settings;
    let passphrase = secret::load_passphrase(settings, &ctx.env)?;
    if args.no_encrypt {
        if passphrase.is_some() {
            return Err(CliError::usage(
                "--no-encrypt, but there is a passphrase in the environment or the configuration",
            )
            .hint("leave out one of the two: voltool does not guess whether you want encryption")
            .into());
        }
        let kit = vec!["This repository is not encrypted: who can read the storage can read the volumes.".to_owned()];
        return Ok(Locking { lock: Lock::Nobody, file: None, kit });
    }
    if let Some(passphrase) = passphrase {
        if !args.recipient.is_empty() {
            return Err(CliError::usage("a repository is locked with a passphrase or for recipients, not both").into());
        }
        let kit = vec![
            "Passphrase: the one that you gave. It is stored nowhere; without it nobody can read the repository."
                .to_owned(),
        ];
        return Ok(Locking { lock: Lock::Passphrase(passphrase), file: None, kit });
    }
    if !args.recipient.is_empty() {
        let mut kit =
            vec!["Recipients (the identities are kept elsewhere; one of them is needed for every command):".to_owned()];
        kit.extend(args.recipient.iter().map(|r| format!("  {r}")));
        return Ok(Locking { lock: Lock::Recipients(args.recipient.clone()), file: None, kit });
    }
    let file = settings.identity.path.clone();
    // One that was named and is not there is made, as the default one is: that is what `init` is for.
    let wanted = IdentityFile { path: file.clone(), source: Source::Default };
    let (recipients, secrets) = match secret::load_identities(&wanted)? {
        // Used as it is, so that one identity can open several repositories.
        Some(loaded) => {
            let secrets: Vec<String> =
                loaded.identities.iter().map(|i| i.to_string().expose_secret().to_owned()).collect();
            (loaded.identities.iter().map(|i| i.to_public()).collect(), secrets)
        }
        None => {
            let made = secret::create_identity(&file)?;
            (vec![made.identity.to_public()], vec![made.identity.to_string().expose_secret().to_owned()])
        }
    };
    let mut kit = vec![format!("Identity (also in {}):", file.display())];
    kit.extend(secrets.iter().map(|s| format!("  {s}")));
    Ok(Locking { lock: Lock::Recipients(recipients), file: Some(file), kit })
}

fn save_config(ctx: &Context, url: &str, locking: &Locking) -> anyhow::Result<PathBuf> {
    let settings = &ctx.settings;
    let identity = locking.file.clone().filter(|file| *file != settings.default_identity());
    let passphrase_file = match &settings.passphrase_file {
        Some((file, _)) if matches!(locking.lock, Lock::Passphrase(_)) => Some(file.clone()),
        _ => None,
    };
    let entry = RepositoryEntry { repo: url.to_owned(), s3: settings.s3.clone(), identity, passphrase_file };
    let saved = Config::save_repository(&settings.config_target, &entry)?;
    if let Some(before) = saved.replaced {
        ctx.ui.warn(&format!("{} named the repository {before} before", settings.config_target.display()));
    }
    Ok(settings.config_target.clone())
}

/// What a person needs on the day when this host is gone.
fn kit(url: &str, settings: &super::Settings, locking: &Locking) -> String {
    let mut lines = vec![
        String::new(),
        "RECOVERY KIT: print this or put it into a password manager, away from this host".to_owned(),
        String::new(),
        format!("Repository: {url}"),
    ];
    let s3 = &settings.s3;
    for (name, value) in [("S3 endpoint", &s3.endpoint), ("S3 region", &s3.region)] {
        lines.extend(value.as_ref().map(|value| format!("{name}: {value}")));
    }
    lines.extend(locking.kit.iter().cloned());
    let key = match &locking.lock {
        Lock::Nobody => String::new(),
        Lock::Passphrase(_) => " --passphrase-file passphrase.txt".to_owned(),
        Lock::Recipients(_) => " --identity identity.txt".to_owned(),
    };
    let flag = |name: &str, value: &Option<String>| value.as_ref().map_or(String::new(), |v| format!(" --{name} {v}"));
    let at = format!("--repo {url}{}{}{key}", flag("s3-endpoint", &s3.endpoint), flag("s3-region", &s3.region));
    lines.push(String::new());
    lines.push("On an empty host with Docker and voltool, three commands bring everything back:".to_owned());
    lines.push(match &locking.lock {
        Lock::Nobody => "  # no key is needed".to_owned(),
        Lock::Passphrase(_) => "  (umask 077; cat > passphrase.txt)    # type the passphrase, then Ctrl-D".to_owned(),
        Lock::Recipients(_) => {
            "  (umask 077; cat > identity.txt)    # paste the line AGE-SECRET-KEY-1…, then Ctrl-D".to_owned()
        }
    });
    lines.push(format!("  voltool {at} snapshots"));
    lines.push(format!("  voltool {at} restore --all"));
    lines.push(String::new());
    lines.join("\n") + "\n"
}
