//! T12: log files that fill volumes.

use jiff::SignedDuration;

use super::evidence::{Evidence, VolumeFacts};
use super::scan::LogFile;
use super::{Finding, Level, quoted, size};

pub(super) const T12: &str = "large log files in a volume";

/// From this size on a log file is large, in bytes.
const LARGE: u64 = 64 << 20;

/// From this size on it is large if it is more than half of its volume, in bytes.
const LARGE_IN_SMALL: u64 = 1 << 20;

/// Written within this time: growing.
const GROWING: SignedDuration = SignedDuration::from_hours(1);

/// How many files are named.
const NAMED: usize = 3;

/// T12: one finding per volume with large log files; a warning if one of them grows.
pub(super) fn logs(evidence: &Evidence) -> Vec<Finding> {
    evidence.volumes.iter().filter_map(|volume| of_volume(evidence, volume)).collect()
}

fn of_volume(evidence: &Evidence, volume: &VolumeFacts) -> Option<Finding> {
    let scan = volume.scan()?;
    let large = |log: &&LogFile| log.bytes > LARGE || (log.bytes > LARGE_IN_SMALL && log.bytes > scan.bytes / 2);
    let mut logs: Vec<&LogFile> = scan.logs.iter().filter(large).collect();
    logs.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    let first = logs.first()?;
    let grows = |log: &LogFile| evidence.now.duration_since(log.modified) < GROWING;
    let text = |log: &&LogFile| {
        let state = if grows(log) { "growing" } else { "not written within the last hour" };
        format!("{} {} ({state})", log.path, size(log.bytes))
    };
    let mut texts: Vec<String> = logs.iter().take(NAMED).map(text).collect();
    if logs.len() > NAMED {
        texts.push(format!("{} more", logs.len() - NAMED));
    }
    let bound = if scan.complete { "" } else { "; not everything was looked at" };
    let level = if logs.iter().any(|log| grows(log)) { Level::Warn } else { Level::Info };
    let file = format!("{}/{}", volume.info.mountpoint.trim_end_matches('/'), first.path);
    let finding = Finding::new("T12", level, T12).volume(&volume.info.name);
    let finding = evidence.users_of(volume).iter().fold(finding, |finding, user| finding.container(&user.name));
    Some(
        finding
            .detail(format!("of {}: {}{bound}", volume.amount(), texts.join(", ")))
            .why("It grows until the disk is full, which stops every container on it, and each backup stores what changed")
            .fix([
                "# let the application log to its standard output, or rotate the file; once, now:".to_owned(),
                format!("truncate -s 0 {}", quoted(&file)),
            ]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::evidence::Content;
    use crate::audit::scan::Scan;
    use crate::audit::testing::*;

    fn found(bytes: u64, of: u64, minutes: i64) -> Vec<(Level, String)> {
        let modified = now() - SignedDuration::from_mins(minutes);
        let logs = vec![LogFile { path: "log/error.log".to_owned(), bytes, modified }];
        let mut v = volume("v");
        v.content = Content::Scanned(Scan { files: 2, bytes: of, complete: true, logs, ..Scan::default() });
        logs_of(&Evidence { volumes: vec![v], ..evidence() })
    }

    fn logs_of(evidence: &Evidence) -> Vec<(Level, String)> {
        super::logs(evidence).into_iter().map(|finding| (finding.level, finding.detail)).collect()
    }

    #[test]
    fn large_logs() {
        let text = "of 2 files, 1.0 GiB: log/error.log 65.0 MiB (growing)";
        assert_eq!(found(65 << 20, 1 << 30, 5), [(Level::Warn, text.to_owned())]);
        assert_eq!(found(65 << 20, 1 << 30, 61)[0].0, Level::Info, "it does not grow");
        assert_eq!(found(2 << 20, 3 << 20, 5).len(), 1, "more than half of the volume");
    }

    #[test]
    fn small_logs_are_none() {
        assert_eq!(found(64 << 20, 1 << 30, 5), []);
        assert_eq!(found(2 << 20, 4 << 20, 5), [], "half of the volume");
        assert_eq!(found(1 << 20, 1 << 20, 5), [], "all of a tiny one");
        assert_eq!(logs_of(&Evidence { volumes: vec![volume("v").unknown()], ..evidence() }), []);
    }
}
