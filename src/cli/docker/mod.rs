//! `voltool docker -- ARGS…`, and the `docker` command that `voltool guard install` puts in front of the real one: what removes
//! nothing is handed over at once, the rest is judged first.
//!
//! | file | its one job |
//! | --- | --- |
//! | `mod.rs` | the verb, and what is done before settings are read: most commands end there |
//! | `shim.rs` | when voltool is called `docker` |
//! | `real.rs` | finds the real command, becomes it, or runs it |
//! | `judged.rs` | judges a command that removes, and then runs it |
//! | `ask.rs` | what the real command has to be asked: API version, Compose's definition |

mod ask;
mod judged;
mod real;
mod shim;

use std::ffi::OsString;

use clap::Args;

use super::guarded::GuardOptions;
use super::ui::Ui;
use super::{CliError, Context, GlobalArgs, Kind, Outcome};
use crate::guard::argv::{self, Around, CommandLine, Meaning, Program};
use crate::guard::request;

pub(super) use real::{in_path, same_program};
pub(super) use shim::called_as_docker;

/// Run a docker command, with the guard in front of it
///
/// What destroys no volume is handed to the real docker command as it is. What would destroy one is refused if its content exists
/// nowhere else. The real command is the first docker in PATH that is not voltool, or what VOLTOOL_DOCKER names. VOLTOOL_GUARD=off
/// runs everything unguarded, VOLTOOL_GUARD=snapshot is --snapshot.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool docker -- rm -v db
  voltool docker --plan -- compose down -v
  voltool docker --snapshot -- volume prune -af
  voltool docker -- docker-compose down -v")]
pub struct DockerArgs {
    /// Arguments of docker; or docker-compose and its arguments
    #[arg(value_name = "ARGS", last = true, required = true)]
    pub line: Vec<OsString>,

    /// Guard options.
    #[command(flatten)]
    pub guard: GuardOptions,

    /// The program that is meant, where it is not the first of the arguments.
    #[arg(skip)]
    pub program: Program,
}

impl DockerArgs {
    /// Takes a program's name off the front of the arguments: what `voltool docker -- docker-compose …` and pasted commands have.
    fn named(mut self) -> DockerArgs {
        for program in [Program::Docker, Program::Compose] {
            if self.line.first().is_some_and(|word| word == program.name()) {
                self.program = program;
                self.line.remove(0);
                break;
            }
        }
        self
    }

    /// The arguments as text. What is not UTF-8 is no verb, no flag and no name that an engine could have.
    fn words(&self) -> Vec<String> {
        self.line.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// The command as a person would type it.
    fn typed(&self) -> String {
        request::command([self.program.name()], &self.words())
    }

    fn read(&self) -> CommandLine {
        let orphans = std::env::var("COMPOSE_REMOVE_ORPHANS").unwrap_or_default().to_lowercase();
        let around = Around { remove_orphans: matches!(orphans.as_str(), "1" | "t" | "true" | "y" | "yes") };
        argv::parse(self.program, &self.words(), around)
    }
}

/// What `VOLTOOL_GUARD` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    On,
    Snapshot,
    Off,
}

impl Mode {
    /// What is on the command line goes first.
    fn of(guard: &GuardOptions) -> Result<Mode, CliError> {
        let said = std::env::var_os("VOLTOOL_GUARD").unwrap_or_default();
        match said.to_str() {
            _ if guard.snapshot => Ok(Mode::Snapshot),
            _ if guard.plan => Ok(Mode::On),
            Some("" | "on") => Ok(Mode::On),
            Some("snapshot") => Ok(Mode::Snapshot),
            Some("off") => Ok(Mode::Off),
            _ => Err(CliError::usage(format!("VOLTOOL_GUARD is {}; nothing was run", said.to_string_lossy()))
                .hint("it may be on, snapshot (snapshot what is at risk first) or off (run it unguarded)")),
        }
    }
}

/// Hands over what needs no judgement: then this process becomes the real command, and this returns only if that fails. Otherwise
/// returns what is to be judged.
///
/// No settings are read for that, no thread is started, and no engine is asked: it has to cost next to nothing.
pub(super) fn hand_over(ui: &Ui, args: DockerArgs, global: &GlobalArgs) -> anyhow::Result<DockerArgs> {
    let mut args = args.named();
    if global.host.is_some() {
        return Err(CliError::usage("--host in front of 'docker' is not handed on to it")
            .hint("write it behind the dashes: voltool docker -- -H URL …")
            .into());
    }
    match args.read().meaning {
        Meaning::PassThrough | Meaning::Note(_) if args.guard.plan => return Ok(args),
        Meaning::PassThrough => {}
        Meaning::Note(text) => ui.note(&format!("voltool: {text}")),
        Meaning::Guarded(_) | Meaning::Refused(_) => match Mode::of(&args.guard)? {
            Mode::On => return Ok(args),
            Mode::Snapshot => {
                args.guard.snapshot = true;
                return Ok(args);
            }
            Mode::Off => {
                ui.warn(&format!("VOLTOOL_GUARD=off: '{}' runs unguarded", args.typed()));
                judged::note_unguarded(&args, global);
            }
        },
    }
    Err(real::find(args.program)?.become_it(&args.line).into())
}

/// Judges, and then runs the real command.
pub(super) async fn run(ctx: &Context, args: &DockerArgs) -> anyhow::Result<Outcome> {
    let line = args.read();
    if let Meaning::Refused(refusal) = &line.meaning {
        let message = format!("'{}' is refused: {}", args.typed(), refusal.reason);
        return Err(CliError::new(Kind::Refused, message).hint(&refusal.hint).into());
    }
    judged::run(ctx, args, &line).await
}
