//! When a volume is snapshotted, how, what is kept, and what Remove does: the parts of [`super::options::VolumeOptions`] that
//! are a policy. They are validated here; the daemon acts on them.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;

/// A cron expression with five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

impl Schedule {
    /// The first time after `now` that the schedule names, in the time zone of `now`. `None` beyond the range of the calendar.
    pub fn next_after(&self, now: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(now, false).ok()
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&text).map_err(|e| e.to_string().trim_end_matches('.').to_owned())?;
        let start = jiff::civil::date(2024, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).map_err(|e| e.to_string())?;
        if cron.find_next_occurrence(&start, true).is_err() {
            return Err("no day is like that".to_owned());
        }
        Ok(Schedule { text, cron })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is kept, as in `restic forget --keep-…`: of each of the last so many hours, days, weeks, months and years that have a
/// snapshot the newest one, and the last so many whatever their time. A snapshot is kept if any of these keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many. Written `last:N`.
    pub last: u32,
    /// Hours, as `Nh`.
    pub hourly: u32,
    /// Days, as `Nd`.
    pub daily: u32,
    /// Weeks that begin on Monday, as `Nw`.
    pub weekly: u32,
    /// Months, as `Nm`.
    pub monthly: u32,
    /// Years, as `Ny`.
    pub yearly: u32,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keep = Keep::default();
        for part in text.split(',').map(str::trim) {
            let wrong = || format!("{part:?} is not a number with h, d, w, m or y behind it, nor last:N");
            let (number, place) = if let Some(number) = part.strip_prefix("last:") {
                (number, &mut keep.last)
            } else {
                let unit = part.chars().next_back().ok_or_else(wrong)?;
                let place = match unit {
                    'h' => &mut keep.hourly,
                    'd' => &mut keep.daily,
                    'w' => &mut keep.weekly,
                    'm' => &mut keep.monthly,
                    'y' => &mut keep.yearly,
                    _ => return Err(wrong()),
                };
                (&part[..part.len() - unit.len_utf8()], place)
            };
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            let number: u32 = number.parse().map_err(|_| format!("{part:?} is too large"))?;
            if number == 0 {
                return Err(format!("{part:?} keeps nothing"));
            }
            if std::mem::replace(place, number) != 0 {
                return Err(format!("{part:?} says again what another part says"));
            }
        }
        Ok(keep)
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.last > 0 {
            parts.push(format!("last:{}", self.last));
        }
        let units =
            [(self.hourly, 'h'), (self.daily, 'd'), (self.weekly, 'w'), (self.monthly, 'm'), (self.yearly, 'y')];
        parts.extend(units.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")));
        f.write_str(&parts.join(","))
    }
}

/// What happens to the containers that use a volume while it is snapshotted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing: they go on.
    Live,
    /// They are frozen until it is read.
    Pause,
    /// They are stopped, and started again.
    Stop,
}

/// What Remove does with a volume that nothing uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRemove {
    /// Refuses, unless the guard finds the content in a snapshot.
    Refuse,
    /// Takes a snapshot, and removes the volume when that is committed.
    #[default]
    Snapshot,
    /// Moves the volume to the trash.
    Trash,
}

impl Consistency {
    pub(super) const ALL: [(&str, Consistency); 3] =
        [("live", Consistency::Live), ("pause", Consistency::Pause), ("stop", Consistency::Stop)];
}

impl OnRemove {
    pub(super) const ALL: [(&str, OnRemove); 3] =
        [("refuse", OnRemove::Refuse), ("snapshot", OnRemove::Snapshot), ("trash", OnRemove::Trash)];
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::Live => "live",
            Consistency::Pause => "pause",
            Consistency::Stop => "stop",
        })
    }
}

impl fmt::Display for OnRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnRemove::Refuse => "refuse",
            OnRemove::Snapshot => "snapshot",
            OnRemove::Trash => "trash",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_cron() {
        let now: Zoned = "2026-02-27T12:00:00[UTC]".parse().unwrap();
        for (text, next) in [
            ("15 3 * * *", "2026-02-28T03:15:00+00:00[UTC]"),
            ("@daily", "2026-02-28T00:00:00+00:00[UTC]"),
            ("*/20  *\t* * *", "2026-02-27T12:20:00+00:00[UTC]"),
            ("0 0 29 2 *", "2028-02-29T00:00:00+00:00[UTC]"),
            ("0 4 * * mon-fri", "2026-03-02T04:00:00+00:00[UTC]"),
        ] {
            let schedule: Schedule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(schedule.next_after(&now).unwrap().to_string(), next, "{text}");
        }
        for text in ["", "* * * *", "0 * * * * *", "0 0 * * * * 2026", "61 * * * *", "@never", "0 0 30 2 *", "soon"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_read_and_written() {
        for (text, canonical) in
            [("7d,4w,12m", "7d,4w,12m"), ("1y, 24h", "24h,1y"), ("last:3,07d", "last:3,7d"), ("last:1", "last:1")]
        {
            let keep: Keep = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(keep.to_string(), canonical);
        }
        for text in
            ["", "7", "d", "7d,", "0d", "last:0", "last:", "7x", "+7d", "7d,3d", "7D", "99999999999d", "7é", "last:1d"]
        {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }
}
