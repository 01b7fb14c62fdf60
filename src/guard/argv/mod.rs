//! What would a docker command line remove?
//!
//! [`parse`] reads the arguments of `docker` or `docker-compose` as these programs do and says one of four things: it removes
//! nothing that the guard looks after, and can be handed over as it is; the same, but there is something to say; it may remove
//! something, namely this ([`Intent`]); or it might, and cannot be understood, so it is refused rather than guessed.
//! [`resolve`](resolve::resolve) turns an intent into a [`Request`](super::Request), with what is on the engine now.
//!
//! Everything here is pure. Only what can remove a volume or orphan one is read to the end: of the rest, not even the flags.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `flags.rs` | flags, as Docker's command reads them |
//! | `docker.rs` | the verbs of `docker` |
//! | `run.rs` | `docker run` and `create`: volumes that will have no name |
//! | `compose.rs` | the verbs of `docker compose` and `docker-compose` |
//! | `project.rs` | which Compose project is meant, and what belongs to it |
//! | `resolve.rs` | from an intent to a request |

mod compose;
mod docker;
mod flags;
pub mod project;
pub mod resolve;
mod run;

use super::Filters;

/// A program whose arguments are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Program {
    /// `docker`.
    #[default]
    Docker,
    /// `docker-compose`, of any version.
    Compose,
}

impl Program {
    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Program::Docker => "docker",
            Program::Compose => "docker-compose",
        }
    }
}

/// What the environment says that changes what a command line means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// `COMPOSE_REMOVE_ORPHANS` is true.
    pub remove_orphans: bool,
}

/// A command line that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Which engine it is for.
    pub connection: Connection,
    /// What it would do.
    pub meaning: Meaning,
}

/// What a command line would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// It removes no volume and orphans none.
    PassThrough,
    /// The same, and this should be said.
    Note(String),
    /// It may remove this.
    Guarded(Intent),
    /// It might remove something, and cannot be understood, or not be judged.
    Refused(Refusal),
}

/// Why a command line is refused before anything was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, as the end of a sentence that begins with the command.
    pub reason: String,
    /// What to do instead.
    pub hint: String,
}

/// What a command line says of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// `-H`, `--host`.
    pub host: Option<String>,
    /// `-c`, `--context`.
    pub context: Option<String>,
    /// `--config`: the folder of Docker's own settings and contexts.
    pub config: Option<String>,
    /// `--tls`.
    pub tls: bool,
    /// `--tlsverify`.
    pub tls_verify: bool,
    /// Whether `--tlscacert`, `--tlscert` or `--tlskey` names a file.
    pub tls_files: bool,
    /// How many arguments are in front of Docker's verb: those that say which engine is meant.
    pub length: usize,
}

/// What a command line asks to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// `docker rm`.
    RemoveContainers {
        /// Names or ids.
        containers: Vec<String>,
        /// With their anonymous volumes.
        volumes: bool,
        /// Even if they run.
        force: bool,
    },
    /// `docker volume rm`.
    RemoveVolumes {
        /// Names.
        volumes: Vec<String>,
        /// No error if one is not there.
        force: bool,
    },
    /// `docker container prune`.
    PruneContainers {
        /// `--filter`.
        filters: Filters,
    },
    /// `docker volume prune`.
    PruneVolumes {
        /// `--filter`; with `--all` as `all=true`.
        filters: Filters,
    },
    /// `docker system prune`.
    PruneSystem {
        /// `--filter`.
        filters: Filters,
        /// Volumes as well.
        volumes: bool,
    },
    /// Containers that a swarm runs. It removes them itself, with their anonymous volumes.
    RemoveTasks(Tasks),
    /// Something of a Compose project.
    Compose(Selection, ComposeAction),
}

/// Containers of a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tasks {
    /// `docker stack rm`: all of these stacks.
    OfStacks(Vec<String>),
    /// `docker service rm`: all of these services, by name or id.
    OfServices(Vec<String>),
    /// `docker service scale`: of these services, what there is beyond these numbers.
    Beyond(Vec<(String, u64)>),
    /// `docker swarm leave`: all on this machine. Their anonymous volumes stay.
    OfNode,
}

/// What a command line says of the Compose project that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `-p`, `--project-name`.
    pub name: Option<String>,
    /// `--project-directory`.
    pub directory: Option<String>,
    /// `-f`, `--file`.
    pub files: Vec<String>,
    /// How many arguments are in front of Compose's verb.
    pub verb_at: usize,
}

/// What Compose is asked to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComposeAction {
    /// `down`.
    Down {
        /// With the project's volumes.
        volumes: bool,
    },
    /// `rm`.
    Remove {
        /// Only of these services; all if there are none.
        services: Vec<String>,
        /// With their anonymous volumes.
        volumes: bool,
        /// Stops them first.
        stop: bool,
    },
    /// `up`, `create`, `scale`, `run` and `kill`, with something that removes.
    Replace(Replace),
}

/// What replacing containers removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replace {
    /// `-V`: new containers do not get the old ones' anonymous volumes.
    pub renew: bool,
    /// `-y`: a volume whose definition changed is made anew, without a question.
    pub recreate_changed: bool,
    /// `--remove-orphans`: containers of services that the project no longer has.
    pub remove_orphans: bool,
    /// `--scale`: of these services, what there is beyond these numbers.
    pub scale: Vec<(String, u64)>,
}

/// Reads a command line, without the program's name.
pub fn parse(program: Program, line: &[String], around: Around) -> CommandLine {
    match program {
        Program::Docker => docker::parse(line, around),
        Program::Compose => compose::parse_standalone(line, around),
    }
}

impl Meaning {
    fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Meaning {
        Meaning::Refused(Refusal { reason: reason.into(), hint: hint.into() })
    }

    /// For a flag that is not understood, on a verb that removes.
    fn unclear(wrong: &flags::Wrong) -> Meaning {
        Meaning::refused(
            format!("it removes, and {}", wrong.describe()),
            "check the spelling; if the flag is right, this voltool is older than it: VOLTOOL_GUARD=off in front of the \
             command runs it unguarded",
        )
    }
}

/// Checks that a name is one part of a path, as it stands: Docker's command makes it part of a request's path and tidies that, so
/// that `x/../db` would be `db`.
fn check_name(kind: &str, name: &str) -> Result<(), Meaning> {
    let odd = name.trim() != name
        || name.contains(char::REPLACEMENT_CHARACTER)
        || name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !odd {
        return Ok(());
    }
    Err(Meaning::refused(
        format!("{name:?} is not a {kind}'s name, and what Docker would make of it is not known"),
        format!("write the {kind}'s name exactly"),
    ))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
