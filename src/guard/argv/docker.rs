//! The verbs of `docker`.

use super::flags::{Flag, Read, Until, may_be, read, switch, value};
use super::{Around, CommandLine, Connection, Filters, Intent, Meaning, Tasks, check_name, compose, run};

/// In front of the verb.
pub(super) const GLOBAL: &[Flag] = &[
    value("config", None),
    value("context", Some('c')),
    switch("debug", Some('D')),
    value("host", Some('H')),
    value("log-level", Some('l')),
    switch("tls", None),
    value("tlscacert", None),
    value("tlscert", None),
    value("tlskey", None),
    switch("tlsverify", None),
    switch("version", Some('v')),
];
const CONTAINER_RM: &[Flag] = &[switch("force", Some('f')), switch("link", Some('l')), switch("volumes", Some('v'))];
const VOLUME_RM: &[Flag] = &[switch("force", Some('f'))];
const CONTAINER_PRUNE: &[Flag] = &[value("filter", None), switch("force", Some('f'))];
const VOLUME_PRUNE: &[Flag] = &[switch("all", Some('a')), value("filter", None), switch("force", Some('f'))];
const SYSTEM_PRUNE: &[Flag] =
    &[switch("all", Some('a')), value("filter", None), switch("force", Some('f')), switch("volumes", None)];
/// Between `stack` and its verb, or behind that; `--orchestrator` until 20.10.
const STACK: &[Flag] = &[switch("detach", Some('d')), value("orchestrator", None), value("kubeconfig", None)];
const SERVICE_SCALE: &[Flag] = &[switch("detach", Some('d'))];
const ONLY_FORCE: &[Flag] = &[switch("force", Some('f'))];

/// Every word that a verb which removes something is made of.
const DANGEROUS_WORDS: &[&str] = &[
    "rm",
    "remove",
    "prune",
    "down",
    "leave",
    "scale",
    "up",
    "create",
    "run",
    "kill",
    "container",
    "volume",
    "system",
    "stack",
    "service",
    "swarm",
    "plugin",
    "compose",
];

/// Reads the arguments of `docker`.
pub(super) fn parse(line: &[String], around: Around) -> CommandLine {
    let (global, rest) = match before_verb(line, GLOBAL) {
        Ok(found) => found,
        Err(meaning) => return CommandLine { connection: Connection::default(), meaning },
    };
    let connection = connection(&global);
    let meaning = match verb(rest, around, connection.length) {
        Meaning::Guarded(_) if ambiguous(&global) => Meaning::refused(
            "it names more than one engine",
            "name the engine once: with -H, or with --context, or not at all",
        ),
        meaning => meaning,
    };
    CommandLine { connection, meaning }
}

/// Reads what is in front of a verb, and returns it with the rest, which begins with the verb. A flag that is not known is Docker's
/// to complain of, unless there is something behind it that removes: it could be the flag of a newer version.
pub(super) fn before_verb<'a>(line: &'a [String], known: &[Flag]) -> Result<(Read, &'a [String]), Meaning> {
    match read(line, known, Until::Verb) {
        Ok(found) => {
            let rest = &line[found.verb_at..];
            Ok((found, rest))
        }
        Err((wrong, at)) if line[at..].iter().any(|word| DANGEROUS_WORDS.contains(&word.as_str())) => {
            Err(Meaning::unclear(&wrong))
        }
        Err(_) => Err(Meaning::PassThrough),
    }
}

/// What the flags in front of the verb say of the engine.
pub(super) fn connection(global: &Read) -> Connection {
    let text = |name| global.last(name).map(str::to_owned);
    Connection {
        host: text("host"),
        context: text("context"),
        config: text("config"),
        tls: global.is("tls"),
        tls_verify: global.is("tlsverify"),
        tls_files: ["tlscacert", "tlscert", "tlskey"].iter().any(|name| !global.all(name).is_empty()),
        length: global.verb_at,
    }
}

/// Docker refuses that itself; here it must not be decided which engine is meant.
pub(super) fn ambiguous(global: &Read) -> bool {
    global.all("host").len() > 1 || (!global.all("host").is_empty() && !global.all("context").is_empty())
}

fn verb(line: &[String], around: Around, offset: usize) -> Meaning {
    let Some((verb, rest)) = line.split_first() else { return Meaning::PassThrough };
    match verb.as_str() {
        "rm" => container_rm(rest),
        "run" | "create" => run::note(verb, rest),
        "compose" => compose::parse_plugin(rest, around, offset + 1),
        "container" => group(rest, &[], |verb, rest| match verb {
            "rm" | "remove" => container_rm(rest),
            "prune" => container_prune(rest),
            "run" | "create" => run::note(verb, rest),
            _ => Meaning::PassThrough,
        }),
        "volume" => group(rest, &[], |verb, rest| match verb {
            "rm" | "remove" => volume_rm(rest),
            "prune" => volume_prune(rest),
            _ => Meaning::PassThrough,
        }),
        "system" => group(rest, &[], |verb, rest| match verb {
            "prune" => system_prune(rest),
            _ => Meaning::PassThrough,
        }),
        "stack" => group(rest, STACK, |verb, rest| match verb {
            "rm" | "remove" | "down" => swarm_objects(rest, STACK, Tasks::OfStacks),
            _ => Meaning::PassThrough,
        }),
        "service" => group(rest, &[], |verb, rest| match verb {
            "rm" | "remove" => swarm_objects(rest, &[], Tasks::OfServices),
            "scale" => service_scale(rest),
            _ => Meaning::PassThrough,
        }),
        "swarm" => group(rest, &[], |verb, rest| match verb {
            "leave" => swarm_leave(rest),
            _ => Meaning::PassThrough,
        }),
        "plugin" => group(rest, &[], |verb, rest| match verb {
            "rm" | "remove" => plugin_rm(rest),
            _ => Meaning::PassThrough,
        }),
        // Verbs that remove nothing, and those of plugins.
        _ => Meaning::PassThrough,
    }
}

/// The verb behind the name of a group: `volume rm`. Flags may be between the two.
fn group(line: &[String], known: &[Flag], of: impl Fn(&str, &[String]) -> Meaning) -> Meaning {
    match before_verb(line, known) {
        Ok((_, rest)) => rest.split_first().map_or(Meaning::PassThrough, |(verb, rest)| of(verb, rest)),
        Err(meaning) => meaning,
    }
}

/// Reads flags and arguments of a verb that removes. Whoever asks for help gets nothing else.
pub(super) fn on_verb(line: &[String], known: &[Flag]) -> Result<Read, Meaning> {
    match read(line, known, Until::End) {
        Ok(found) if found.is("help") => Err(Meaning::PassThrough),
        Ok(found) => Ok(found),
        Err((wrong, _)) => Err(Meaning::unclear(&wrong)),
    }
}

/// As [`on_verb`], for a verb that removes only with one of the flags `if_given`: without them, a flag that is not known does not
/// matter.
pub(super) fn on_verb_that_may(line: &[String], known: &[Flag], if_given: &[Flag]) -> Result<Read, Meaning> {
    match read(line, known, Until::End) {
        Ok(found) if found.is("help") => Err(Meaning::PassThrough),
        Ok(found) => Ok(found),
        Err((wrong, _)) if line.iter().any(|word| may_be(word, if_given)) => Err(Meaning::unclear(&wrong)),
        Err(_) => Err(Meaning::PassThrough),
    }
}

fn checked(kind: &str, names: Vec<String>, make: impl FnOnce(Vec<String>) -> Intent) -> Meaning {
    if names.is_empty() {
        return Meaning::PassThrough; // Docker says how it is used.
    }
    match names.iter().try_for_each(|name| check_name(kind, name)) {
        Ok(()) => Meaning::Guarded(make(names)),
        Err(meaning) => meaning,
    }
}

fn container_rm(line: &[String]) -> Meaning {
    let found = match on_verb(line, CONTAINER_RM) {
        Ok(found) if found.is("link") => return Meaning::PassThrough,
        Ok(found) => found,
        Err(meaning) => return meaning,
    };
    let (volumes, force) = (found.is("volumes"), found.is("force"));
    // Docker's command takes slashes off both ends: a name as the API has it begins with one.
    let containers = found.arguments.iter().map(|name| name.trim_matches('/').to_owned()).collect();
    checked("container", containers, |containers| Intent::RemoveContainers { containers, volumes, force })
}

fn volume_rm(line: &[String]) -> Meaning {
    match on_verb(line, VOLUME_RM) {
        Ok(found) => {
            let force = found.is("force");
            checked("volume", found.arguments, |volumes| Intent::RemoveVolumes { volumes, force })
        }
        Err(meaning) => meaning,
    }
}

/// Reads a prune, whose arguments are flags only.
fn prune(line: &[String], known: &[Flag]) -> Result<(Read, Filters), Meaning> {
    let found = on_verb(line, known)?;
    if !found.arguments.is_empty() {
        return Err(Meaning::PassThrough); // Docker says that it takes none.
    }
    let mut filters = Filters::none();
    // Docker's command ignores an empty one.
    for text in found.all("filter").iter().filter(|text| !text.is_empty()) {
        filters.add_argument(text).map_err(|e| {
            Meaning::refused(e.to_string(), "write it as --filter label=KEY or --filter label=KEY=VALUE")
        })?;
    }
    Ok((found, filters))
}

fn container_prune(line: &[String]) -> Meaning {
    match prune(line, CONTAINER_PRUNE) {
        Ok((_, filters)) => Meaning::Guarded(Intent::PruneContainers { filters }),
        Err(meaning) => meaning,
    }
}

fn volume_prune(line: &[String]) -> Meaning {
    match prune(line, VOLUME_PRUNE) {
        Ok((found, mut filters)) => {
            if found.is("all") {
                filters.add("all", "true");
            }
            Meaning::Guarded(Intent::PruneVolumes { filters })
        }
        Err(meaning) => meaning,
    }
}

fn system_prune(line: &[String]) -> Meaning {
    match prune(line, SYSTEM_PRUNE) {
        // `--all` is for images.
        Ok((found, filters)) => Meaning::Guarded(Intent::PruneSystem { filters, volumes: found.is("volumes") }),
        Err(meaning) => meaning,
    }
}

fn swarm_objects(line: &[String], known: &[Flag], tasks: impl FnOnce(Vec<String>) -> Tasks) -> Meaning {
    match on_verb(line, known) {
        Ok(found) if found.arguments.is_empty() => Meaning::PassThrough,
        Ok(found) => Meaning::Guarded(Intent::RemoveTasks(tasks(found.arguments))),
        Err(meaning) => meaning,
    }
}

fn service_scale(line: &[String]) -> Meaning {
    match on_verb(line, SERVICE_SCALE) {
        Ok(found) => match numbers(&found.arguments) {
            // Not a number, or nothing at all: Docker says so.
            Some(beyond) if !beyond.is_empty() => Meaning::Guarded(Intent::RemoveTasks(Tasks::Beyond(beyond))),
            _ => Meaning::PassThrough,
        },
        Err(meaning) => meaning,
    }
}

/// Reads `SERVICE=NUMBER`, several times; `None` if one is something else.
pub(super) fn numbers(words: &[String]) -> Option<Vec<(String, u64)>> {
    words
        .iter()
        .map(|word| word.rsplit_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?))))
        .collect()
}

fn swarm_leave(line: &[String]) -> Meaning {
    match on_verb(line, ONLY_FORCE) {
        Ok(_) => Meaning::Guarded(Intent::RemoveTasks(Tasks::OfNode)),
        Err(meaning) => meaning,
    }
}

/// With force, a plugin goes that volumes still need, and with it all that the engine keeps for it.
fn plugin_rm(line: &[String]) -> Meaning {
    match on_verb(line, ONLY_FORCE) {
        Ok(found) if found.is("force") && !found.arguments.is_empty() => Meaning::refused(
            "it removes the plugin's folder together with the data of every volume that the plugin keeps there, and nobody can \
             look into that",
            "remove its volumes first, one by one, and then the plugin without -f; VOLTOOL_GUARD=off in front of the command runs \
             it unguarded",
        ),
        Ok(_) => Meaning::PassThrough,
        Err(meaning) => meaning,
    }
}
