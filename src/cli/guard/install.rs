//! `voltool guard install`: a `docker` in front of the real one.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::docker::{in_path, same_program};
use crate::cli::{CliError, Context, Outcome};
use crate::guard::argv::Program;
use crate::guard::request::quoted;

/// Put a docker command in front of the real one that asks the guard
///
/// It is a link to this program, which then hands everything that destroys nothing to the real command at once. docker-compose gets
/// one too, where there is a docker-compose.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool guard install
  voltool guard install --dir /opt/guard/bin
  VOLTOOL_GUARD=off docker rm -v db        once without it")]
pub struct InstallArgs {
    /// Where to put it; must come before the real command's folder in PATH [default: /usr/local/bin, or ~/.local/bin for a user]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What is at the place of a link of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A link to this program.
    Ours,
    /// A link to a voltool that is elsewhere, or no longer there.
    OtherVoltool,
    /// Something that voltool did not put there.
    Foreign,
}

/// Looks at a place for a link.
pub(super) fn look(place: &Path) -> Result<Found, CliError> {
    let failed = |e: std::io::Error| CliError::failed(format!("cannot look at {}: {e}", place.display()));
    match std::fs::symlink_metadata(place) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(failed(e)),
        Ok(found) if !found.is_symlink() => Ok(Found::Foreign),
        Ok(_) if same_program(place) => Ok(Found::Ours),
        Ok(_) => {
            let target = std::fs::read_link(place).map_err(failed)?;
            let voltool = target.file_name().is_some_and(|name| name == "voltool");
            Ok(if voltool { Found::OtherVoltool } else { Found::Foreign })
        }
    }
}

/// The folder that is meant.
pub(super) fn folder(ctx: &Context, given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let folder = match given {
        Some(folder) => folder,
        None if rustix::process::geteuid().is_root() => PathBuf::from("/usr/local/bin"),
        None => match ctx.env.get("HOME") {
            Some(home) => Path::new(home).join(".local/bin"),
            None => return Err(CliError::usage("HOME is not set").hint("name a folder with --dir")),
        },
    };
    std::path::absolute(&folder).map_err(|e| CliError::failed(format!("cannot use {}: {e}", folder.display())))
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: InstallArgs) -> anyhow::Result<Outcome> {
    let folder = folder(ctx, args.dir)?;
    let program = std::fs::canonicalize("/proc/self/exe")
        .map_err(|e| CliError::failed(format!("cannot find out where this program is: {e}")))?;
    let mut places = vec![folder.join(Program::Docker.name())];
    if !real(Program::Compose).is_empty() {
        places.push(folder.join(Program::Compose.name()));
    }
    // All or nothing.
    let mut found = Vec::new();
    for place in places {
        let what = look(&place)?;
        if what == Found::Foreign {
            let error = CliError::failed(format!("{} is there, and voltool did not put it there", place.display()));
            let hint = "choose a folder that comes before it in PATH: voltool guard install --dir DIR";
            return Err(error.hint(hint).into());
        }
        found.push((place, what));
    }
    std::fs::create_dir_all(&folder)
        .map_err(|e| CliError::failed(format!("cannot make the folder {}: {e}", folder.display())))?;
    for (place, what) in found {
        put(&place, &program, &what)?;
        let word = if what == Found::Ours { "is there already" } else { "now asks the guard" };
        ctx.ui.note(&format!("{} {word}", place.display()));
    }
    say_whether_it_is_in_front(ctx, &folder);
    Ok(Outcome::Done)
}

fn put(place: &Path, program: &Path, found: &Found) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        CliError::failed(format!("cannot make the link {}: {e}", place.display()))
            .hint("run it as a user who may write there, or name another folder with --dir")
    };
    if *found == Found::Ours {
        return Ok(());
    }
    // A link is replaced in one step, so that there is a docker command at every moment.
    let mut name = place.as_os_str().to_owned();
    name.push(format!(".voltool-{}", std::process::id()));
    let new = PathBuf::from(name);
    symlink(program, &new).map_err(failed)?;
    std::fs::rename(&new, place).map_err(|e| {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&new);
        failed(e)
    })
}

/// The real commands of that name, in the order in which a shell looks for them.
fn real(program: Program) -> Vec<PathBuf> {
    in_path(program.name())
        .into_iter()
        .filter(|path| !matches!(look(path), Ok(Found::Ours | Found::OtherVoltool)))
        .collect()
}

/// A link that no shell finds first guards nothing.
fn say_whether_it_is_in_front(ctx: &Context, folder: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let place = |wanted: &Path| folders.iter().position(|found| found == wanted);
    let first = real(Program::Docker).into_iter().next();
    let of_real = first.as_deref().and_then(Path::parent).and_then(place);
    let line = format!("export PATH={}:\"$PATH\"", quoted(&folder.to_string_lossy()));
    match (place(folder), of_real) {
        (_, None) => ctx.ui.warn("there is no real docker command in PATH: name it with VOLTOOL_DOCKER"),
        (Some(ours), Some(theirs)) if ours < theirs => {
            ctx.ui.note("shells that run already may have to forget the old place: hash -r");
        }
        (ours, Some(_)) => {
            let why = if ours.is_none() { "is not in PATH" } else { "comes after the real docker command in PATH" };
            ctx.ui.warn(&format!("{} {why}, so nothing is guarded yet", folder.display()));
            ctx.ui.note(&format!("hint: add this line to your shell's profile: {line}"));
        }
    }
}
