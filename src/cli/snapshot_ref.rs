//! `VOLUME[@SNAPSHOT]`: which snapshot a person means.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A volume, and which of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The volume's name.
    pub volume: String,
    /// Which snapshot.
    pub which: Which,
}

/// Which snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// The one whose id begins so, in upper case.
    Id(String),
    /// The newest whose time is not after this.
    ///
    /// A time is as exact as it was written: `03:00:07` also means the snapshot of 03:00:07.123, `03:00` that of 03:00:07 (which
    /// is when cron's 03:00 really begins), and a date the whole day. So what a list shows can be given back.
    NotAfter(Timestamp),
}

/// Why no snapshot was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectError {
    /// There is none.
    None,
    /// The beginning of an id fits several; these.
    Ambiguous(Vec<String>),
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelectError::None => f.write_str("there is no such snapshot"),
            SelectError::Ambiguous(ids) => write!(f, "several snapshots begin so: {}", ids.join(", ")),
        }
    }
}

impl std::error::Error for SelectError {}

impl Which {
    /// Chooses among the snapshots of one volume, the oldest first, as the repository lists them: which is the newer is decided there.
    pub fn select<'a, T>(
        &self,
        snapshots: &'a [T],
        id: impl Fn(&T) -> &str,
        time: impl Fn(&T) -> Timestamp,
    ) -> Result<&'a T, SelectError> {
        match self {
            Which::Latest => snapshots.last().ok_or(SelectError::None),
            Which::NotAfter(limit) => snapshots.iter().rfind(|s| time(s) <= *limit).ok_or(SelectError::None),
            Which::Id(prefix) => {
                let mut fitting: Vec<&T> = snapshots.iter().filter(|s| id(s).starts_with(prefix.as_str())).collect();
                match fitting.len() {
                    0 => Err(SelectError::None),
                    1 => Ok(fitting.remove(0)),
                    _ => Err(SelectError::Ambiguous(fitting.into_iter().map(|s| id(s).to_owned()).collect())),
                }
            }
        }
    }
}

/// Parses an argument; times without an offset are in the system's zone.
pub fn parse_argument(text: &str) -> Result<SnapshotRef, String> {
    parse(text, &TimeZone::system())
}

/// Parses `VOLUME[@SNAPSHOT]`; times without an offset are in `zone`.
pub fn parse(text: &str, zone: &TimeZone) -> Result<SnapshotRef, String> {
    let (volume, which) = match text.split_once('@') {
        None => (text, Which::Latest),
        Some((volume, which)) => (volume, parse_which(which, zone)?),
    };
    Ok(SnapshotRef { volume: parse_volume_name(volume)?, which })
}

/// Parses what stands after the `@`.
fn parse_which(text: &str, zone: &TimeZone) -> Result<Which, String> {
    if text == "latest" {
        return Ok(Which::Latest);
    }
    if text.contains('-') || text.contains(':') {
        return not_after(text, zone).map(Which::NotAfter);
    }
    // The alphabet of ULIDs: digits and letters but I, L, O and U. The first is at most 7, because 26 characters hold two bits more
    // than an id has; so an ordinary word is not taken for one.
    let id = text.to_ascii_uppercase();
    let valid = |c: char| c.is_ascii_digit() || (c.is_ascii_uppercase() && !"ILOU".contains(c));
    if id.len() <= 26 && id.starts_with(|c| ('0'..='7').contains(&c)) && id.chars().all(valid) {
        return Ok(Which::Id(id));
    }
    Err(format!(
        "'{text}' is neither 'latest', nor the beginning of a snapshot's id, nor a time such as 2026-11-20T03:00"
    ))
}

/// The last instant that a time means, as exact as it is written.
fn not_after(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "'{text}' is not a time such as 2026-11-20, 2026-11-20T03:00, 2026-11-20T03:00:00Z or 2026-11-20T03:00+01:00"
        )
    };
    let out_of_range = |_| format!("'{text}' is too far away");
    let last_of = |start: DateTime, length: SignedDuration| {
        let last = length - SignedDuration::from_nanos(1);
        start.checked_add(last).map_err(out_of_range)
    };
    let Some(at) = text.find(['T', 't', ' ']) else {
        let date: Date = text.parse().map_err(|_| wrong())?;
        let end = last_of(date.to_datetime(jiff::civil::Time::midnight()), SignedDuration::from_hours(24))?;
        // Of an hour that happens twice the second, because the whole day is meant.
        return zone.to_ambiguous_timestamp(end).later().map_err(out_of_range);
    };
    let time = &text[at + 1..];
    let offset = time.find(['Z', 'z', '+', '-', '[']).unwrap_or(time.len());
    let (clock, offset) = time.split_at(offset);
    let exact = match (clock.contains('.') || clock.contains(','), clock.matches(':').count()) {
        (true, 2) => SignedDuration::from_nanos(1),
        (false, 2) => SignedDuration::from_secs(1),
        (false, 1) => SignedDuration::from_mins(1),
        _ => return Err(wrong()),
    };
    if offset.is_empty() {
        let start: DateTime = text.parse().map_err(|_| wrong())?;
        return zone.to_ambiguous_timestamp(last_of(start, exact)?).later().map_err(out_of_range);
    }
    let start: Timestamp = text.parse().map_err(|_| wrong())?;
    start.checked_add(exact - SignedDuration::from_nanos(1)).map_err(out_of_range)
}

/// Parses a volume's name by Docker's rule, which leaves `@` free.
pub fn parse_volume_name(text: &str) -> Result<String, String> {
    let mut chars = text.chars();
    let valid = chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if valid {
        return Ok(text.to_owned());
    }
    Err(if text.is_empty() {
        "the volume's name is empty".to_owned()
    } else {
        format!("'{text}' is not a volume's name: letters and digits, and '.', '_' and '-' behind the first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(1))
    }

    fn which(text: &str) -> Which {
        parse(&format!("db@{text}"), &zone()).expect("valid").which
    }

    fn not_after(text: &str) -> String {
        match which(text) {
            Which::NotAfter(time) => time.to_string(),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn volume_alone_latest_and_id() {
        let r = parse("my_db-1.x", &zone()).expect("valid");
        assert_eq!((r.volume.as_str(), r.which), ("my_db-1.x", Which::Latest));
        assert_eq!(which("latest"), Which::Latest);
        assert_eq!(which("01kadx"), Which::Id("01KADX".to_owned()));
        assert_eq!(which("20261120"), Which::Id("20261120".to_owned()));
    }

    #[test]
    fn times_are_as_exact_as_they_are_written() {
        assert_eq!(not_after("2026-11-20"), "2026-11-20T22:59:59.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00"), "2026-11-20T02:00:59.999999999Z");
        assert_eq!(not_after("2026-11-20 03:00"), "2026-11-20T02:00:59.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00:07"), "2026-11-20T02:00:07.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00:07.5"), "2026-11-20T02:00:07.5Z");
        assert_eq!(not_after("2026-11-20T03:00:07Z"), "2026-11-20T03:00:07.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00Z"), "2026-11-20T03:00:59.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00:07-05:00"), "2026-11-20T08:00:07.999999999Z");
        assert_eq!(not_after("2026-11-20T03:00+01:00"), "2026-11-20T02:00:59.999999999Z");
    }

    #[test]
    fn an_hour_that_happens_twice_is_meant_as_a_whole() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let r = parse("db@2026-10-25T02:30", &berlin).expect("valid");
        assert_eq!(r.which, Which::NotAfter("2026-10-25T01:30:59.999999999Z".parse().expect("a time")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "@latest",
            "a b",
            "-x",
            ".x",
            "db@",
            "db@lates",
            "db@yesterday",
            "db@hello",
            "db@2026-13-01",
            "db@2026-11-20T",
            "db@03:00",
            "db@2026-11-20T25:00",
            "db@x@y",
            "db/x",
            "db@01KADXILOU",
            "db@2026-11-20T03",
        ] {
            assert!(parse(text, &zone()).is_err(), "{text}");
        }
    }

    #[test]
    fn selects() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let snapshots = [
            ("01A", at("2026-11-19T03:00:00Z")),
            ("01B", at("2026-11-20T03:00:07Z")),
            ("01C", at("2026-11-20T03:00:07Z")),
        ];
        let select = |which: Which| which.select(&snapshots, |s| s.0, |s| s.1).map(|s| s.0);
        assert_eq!(select(Which::Latest), Ok("01C"));
        assert_eq!(select(Which::NotAfter(at("2026-11-20T03:00:06Z"))), Ok("01A"));
        assert_eq!(select(Which::NotAfter(at("2026-11-18T00:00:00Z"))), Err(SelectError::None));
        assert_eq!(select(Which::Id("01B".to_owned())), Ok("01B"));
        assert_eq!(select(Which::Id("02".to_owned())), Err(SelectError::None));
        assert!(matches!(select(Which::Id("01".to_owned())), Err(SelectError::Ambiguous(ids)) if ids.len() == 3));
        let none: [(&str, Timestamp); 0] = [];
        assert_eq!(Which::Latest.select(&none, |s| s.0, |s| s.1), Err(SelectError::None));
    }
}
