//! Numbers and times as people read and write them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Writes a size in IEC units: `512 B`, `1.5 MiB`, `256 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for name in UNITS {
        value /= 1024.0;
        unit = name;
        // What would be rounded to 1024 belongs to the next unit.
        if value < 1023.5 {
            break;
        }
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Writes a number with thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Writes a number and its noun: `1 file`, `2,000 files`.
pub fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(n))
}

/// Writes how long something took: `0.3 s`, `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", d.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds, 60, "min", "s"),
        3600..86400 => two(seconds / 60, 60, "h", "min"),
        _ => two(seconds / 3600, 24, "d", "h"),
    }
}

fn two(small: u64, per_large: u64, large_unit: &str, small_unit: &str) -> String {
    match small % per_large {
        0 => format!("{} {large_unit}", small / per_large),
        rest => format!("{} {large_unit} {rest} {small_unit}", small / per_large),
    }
}

/// Writes how long ago `then` was: `just now`, `42 s ago`, `3 h ago`, `12 d ago`. A time that is still to come, as the clock of
/// another host may make it, is `in 3 h`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    let amount = match seconds.unsigned_abs() {
        0..5 => return "just now".to_owned(),
        s @ 5..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86400),
    };
    if seconds < 0 { format!("in {amount}") } else { format!("{amount} ago") }
}

/// Writes a time as RFC 3339 in UTC with whole seconds, for `--json` and anything else that is read by programs.
pub fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a time as RFC 3339 in the zone with whole seconds. It can be given back as `VOLUME@TIME`.
pub fn local(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            (256 << 20, "256 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1023 << 10, "1023 KiB"),
            (100 << 30, "100 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_and_durations() {
        assert_eq!((count(0), count(999), count(1000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!((counted(1, "file"), counted(2000, "file")), ("1 file".into(), "2,000 files".into()));
        for (millis, text) in [
            (300, "0.3 s"),
            (42_500, "42 s"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn ages_and_times() {
        let now: Timestamp = "2026-11-20T03:00:00Z".parse().expect("a time");
        let ago = |seconds: i64| age(now - jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!((ago(0), ago(42)), ("just now".into(), "42 s ago".into()));
        assert_eq!((ago(600), ago(3 * 3600)), ("10 min ago".into(), "3 h ago".into()));
        assert_eq!((ago(12 * 86400), ago(-600)), ("12 d ago".into(), "in 10 min".into()));
        assert_eq!(utc(now), "2026-11-20T03:00:00Z");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(local(now, &zone), "2026-11-20T04:00:00+01:00");
    }
}
