//! The filters of Docker's prune commands: `--filter label=x`, `--filter until=24h`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Filters as the API takes them: values by key. Several values of `label` must all hold; of `label!`, a candidate is left
/// out if all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not `key=value`.
    #[error("filter {0:?} is not key=value")]
    Shape(String),
    /// Not a key that this kind of prune knows.
    #[error("filter {0:?} is not one of: {1}")]
    Unknown(String, &'static str),
    /// A value that makes no sense for its key.
    #[error("filter {key}: {value:?} is not {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The keys that `POST /containers/prune` takes.
const OF_CONTAINERS: &[&str] = &["label", "label!", "until"];
/// The keys that `POST /volumes/prune` takes; `all` since API 1.42.
const OF_VOLUMES: &[&str] = &["label", "label!", "all"];

impl Filters {
    /// No filters.
    pub fn none() -> Filters {
        Filters::default()
    }

    /// Adds one.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// Adds one as the command line has it: `label=a=b`, `label!=a`, `until=24h`. Docker's own command cuts at the first `=`
    /// and trims and lowers the key.
    ///
    /// # Errors
    /// If there is no `=`.
    pub fn add_argument(&mut self, text: &str) -> Result<(), FilterError> {
        let (key, value) = text.split_once('=').ok_or_else(|| FilterError::Shape(text.to_owned()))?;
        self.add(&key.trim().to_lowercase(), value.trim());
        Ok(())
    }

    /// The values of a key.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether there is any value for the key.
    pub fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// Checks that these are filters for containers and returns the moment of `until`, if there is one.
    ///
    /// # Errors
    /// See [`FilterError`]: what is not understood must not be taken for "no filter".
    pub fn of_containers(&self, now: Timestamp) -> Result<Option<Timestamp>, FilterError> {
        self.check_keys(OF_CONTAINERS, "label, label!, until")?;
        let mut until = self.values("until");
        let Some(value) = until.next() else { return Ok(None) };
        let expected = "a duration such as 24h, a time, or a Unix time; one only";
        let wrong = || FilterError::Value { key: "until".to_owned(), value: value.to_owned(), expected };
        if until.next().is_some() {
            return Err(wrong());
        }
        parse_until(value, now).map(Some).ok_or_else(wrong)
    }

    /// Checks that these are filters for volumes and returns whether `all` asks for named ones too.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn of_volumes(&self) -> Result<bool, FilterError> {
        self.check_keys(OF_VOLUMES, "label, label!, all")?;
        let mut all = self.values("all");
        let Some(value) = all.next() else { return Ok(false) };
        let wrong = || FilterError::Value { key: "all".to_owned(), value: value.to_owned(), expected: "true or false" };
        if all.next().is_some() {
            return Err(wrong());
        }
        go_bool(value).ok_or_else(wrong)
    }

    /// Whether labels pass `label` and `label!`, by the engine's rules: all values of `label` must match; a candidate goes free
    /// if *all* values of `label!` match.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |value: &str| match value.split_once('=') {
            Some((key, wanted)) => labels.get(key).is_some_and(|found| found == wanted),
            None => labels.contains_key(value),
        };
        self.values("label").all(holds) && !(self.contains("label!") && self.values("label!").all(holds))
    }

    fn check_keys(&self, known: &[&str], list: &'static str) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FilterError::Unknown(key.clone(), list)),
            None => Ok(()),
        }
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads `until` as Docker does: a Go duration before now, a Unix time with an optional fraction, or a date with optional time
/// and offset. A date without an offset is read in this machine's zone, as the engine does.
fn parse_until(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(seconds) = go_duration(text) {
        return now.checked_sub(SignedDuration::from_secs_f64(seconds)).ok();
    }
    if let Ok(unix) = text.parse::<f64>() {
        return Timestamp::from_millisecond((unix * 1000.0) as i64).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let local = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::system()).ok().map(|z| z.timestamp());
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        return local(civil);
    }
    // `2006-01-02T15` and `2006-01-02T15:04`, which Docker takes as well.
    let padded = match text.len() {
        13 => format!("{text}:00:00"),
        16 => format!("{text}:00"),
        _ => return None,
    };
    padded.parse::<jiff::civil::DateTime>().ok().and_then(local)
}

/// Reads a duration as Go writes it: `24h`, `1h30m`, `1.5h`, `300ms`. In seconds.
fn go_duration(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, length) =
            [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
        total += number * length;
        rest = &rest[unit.len()..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(arguments: &[&str]) -> Filters {
        let mut filters = Filters::none();
        for argument in arguments {
            filters.add_argument(argument).expect("key=value");
        }
        filters
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_are_matched_as_the_engine_does() {
        let app = labels(&[("app", "shop"), ("tier", "db")]);
        for (arguments, expected) in [
            (&[][..], true),
            (&["label=app"], true),
            (&["label=app=shop"], true),
            (&["label=app=other"], false),
            (&["label=app", "label=absent"], false),
            (&["label!=app"], false),
            (&["label!=absent"], true),
            // Left out only if all of them hold.
            (&["label!=app", "label!=absent"], true),
            (&["label!=app", "label!=tier=db"], false),
            (&["label=app", "label!=tier"], false),
        ] {
            assert_eq!(filters(arguments).match_labels(&app), expected, "{arguments:?}");
        }
    }

    #[test]
    fn until_is_read_as_docker_reads_it() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("24h", "2026-11-20T12:00:00Z"),
            ("1h30m", "2026-11-21T10:30:00Z"),
            ("1.5h", "2026-11-21T10:30:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ] {
            let until = filters(&[&format!("until={text}")]).of_containers(now).expect("understood");
            assert_eq!(until, Some(expected.parse().expect("a time")), "{text}");
        }
        for text in ["", "yesterday", "24", "h", "1x"] {
            let read = filters(&[&format!("until={text}")]).of_containers(now);
            assert!(text == "24" || read.is_err(), "{text}: {read:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(filters(&["until=1h"]).of_volumes().is_err());
        assert!(filters(&["dangling=true"]).of_volumes().is_err());
        assert!(filters(&["all=maybe"]).of_volumes().is_err());
        assert!(filters(&["all=true", "all=false"]).of_volumes().is_err());
        assert_eq!(filters(&["all=1"]).of_volumes(), Ok(true));
        assert_eq!(filters(&["label=x"]).of_volumes(), Ok(false));
        assert!(Filters::none().add_argument("label").is_err());
    }
}
