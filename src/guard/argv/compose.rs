//! The verbs of `docker compose` and `docker-compose`, of versions 1 and 2.

use super::docker::{ambiguous, before_verb, connection, numbers, on_verb, on_verb_that_may};
use super::flags::{Flag, Read, switch, value};
use super::{Around, CommandLine, ComposeAction, Connection, Intent, Meaning, Replace, Selection};

/// Compose's own options in front of its verb, of both versions.
const GLOBAL: &[Flag] = &[
    switch("all-resources", None),
    value("ansi", None),
    switch("compatibility", None),
    switch("dry-run", None),
    value("env-file", None),
    value("file", Some('f')),
    value("insecure-registry", None),
    switch("no-ansi", None),
    value("parallel", None),
    value("profile", None),
    value("progress", None),
    value("project-directory", None),
    value("project-name", Some('p')),
    switch("verbose", None),
    switch("version", Some('v')),
    value("workdir", None),
];

const DRY_RUN: Flag = switch("dry-run", None);
const REMOVE_ORPHANS: Flag = switch("remove-orphans", None);
const RENEW: Flag = switch("renew-anon-volumes", Some('V'));
const SCALE: Flag = value("scale", None);
const YES: Flag = switch("yes", Some('y'));

const DOWN: &[Flag] = &[
    DRY_RUN,
    REMOVE_ORPHANS,
    value("rmi", None),
    value("timeout", Some('t')),
    switch("volumes", Some('v')),
    // An old name for the same.
    switch("volume", None),
];
const RM: &[Flag] = &[
    switch("all", Some('a')),
    DRY_RUN,
    switch("force", Some('f')),
    switch("stop", Some('s')),
    switch("volumes", Some('v')),
];
const UP: &[Flag] = &[
    DRY_RUN,
    REMOVE_ORPHANS,
    RENEW,
    SCALE,
    YES,
    switch("abort-on-container-exit", None),
    switch("abort-on-container-failure", None),
    switch("always-recreate-deps", None),
    value("attach", None),
    switch("attach-dependencies", None),
    switch("build", None),
    switch("detach", Some('d')),
    value("exit-code-from", None),
    switch("force-recreate", None),
    switch("menu", None),
    value("no-attach", None),
    switch("no-build", None),
    switch("no-color", None),
    switch("no-deps", None),
    switch("no-log-prefix", None),
    switch("no-recreate", None),
    switch("no-start", None),
    value("pull", None),
    switch("quiet-build", None),
    switch("quiet-pull", None),
    value("timeout", Some('t')),
    switch("timestamps", None),
    switch("wait", None),
    value("wait-timeout", None),
    switch("watch", Some('w')),
];
const CREATE: &[Flag] = &[
    DRY_RUN,
    REMOVE_ORPHANS,
    SCALE,
    YES,
    switch("build", None),
    switch("force-recreate", None),
    switch("no-build", None),
    switch("no-recreate", None),
    value("pull", None),
    switch("quiet-pull", None),
];
const SCALE_VERB: &[Flag] = &[DRY_RUN, switch("no-deps", None), value("timeout", Some('t'))];
const KILL: &[Flag] = &[DRY_RUN, REMOVE_ORPHANS, value("signal", Some('s'))];

/// Reads what is behind `docker compose`; `offset` arguments are in front of that.
pub(super) fn parse_plugin(line: &[String], around: Around, offset: usize) -> Meaning {
    match before_verb(line, GLOBAL) {
        Ok((global, rest)) => verb(&global, rest, around, offset),
        Err(meaning) => meaning,
    }
}

/// Reads the arguments of `docker-compose`.
pub(super) fn parse_standalone(line: &[String], around: Around) -> CommandLine {
    // It has Docker's own options as well, because no `docker` is in front of it.
    let known = [GLOBAL, super::docker::GLOBAL, &[switch("skip-hostname-check", None)]].concat();
    match before_verb(line, &known) {
        Ok((global, rest)) => {
            let meaning = match verb(&global, rest, around, 0) {
                Meaning::Guarded(_) if ambiguous(&global) => {
                    Meaning::refused("it names more than one engine", "name the engine once")
                }
                meaning => meaning,
            };
            CommandLine { connection: connection(&global), meaning }
        }
        Err(meaning) => CommandLine { connection: Connection::default(), meaning },
    }
}

fn verb(global: &Read, line: &[String], around: Around, offset: usize) -> Meaning {
    let Some((verb, rest)) = line.split_first() else { return Meaning::PassThrough };
    let found = match verb.as_str() {
        "down" => on_verb(rest, DOWN),
        "rm" => on_verb(rest, RM),
        "up" => on_verb_that_may(rest, UP, &[REMOVE_ORPHANS, RENEW, SCALE, YES]),
        "create" => on_verb_that_may(rest, CREATE, &[REMOVE_ORPHANS, SCALE, YES]),
        "scale" => on_verb(rest, SCALE_VERB),
        "kill" => on_verb_that_may(rest, KILL, &[REMOVE_ORPHANS]),
        "run" => return run(global, rest, offset),
        _ => return Meaning::PassThrough,
    };
    let found = match found {
        Ok(found) => found,
        Err(meaning) => return meaning,
    };
    // Before the verb or behind it: the last one counts, and none of them removes anything.
    let dry_run = if found.all("dry-run").is_empty() { global.is("dry-run") } else { found.is("dry-run") };
    if dry_run {
        return Meaning::PassThrough;
    }
    let action = match verb.as_str() {
        "down" => ComposeAction::Down { volumes: found.is("volumes") || found.is("volume") },
        "rm" => {
            ComposeAction::Remove { volumes: found.is("volumes"), stop: found.is("stop"), services: found.arguments }
        }
        verb => {
            // What is not `SERVICE=NUMBER` is Compose's to complain of.
            let scale = if verb == "scale" { numbers(&found.arguments) } else { numbers(found.all("scale")) };
            let orphans = match found.all("remove-orphans").is_empty() {
                true => around.remove_orphans && verb == "up",
                false => found.is("remove-orphans"),
            };
            ComposeAction::Replace(Replace {
                renew: found.is("renew-anon-volumes"),
                recreate_changed: found.is("yes"),
                remove_orphans: orphans,
                scale: scale.unwrap_or_default(),
            })
        }
    };
    guarded(global, action, offset)
}

/// `run` starts a command of its own, whose arguments are none of ours; of the flags in front of the service, only one removes.
fn run(global: &Read, line: &[String], offset: usize) -> Meaning {
    let service = line.iter().position(|word| word == "--").unwrap_or(line.len());
    if global.is("dry-run") || !line[..service].iter().any(|word| word == "--remove-orphans") {
        return Meaning::PassThrough;
    }
    // It may be an argument of the command all the same: the safe side is to believe that it is not.
    guarded(global, ComposeAction::Replace(Replace { remove_orphans: true, ..Replace::default() }), offset)
}

fn guarded(global: &Read, action: ComposeAction, offset: usize) -> Meaning {
    if action == ComposeAction::Replace(Replace::default()) {
        return Meaning::PassThrough;
    }
    let files = global.all("file").to_vec();
    if files.iter().any(|file| file == "-") {
        return Meaning::refused(
            "it reads its definition from standard input, which can be read only once",
            "write the definition to a file, and name that with -f",
        );
    }
    let directory = global.last("project-directory").or(global.last("workdir")).map(str::to_owned);
    let name = global.last("project-name").map(str::to_owned);
    let selection = Selection { name, directory, files, verb_at: offset + global.verb_at };
    Meaning::Guarded(Intent::Compose(selection, action))
}
