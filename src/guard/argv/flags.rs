//! Flags as Docker's command reads them (it uses the Go package pflag).
//!
//! - `--name=value`, `--name value`, `-nvalue`, `-n=value`, `-n value`; a name is never abbreviated.
//! - A flag without a value may be given one only by `=`: `--volumes=false`, `-v=0`. Of several letters after one dash, all but
//!   the last take none.
//! - The last of several wins, unless the flag collects.
//! - `--` ends the flags; `-` alone is an argument.
//! - In front of a verb the first argument ends the flags as well; behind it flags and arguments may be mixed.

use std::collections::BTreeMap;

use crate::guard::filter::go_bool;

/// A flag that a command knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    /// The name behind two dashes.
    pub long: &'static str,
    /// The letter behind one dash.
    pub short: Option<char>,
    /// Whether it takes a value; if not, it is true or false.
    pub takes_value: bool,
}

/// A flag that is true or false.
pub(super) const fn switch(long: &'static str, short: Option<char>) -> Flag {
    Flag { long, short, takes_value: false }
}

/// A flag with a value.
pub(super) const fn value(long: &'static str, short: Option<char>) -> Flag {
    Flag { long, short, takes_value: true }
}

/// What every command knows.
const HELP: Flag = switch("help", Some('h'));

/// Where flags end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At the first argument: these are the flags in front of a verb.
    Verb,
    /// At `--` or the end.
    End,
}

/// Why a command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No such flag; as it was written.
    Unknown(String),
    /// The flag needs a value and there is none.
    NoValue(String),
    /// The value of a switch is neither true nor false.
    NotBool(String),
}

impl Wrong {
    /// As the end of a sentence.
    pub fn describe(&self) -> String {
        match self {
            Wrong::Unknown(flag) => format!("{flag} is not a flag that is known here"),
            Wrong::NoValue(flag) => format!("{flag} has no value"),
            Wrong::NotBool(flag) => format!("{flag} is neither true nor false"),
        }
    }
}

/// A command line that has been read.
#[derive(Debug, Default)]
pub(super) struct Read {
    given: BTreeMap<&'static str, Vec<String>>,
    /// What is not a flag, in order.
    pub arguments: Vec<String>,
    /// With [`Until::Verb`]: where the verb is in what was read, or its length if there is none.
    pub verb_at: usize,
}

impl Read {
    /// Whether a switch is on.
    pub fn is(&self, long: &str) -> bool {
        // Only values that are understood get in.
        self.last(long).and_then(go_bool).unwrap_or(false)
    }

    /// The last value of a flag.
    pub fn last(&self, long: &str) -> Option<&str> {
        self.all(long).last().map(String::as_str)
    }

    /// Every value of a flag, in order.
    pub fn all(&self, long: &str) -> &[String] {
        self.given.get(long).map_or(&[], Vec::as_slice)
    }
}

/// Reads flags and arguments.
///
/// # Errors
/// What is wrong with the first flag that cannot be understood, and its place.
pub(super) fn read(line: &[String], known: &[Flag], until: Until) -> Result<Read, (Wrong, usize)> {
    let mut read = Read { verb_at: line.len(), ..Read::default() };
    let mut at = 0;
    while at < line.len() {
        let word = line[at].as_str();
        if word == "--" {
            read.verb_at = at + 1;
            read.arguments.extend_from_slice(&line[at + 1..]);
            break;
        }
        let used = if let Some(long) = word.strip_prefix("--") {
            read_long(&mut read, word, long, line.get(at + 1), known)
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            read_letters(&mut read, word, letters, line.get(at + 1), known)
        } else if until == Until::Verb {
            read.verb_at = at;
            read.arguments.extend_from_slice(&line[at..]);
            break;
        } else {
            read.arguments.push(word.to_owned());
            Ok(1)
        };
        at += used.map_err(|wrong| (wrong, at))?;
    }
    Ok(read)
}

/// Reads `--name`, `--name=value` or `--name value`. Returns how many words that took.
fn read_long(read: &mut Read, word: &str, text: &str, next: Option<&String>, known: &[Flag]) -> Result<usize, Wrong> {
    let (name, given) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let flag = find(known, |flag| flag.long == name).ok_or_else(|| Wrong::Unknown(format!("--{name}")))?;
    match (given, next) {
        (Some(value), _) => read.put(flag, value, word).map(|()| 1),
        (None, _) if !flag.takes_value => read.put(flag, "true", word).map(|()| 1),
        (None, Some(value)) => read.put(flag, value, word).map(|()| 2),
        (None, None) => Err(Wrong::NoValue(word.to_owned())),
    }
}

/// Reads `-a`, `-abc`, `-avalue`, `-a=value` or `-a value`. Returns how many words that took.
fn read_letters(
    read: &mut Read,
    word: &str,
    letters: &str,
    next: Option<&String>,
    known: &[Flag],
) -> Result<usize, Wrong> {
    let mut rest = letters;
    while let Some(letter) = rest.chars().next() {
        let flag = find(known, |flag| flag.short == Some(letter)).ok_or_else(|| {
            Wrong::Unknown(if letters.len() == letter.len_utf8() {
                word.to_owned()
            } else {
                format!("-{letter} in {word}")
            })
        })?;
        rest = &rest[letter.len_utf8()..];
        // Go wants something behind the equals sign: in `-f=` it is a letter that is not known.
        if let Some(value) = rest.strip_prefix('=').filter(|value| !value.is_empty()) {
            return read.put(flag, value, word).map(|()| 1);
        }
        if flag.takes_value {
            return match (rest, next) {
                ("", Some(value)) => read.put(flag, value, word).map(|()| 2),
                ("", None) => Err(Wrong::NoValue(word.to_owned())),
                (value, _) => read.put(flag, value, word).map(|()| 1),
            };
        }
        read.put(flag, "true", word)?;
    }
    Ok(1)
}

impl Read {
    fn put(&mut self, flag: Flag, value: &str, word: &str) -> Result<(), Wrong> {
        if !flag.takes_value && go_bool(value).is_none() {
            return Err(Wrong::NotBool(word.to_owned()));
        }
        self.given.entry(flag.long).or_default().push(value.to_owned());
        Ok(())
    }
}

fn find(known: &[Flag], matches: impl Fn(&Flag) -> bool) -> Option<Flag> {
    known.iter().chain([&HELP]).find(|flag| matches(flag)).copied()
}

/// Whether a word could be one of these flags, however it is spelled: for what stands behind a flag that is not known, where it
/// cannot be told what is a value and what is not. Compose before version 2 takes abbreviations.
pub(super) fn may_be(word: &str, flags: &[Flag]) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split_once('=').map_or(long, |(name, _)| name);
        return !name.is_empty() && flags.iter().any(|flag| flag.long.starts_with(name));
    }
    word.strip_prefix('-').is_some_and(|letters| letters.chars().any(|c| flags.iter().any(|f| f.short == Some(c))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[switch("force", Some('f')), switch("volumes", Some('v')), value("time", Some('t'))];

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_spelling_of_a_flag() {
        for (line, force, volumes, time, arguments) in [
            ("a b", false, false, None, "a b"),
            ("-f a -v b", true, true, None, "a b"),
            ("-fv a", true, true, None, "a"),
            ("-vf=true a", true, true, None, "a"),
            ("-v=false a", false, false, None, "a"),
            ("--volumes --volumes=0 a", false, false, None, "a"),
            ("--volumes=t --force=1", true, true, None, ""),
            ("-t 5 a", false, false, Some("5"), "a"),
            ("-t5 a", false, false, Some("5"), "a"),
            ("-ft=5 a", true, false, Some("5"), "a"),
            ("--time 5 a", false, false, Some("5"), "a"),
            ("--time=5 --time=6 a", false, false, Some("6"), "a"),
            ("-t -v a", false, false, Some("-v"), "a"),
            ("-- -v -f", false, false, None, "-v -f"),
            ("a -- -v", false, false, None, "a -v"),
            ("- -v", false, true, None, "-"),
        ] {
            let read = read(&words(line), KNOWN, Until::End).unwrap_or_else(|e| panic!("{line}: {e:?}"));
            assert_eq!((read.is("force"), read.is("volumes"), read.last("time")), (force, volumes, time), "{line}");
            assert_eq!(read.arguments, words(arguments), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, wrong, place) in [
            ("a -q", Wrong::Unknown("-q".to_owned()), 1),
            ("-fq a", Wrong::Unknown("-q in -fq".to_owned()), 0),
            ("-f= a", Wrong::Unknown("-= in -f=".to_owned()), 0),
            ("--vol a", Wrong::Unknown("--vol".to_owned()), 0),
            ("---v a", Wrong::Unknown("---v".to_owned()), 0),
            ("a -t", Wrong::NoValue("-t".to_owned()), 1),
            ("--time", Wrong::NoValue("--time".to_owned()), 0),
            ("--force=yes a", Wrong::NotBool("--force=yes".to_owned()), 0),
            ("-v=maybe a", Wrong::NotBool("-v=maybe".to_owned()), 0),
        ] {
            assert_eq!(read(&words(line), KNOWN, Until::End).expect_err(line), (wrong, place), "{line}");
        }
    }

    #[test]
    fn in_front_of_a_verb_the_first_argument_ends_the_flags() {
        let line = words("-t 5 rm -v x");
        let found = read(&line, KNOWN, Until::Verb).expect("understood");
        assert_eq!((found.verb_at, found.arguments.len(), found.is("volumes")), (2, 3, false));
        let line = words("-f -- rm");
        assert_eq!(read(&line, KNOWN, Until::Verb).expect("understood").verb_at, 2);
        assert_eq!(read(&words("-f"), KNOWN, Until::Verb).expect("understood").verb_at, 1);
    }

    #[test]
    fn what_may_be_a_flag() {
        for (word, expected) in [
            ("--volumes", true),
            ("--vol", true),
            ("--volumes=0", true),
            ("--", false),
            ("-xv", true),
            ("-x", false),
            ("volumes", false),
            ("--volumesx", false),
        ] {
            assert_eq!(may_be(word, KNOWN), expected, "{word}");
        }
    }
}
