//! What one HTTP request to the engine means to the guard. Pure: nothing is asked of the engine.
//!
//! The engine shows an authorization plugin each request as it arrived, before its router has looked at it, so this repeats what
//! the router does with a target, and where that is in doubt assumes the worse. The rules were tried on engines with API 1.41
//! and 1.45; a request that those would answer with "not found" or a redirect, but that resembles one that destroys, is refused.
//!
//! | request | is |
//! | --- | --- |
//! | `DELETE /containers/{id}` | judged: with `v` it destroys anonymous volumes, without it may orphan them |
//! | `DELETE /volumes/{name}` | judged |
//! | `POST /containers/prune`, `POST /volumes/prune` | judged; refused if the body could replace the filters unseen |
//! | `DELETE /plugins/{name}`, `POST /plugins/{name}/disable` and its kin, of voltool | refused |
//! | `POST /containers/create` with `AutoRemove`, removal of a service, leaving a swarm | let through, with a line for the log |
//! | anything else | harmless |
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`target`] | from a request's target to a route |
//! | [`query`] | queries and filters as the engine reads them |
//! | [`body`] | the definition of a container, read as the engine reads JSON |

pub mod body;
pub mod query;
pub mod target;

#[cfg(test)]
mod tests;

use super::{Filters, Request, Step};
use query::Query;
use target::{Place, Target};

/// The name under which an engine knows this plugin, which is the name of its socket.
pub const PLUGIN_NAME: &str = "voltool";

/// One request to the engine, as it tells an authorization plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuthzRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The request's target as it was sent.
    pub target: &'a str,
    /// `Content-Type`. Of several the last: the engine itself goes by the first, which it does not tell.
    pub content_type: Option<&'a str>,
    /// `Content-Length`. Absent also if the body comes in chunks.
    pub content_length: Option<&'a str>,
    /// The body; absent if it is not JSON, or too long for the engine to pass it on.
    pub body: Option<&'a [u8]>,
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classified {
    /// It removes nothing.
    Harmless,
    /// It removes nothing by itself, but leads to a removal that no plugin is asked about: a line for the log.
    Noted(String),
    /// It removes something.
    Destroys(Destroying),
    /// It must not be done, for this reason.
    Refused(String),
}

/// A request that removes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroying {
    /// The request, for messages: `DELETE /containers/db?v=1`.
    pub command: String,
    /// What the engine would do.
    pub step: Step,
    /// The API version in its path; `None` if there is none: then it is the newest that the engine speaks.
    pub api: Option<(u32, u32)>,
}

impl Destroying {
    /// The request to judge; `newest` is the newest API version that the engine speaks.
    pub fn into_request(self, newest: (u32, u32)) -> Request {
        Request { command: self.command, steps: vec![self.step], api: self.api.unwrap_or(newest) }
    }
}

/// Says what a request means.
pub fn classify(request: &AuthzRequest<'_>) -> Classified {
    if request.method.is_empty() || request.target.is_empty() {
        return refused("it was passed on without its method or its target; try again");
    }
    let method = match request.method {
        // As they are written nearly always, so that most requests end here.
        "GET" | "HEAD" => return Classified::Harmless,
        method if method.eq_ignore_ascii_case("DELETE") => Method::Delete,
        method if method.eq_ignore_ascii_case("POST") => Method::Post,
        _ => return Classified::Harmless,
    };
    let Some(target) = Target::parse(request.target) else {
        return refused("its path cannot be decoded");
    };
    let place = match target.place(method) {
        Place::Elsewhere => return Classified::Harmless,
        Place::Doubtful => {
            return refused("its path resembles one that removes data, and is not written as the engine documents it");
        }
        Place::Exact(place) => place,
    };
    let classified = match place {
        target::Exact::Container(name) => remove_container(&target, name),
        target::Exact::Volume(name) => remove_volume(&target, name),
        target::Exact::PruneContainers => prune(request, &target, false),
        target::Exact::PruneVolumes => prune(request, &target, true),
        target::Exact::Plugin(name) if is_own(name) => {
            refused("it would take the guard out of the engine: use 'voltool guard disable'")
        }
        target::Exact::Plugin(_) => Classified::Harmless,
        target::Exact::CreateContainer => create_container(request),
        target::Exact::Reaps(what) => Classified::Noted(format!(
            "{what}: the engine removes the containers of tasks by itself, and asks no plugin; their anonymous volumes go with them"
        )),
    };
    match classified {
        // The engine knows no such method; something between might.
        Classified::Destroys(_) if !matches!(request.method, "DELETE" | "POST") => {
            refused("its method is not written in capitals")
        }
        classified => classified,
    }
}

/// The methods that can remove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `POST`
    Post,
}

fn refused(reason: &str) -> Classified {
    Classified::Refused(format!("the request cannot be judged: {reason}"))
}

fn remove_container(target: &Target<'_>, name: &str) -> Classified {
    let query = match Query::parse(target.query) {
        Ok(query) => query,
        Err(reason) => return refused(reason),
    };
    let (volumes, force) = (query.is_true("v"), query.is_true("force"));
    let command = format!("DELETE /containers/{name}{}", flags(&[("v", volumes), ("force", force)]));
    let step = Step::RemoveContainer { container: name.to_owned(), volumes, force };
    Classified::Destroys(Destroying { command, step, api: target.version })
}

fn remove_volume(target: &Target<'_>, name: &str) -> Classified {
    let query = match Query::parse(target.query) {
        Ok(query) => query,
        Err(reason) => return refused(reason),
    };
    let force = query.is_true("force");
    let command = format!("DELETE /volumes/{name}{}", flags(&[("force", force)]));
    let step = Step::RemoveVolume { volume: name.to_owned(), force };
    Classified::Destroys(Destroying { command, step, api: target.version })
}

fn prune(request: &AuthzRequest<'_>, target: &Target<'_>, volumes: bool) -> Classified {
    if !body_is_out_of_play(request) {
        return refused("its body could replace the filters, and cannot be seen: send it without a body");
    }
    let query = match Query::parse(target.query) {
        Ok(query) => query,
        Err(reason) => return refused(reason),
    };
    let text = query.first("filters").unwrap_or_default();
    let Some(filters) = query::filters(text) else {
        return refused("its filters cannot be understood");
    };
    let (what, step) = match volumes {
        true => ("volumes", Step::PruneVolumes { filters: filters.clone() }),
        false => ("containers", Step::PruneContainers { filters: filters.clone() }),
    };
    let shown = if filters == Filters::none() { String::new() } else { format!("?filters={text}") };
    Classified::Destroys(Destroying { command: format!("POST /{what}/prune{shown}"), step, api: target.version })
}

/// Whether the filters of a prune are what the target says. The engine reads a form in the body before the query, and never shows
/// a form to a plugin; of several `Content-Type` headers it goes by the first and shows the last.
fn body_is_out_of_play(request: &AuthzRequest<'_>) -> bool {
    let json = request.body.is_some_and(|body| !body.is_empty());
    request.content_type.is_none() || request.content_length.is_some_and(|length| length.trim() == "0") || json
}

fn create_container(request: &AuthzRequest<'_>) -> Classified {
    let Some(definition) = request.body.and_then(body::read) else {
        return Classified::Noted(
            "POST /containers/create: the engine did not pass on a definition that can be read; if it says --rm, no plugin is \
             asked when the container is removed"
                .to_owned(),
        );
    };
    match definition {
        body::Definition { auto_remove: false, .. } => Classified::Harmless,
        body::Definition { anonymous, .. } => {
            let which = match anonymous {
                true => "its anonymous volumes",
                false => "any volume that only its image declares",
            };
            Classified::Noted(format!(
                "POST /containers/create with --rm: the engine removes the container by itself when it ends, with {which}, and \
                 asks no plugin; a volume with a name stays"
            ))
        }
    }
}

/// Whether a managed plugin is voltool, whatever registry and tag it has.
fn is_own(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(['@', ':']).next().unwrap_or(last).eq_ignore_ascii_case(PLUGIN_NAME)
}

fn flags(flags: &[(&str, bool)]) -> String {
    let set: Vec<String> = flags.iter().filter(|(_, set)| *set).map(|(name, _)| format!("{name}=1")).collect();
    if set.is_empty() { String::new() } else { format!("?{}", set.join("&")) }
}
