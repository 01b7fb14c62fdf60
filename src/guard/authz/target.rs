//! From a request's target to a route, as the engine's router finds it.

use super::Method;

/// A request's target, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, decoded once, without the version.
    path: String,
    /// The API version in the path, if one is there in the form that the router takes.
    pub version: Option<(u32, u32)>,
    /// The path as it was sent, and what an absolute form has in front of it.
    whole: &'a str,
    /// The query, as it was sent.
    pub query: &'a str,
    /// Whether the router takes the path as it is, rather than redirect to a tidier one.
    clean: bool,
}

/// What a target leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<'a> {
    /// Exactly there.
    Exact(Exact<'a>),
    /// Not there by the engine's rules, but it looks as if somebody wanted to.
    Doubtful,
    /// Somewhere else.
    Elsewhere,
}

/// A route that matters to the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exact<'a> {
    /// `DELETE /containers/{name}`
    Container(&'a str),
    /// `DELETE /volumes/{name}`; a volume's name may hold slashes.
    Volume(&'a str),
    /// `POST /containers/prune`
    PruneContainers,
    /// `POST /volumes/prune`
    PruneVolumes,
    /// `DELETE /plugins/{name}`, and what else takes a plugin away or replaces it.
    Plugin(&'a str),
    /// `POST /containers/create`
    CreateContainer,
    /// A route after which the engine removes containers of tasks.
    Reaps(&'static str),
}

/// The first parts of all other routes of the engine: what follows is a name of theirs, whatever it looks like.
const OTHER_ROUTES: &[&str] = &[
    "_ping",
    "auth",
    "build",
    "commit",
    "configs",
    "debug",
    "distribution",
    "events",
    "exec",
    "grpc",
    "images",
    "info",
    "metrics",
    "networks",
    "nodes",
    "secrets",
    "session",
    "system",
    "tasks",
    "version",
];

/// How often a path is decoded while looking for what it might stand for: for what decodes again on the way to the engine.
const LAYERS: usize = 4;

impl<'a> Target<'a> {
    /// Takes a target apart; `None` if its path cannot be decoded to text.
    pub fn parse(raw: &'a str) -> Option<Target<'a>> {
        let without_scheme = cut_scheme(raw);
        let (whole, query) =
            without_scheme.unwrap_or(raw).split_once('?').unwrap_or((without_scheme.unwrap_or(raw), ""));
        let path = match without_scheme.and_then(|_| whole.strip_prefix("//")) {
            Some(authority) => authority.find('/').map_or("", |at| &authority[at..]),
            None => whole,
        };
        let path = String::from_utf8(decode(path.as_bytes())?).ok()?;
        let clean = path.starts_with('/') && !path[1..].split('/').rev().skip(1).any(str::is_empty) && !has_dots(&path);
        match clean.then(|| split_version(&path)).flatten() {
            Some((version, rest)) => {
                Some(Target { path: rest.to_owned(), version: Some(version), whole, query, clean })
            }
            None => Some(Target { path, version: None, whole, query, clean }),
        }
    }

    /// Where this target leads with that method.
    pub fn place(&self, method: Method) -> Place<'_> {
        if self.clean {
            let path = &self.path[1..];
            let (head, tail) = path.split_once('/').unwrap_or((path, ""));
            if let Some(exact) = exact(method, head, tail) {
                return Place::Exact(exact);
            }
            if OTHER_ROUTES.contains(&head) {
                return Place::Elsewhere;
            }
        }
        match resembles(self.whole, method) {
            true => Place::Doubtful,
            false => Place::Elsewhere,
        }
    }
}

fn exact<'a>(method: Method, head: &str, tail: &'a str) -> Option<Exact<'a>> {
    match (method, head, tail) {
        (_, _, "") => None,
        (Method::Delete, "containers", name) => Some(Exact::Container(name)),
        (Method::Delete, "volumes", name) => Some(Exact::Volume(name)),
        (Method::Delete, "plugins", name) => Some(Exact::Plugin(name)),
        (Method::Delete, "services", _) => Some(Exact::Reaps("DELETE /services")),
        (Method::Post, "containers", "prune") => Some(Exact::PruneContainers),
        (Method::Post, "volumes", "prune") => Some(Exact::PruneVolumes),
        (Method::Post, "containers", "create") => Some(Exact::CreateContainer),
        (Method::Post, "swarm", "leave") => Some(Exact::Reaps("POST /swarm/leave")),
        (Method::Post, "services", tail) if tail.ends_with("/update") => Some(Exact::Reaps("POST /services/update")),
        (Method::Post, "plugins", tail) => {
            let (name, action) = tail.rsplit_once('/')?;
            ["disable", "upgrade", "set"].contains(&action).then_some(Exact::Plugin(name))
        }
        _ => None,
    }
}

/// The part of a target in absolute form after the scheme and its colon; `None` if there is no scheme.
fn cut_scheme(raw: &str) -> Option<&str> {
    let (scheme, rest) = raw.split_once(':')?;
    let mut letters = scheme.bytes();
    let first = letters.next().is_some_and(|b| b.is_ascii_alphabetic());
    (first && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))).then_some(rest)
}

/// Decodes percent signs, once; `None` if one of them is not followed by two hexadecimal digits.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        out.push(digit(digits[0])? << 4 | digit(digits[1])?);
        rest = after;
    }
    Some(out)
}

fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| part == "." || part == "..")
}

/// Splits `/v1.41/rest` as the router does, which takes any digits and dots. The engine counts what is not a number as 0, and
/// refuses versions that it does not speak; a lower version never makes a request destroy less.
fn split_version(path: &str) -> Option<((u32, u32), &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/')?;
    let digits = &after[..end];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let mut numbers = digits.split('.').map(|n| n.parse().unwrap_or(0));
    Some(((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)), &after[end..]))
}

/// Whether a path might lead to a route that destroys if something else reads it: in other case, decoded again, after redirects.
fn resembles(path: &str, method: Method) -> bool {
    let mut layer = path.to_owned();
    for _ in 0..LAYERS {
        let parts = resolve(&layer);
        let found = match method {
            Method::Delete => parts.windows(2).any(|pair| is_guarded(&pair[0])),
            Method::Post => matches!(parts.as_slice(), [.., noun, verb] if is_guarded(noun) && verb == "prune"),
        };
        if found {
            return true;
        }
        match decode(layer.as_bytes()) {
            Some(bytes) if bytes != layer.as_bytes() => layer = String::from_utf8_lossy(&bytes).into_owned(),
            _ => return false,
        }
    }
    // Nobody writes that many layers by accident.
    true
}

fn is_guarded(part: &str) -> bool {
    part == "containers" || part == "volumes"
}

/// The parts of a path in lower case, without empty ones and dots.
fn resolve(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split(['/', '\\']) {
        let part: String = part
            .chars()
            .filter(|c| !c.is_whitespace() && !c.is_control())
            .flat_map(char::to_lowercase)
            // Letters whose capital is an ASCII one.
            .map(|c| if c == 'ſ' { 's' } else { c })
            .collect();
        match part.as_str() {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts
}
