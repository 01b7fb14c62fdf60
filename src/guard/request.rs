//! What somebody wants to remove, in the engine's terms.
//!
//! Every command that destroys, however it is spelled and wherever it comes from, is a sequence of these steps: `docker system
//! prune --volumes` is [`Step::PruneContainers`] and then [`Step::PruneVolumes`], since that is the order in which Docker's
//! command sends them, and what the first removes decides what the second finds unused.

use serde::{Deserialize, Serialize};

use super::Filters;

/// Something that somebody wants to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The command as a person would type it, for messages: `docker rm -v db`.
    pub command: String,
    /// What the engine is going to be asked for, in this order.
    pub steps: Vec<Step>,
    /// The API version in which it is asked: `(1, 41)`. The meaning of "prune" depends on it.
    pub api: (u32, u32),
}

/// One call on the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// `DELETE /containers/{id}`.
    RemoveContainer {
        /// A name, an id, or the unique beginning of an id.
        container: String,
        /// `v`: its anonymous volumes as well.
        volumes: bool,
        /// `force`: even if it runs.
        force: bool,
    },
    /// `DELETE /volumes/{name}`.
    RemoveVolume {
        /// The name.
        volume: String,
        /// `force`: not an error if there is no such volume. The engine still refuses one that is in use.
        force: bool,
    },
    /// `POST /containers/prune`: all that do not run. Their anonymous volumes stay, without a name that anybody knows.
    PruneContainers {
        /// `label`, `label!`, `until`.
        filters: Filters,
    },
    /// `POST /volumes/prune`.
    PruneVolumes {
        /// `label`, `label!`, `all`.
        filters: Filters,
    },
}

/// A command as a person would type it: the words, and then the names, quoted for a shell where they need it.
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>, names: &'a [String]) -> String {
    let words = words.into_iter().chain(names.iter().map(String::as_str)).map(quoted);
    words.collect::<Vec<_>>().join(" ")
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,!~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(command(["voltool", "rm", "-v"], &["db".to_owned(), "a b".to_owned()]), "voltool rm -v db 'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
