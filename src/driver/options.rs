//! What a volume can be: the options of `docker volume create -d voltool -o KEY=VALUE`.

use std::collections::BTreeMap;
use std::fmt::Display;

use jiff::SignedDuration;

use super::mount_url::{self, MountUrl};
use super::name::validate_name;
use super::policy::{Consistency, Keep, OnRemove, Schedule};
use crate::restore::owners::OwnerMap;
use crate::units::{parse_duration, parse_size};

/// The names of all options.
pub const NAMES: [&str; 15] = [
    "consistency",
    "from",
    "from-engine",
    "gid",
    "handover",
    "keep",
    "lease.takeover",
    "mode",
    "mount",
    "on-empty",
    "on-remove",
    "schedule",
    "size",
    "uid",
    "uid-map",
];

/// The smallest quota. Less is more likely a forgotten unit than a wish.
pub const MIN_SIZE: u64 = 1 << 20;

/// The shortest time after which a lease may be taken over. A holder that is alive renews its lease more often than that.
pub const MIN_TAKEOVER: SignedDuration = SignedDuration::from_mins(1);

/// The snapshot that a volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The volume that was snapshotted.
    pub volume: String,
    /// Which of its snapshots, as `voltool restore VOLUME@SNAPSHOT` takes it; the newest if `None`.
    pub snapshot: Option<String>,
}

/// All that can be said about a volume when it is created. The default is a folder on this host, and a snapshot before it is
/// removed.
///
/// What contradicts each other is refused, so that nobody relies on an option that does nothing:
///
/// | option | not with | because |
/// | --- | --- | --- |
/// | `mount` | `size`, `uid`, `gid`, `mode` | the server decides how much fits and who owns it |
/// | `mount` | `from`, `on-empty=restore`, `uid-map` | what the server holds is not ours to overwrite |
/// | `mount` | `handover=true`, `lease.takeover` | every host sees the same directory: there is nothing to hand over |
/// | `mount` | `on-remove=trash` | the directory cannot be moved here; it stays on the server when the volume is removed |
/// | `from` | `uid`, `gid`, `mode` | the root's owner and mode are in the snapshot |
/// | `from-engine` | no `from` | it says whose volume `from` means |
///
/// A `uid-map` that would move ids again that it has moved already (`0:1000:65536`) is refused too: a volume's own snapshots
/// hold moved ids, and these are restored through the same map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VolumeOptions {
    /// `from=VOLUME[@SNAPSHOT]`: the content that it begins with.
    pub from: Option<Origin>,
    /// `from-engine=NAME`: the engine whose volume `from` means, where several have one of that name.
    pub from_engine: Option<String>,
    /// `schedule=CRON`: when it is snapshotted.
    pub schedule: Option<Schedule>,
    /// `keep=7d,4w,12m`: which snapshots are kept.
    pub keep: Option<Keep>,
    /// `consistency=live|pause|stop`: what becomes of its containers meanwhile.
    pub consistency: Option<Consistency>,
    /// `on-remove=refuse|snapshot|trash`: what Remove does.
    pub on_remove: OnRemove,
    /// `on-empty=restore`: where it is not present, its newest snapshot is restored at the first Mount.
    pub on_empty_restore: bool,
    /// `size=10G`: the quota, in bytes.
    pub size: Option<u64>,
    /// `uid=N`: who owns the root of a fresh volume.
    pub uid: Option<u32>,
    /// `gid=N`: the group of the root of a fresh volume.
    pub gid: Option<u32>,
    /// `mode=OCTAL`: the mode of the root of a fresh volume.
    pub mode: Option<u32>,
    /// `uid-map=INSIDE:OUTSIDE:COUNT,…`: owners are shifted so at every restore into the volume. Empty if not given.
    pub uid_map: OwnerMap,
    /// `mount=URL`: the directory elsewhere that holds the content.
    pub mount: Option<MountUrl>,
    /// `handover=true`: a last snapshot is taken when the last container is gone, for the next host.
    pub handover: bool,
    /// `lease.takeover=after:DURATION`: a lease that was not renewed for so long is taken from its holder.
    pub lease_takeover: Option<SignedDuration>,
}

/// An option that cannot be. The texts never repeat a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no such option.
    #[error("unknown option '{name}'{}", suggestion(nearest.as_deref()))]
    Unknown {
        /// The name as it was given.
        name: String,
        /// The one that was probably meant.
        nearest: Option<&'static str>,
    },
    /// An option with nothing behind the equals sign.
    #[error("option '{name}' is empty: {expected} is expected")]
    Empty {
        /// The option's name.
        name: &'static str,
        /// What may stand there.
        expected: &'static str,
    },
    /// A value that the option cannot have.
    #[error("option '{name}' cannot be '{value}': {problem}; {expected} is expected")]
    Value {
        /// The option's name.
        name: &'static str,
        /// The value as it was given, without a password.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What may stand there.
        expected: &'static str,
        /// What to do, if there is more to say.
        hint: Option<String>,
    },
    /// Two options that contradict each other.
    #[error("option '{one}' cannot be combined with '{other}': {why}")]
    Conflict {
        /// The one, with its value where only that value contradicts.
        one: &'static str,
        /// The other, in the same way.
        other: &'static str,
        /// Why.
        why: &'static str,
    },
    /// An option that means nothing without another.
    #[error("option '{name}' means nothing without '{needs}'")]
    Alone {
        /// The option's name.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

impl OptionError {
    /// All that is to be said, for somebody who gets one line from the engine.
    pub fn in_one_line(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self}; {hint}"))
    }

    /// What to do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            OptionError::Unknown { name, .. } if matches!(name.as_str(), "type" | "device" | "o") => Some(
                "type, device and o are options of Docker's driver local; with voltool, say -o mount=nfs://HOST/EXPORT and the like"
                    .to_owned(),
            ),
            OptionError::Unknown { nearest: None, .. } => Some(format!("the options are {}", NAMES.join(", "))),
            OptionError::Value { hint, .. } => hint.clone(),
            OptionError::Conflict { one, other, .. } => Some(format!("leave out '{one}' or '{other}'")),
            _ => None,
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean '{nearest}'?")).unwrap_or_default()
}

/// What each option expects, for messages.
fn expected(name: &str) -> &'static str {
    match name {
        "consistency" => "live, pause or stop",
        "from" => "VOLUME or VOLUME@SNAPSHOT",
        "from-engine" => "the name of an engine",
        "handover" => "true or false",
        "keep" => "a list such as 7d,4w,12m or last:10",
        "lease.takeover" => "a duration of at least a minute, such as after:10m,",
        "mode" => "an octal number such as 0750",
        "mount" => "a URL such as nfs://HOST/EXPORT",
        "on-empty" => "restore",
        "on-remove" => "refuse, snapshot or trash",
        "schedule" => "a cron expression of five fields, or @daily and the like,",
        "size" => "a size of at least 1MiB, such as 10G,",
        "uid-map" => "a list of INSIDE:OUTSIDE:COUNT, such as 0:100000:65536,",
        _ => "a number up to 4294967294",
    }
}

/// One option with its value.
struct Given<'a> {
    name: &'static str,
    value: &'a str,
}

impl Given<'_> {
    fn wrong(&self, problem: impl Display) -> OptionError {
        OptionError::Value {
            name: self.name,
            value: self.value.to_owned(),
            problem: problem.to_string(),
            expected: expected(self.name),
            hint: None,
        }
    }

    fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Result<T, OptionError> {
        let found = values.iter().find(|(name, _)| *name == self.value);
        found.map(|(_, value)| *value).ok_or_else(|| self.wrong("there is no such choice"))
    }

    fn number(&self, radix: u32, max: u32) -> Result<u32, OptionError> {
        let digits = self.value.chars().all(|c| c.is_digit(radix));
        let number = digits.then(|| u32::from_str_radix(self.value, radix).ok()).flatten();
        number.filter(|number| *number <= max).ok_or_else(|| self.wrong("it is no such number"))
    }

    fn origin(&self) -> Result<Origin, OptionError> {
        let (volume, snapshot) =
            self.value.split_once('@').map_or((self.value, None), |(volume, snapshot)| (volume, Some(snapshot)));
        validate_name(volume).map_err(|e| self.wrong(e))?;
        if snapshot.is_some_and(|snapshot| snapshot.trim().is_empty() || snapshot.contains(char::is_control)) {
            return Err(self.wrong("what stands behind the @ names no snapshot"));
        }
        Ok(Origin { volume: volume.to_owned(), snapshot: snapshot.map(str::to_owned) })
    }

    fn size(&self) -> Result<u64, OptionError> {
        let bytes = parse_size(self.value).map_err(|_| self.wrong("it is no size"))?;
        match bytes {
            0..MIN_SIZE => Err(self.wrong("that is too little")),
            // The kernel counts in signed numbers.
            _ if bytes > i64::MAX as u64 => Err(self.wrong("that is too much")),
            _ => Ok(bytes),
        }
    }

    fn takeover(&self) -> Result<SignedDuration, OptionError> {
        let after = self.value.strip_prefix("after:").ok_or_else(|| self.wrong("it does not begin with after:"))?;
        let after = parse_duration(after).map_err(|_| self.wrong("it is no duration"))?;
        if after < MIN_TAKEOVER { Err(self.wrong("that is too short")) } else { Ok(after) }
    }

    fn mount(&self) -> Result<MountUrl, OptionError> {
        self.value.parse().map_err(|e: mount_url::MountUrlError| OptionError::Value {
            name: self.name,
            value: e.url,
            problem: e.problem,
            expected: expected(self.name),
            hint: e.hint,
        })
    }

    fn uid_map(&self) -> Result<OwnerMap, OptionError> {
        let map: OwnerMap = self.value.parse().map_err(|e| self.wrong(e))?;
        if !map.is_idempotent() {
            return Err(
                self.wrong("it leads to ids that it would move again when a snapshot of the volume is restored")
            );
        }
        Ok(map)
    }
}

impl VolumeOptions {
    /// Reads and validates the options of a Create request.
    ///
    /// # Errors
    /// The first option that is unknown, empty, or has a value that it cannot have; else the first contradiction.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<VolumeOptions, OptionError> {
        let mut parsed = VolumeOptions::default();
        for (name, value) in options {
            let Some(name) = NAMES.into_iter().find(|known| known == name) else {
                // The suggestion comes from the list, so that it lives as long as that.
                let nearest = crate::inventory::nearest(name, NAMES);
                return Err(OptionError::Unknown { name: name.clone(), nearest });
            };
            if value.trim().is_empty() {
                return Err(OptionError::Empty { name, expected: expected(name).trim_end_matches(',') });
            }
            let given = Given { name, value };
            match name {
                "consistency" => parsed.consistency = Some(given.one_of(&Consistency::ALL)?),
                "from" => parsed.from = Some(given.origin()?),
                "from-engine" => {
                    if value.contains(char::is_control) {
                        return Err(given.wrong("it has a control character in it"));
                    }
                    parsed.from_engine = Some(value.clone());
                }
                "gid" => parsed.gid = Some(given.number(10, u32::MAX - 1)?),
                // What Go's ParseBool takes, as far as anybody writes it.
                "handover" => {
                    parsed.handover = given.one_of(&[("true", true), ("false", false), ("1", true), ("0", false)])?;
                }
                "keep" => parsed.keep = Some(value.parse().map_err(|e: String| given.wrong(e))?),
                "lease.takeover" => parsed.lease_takeover = Some(given.takeover()?),
                "mode" => parsed.mode = Some(given.number(8, 0o7777)?),
                "mount" => parsed.mount = Some(given.mount()?),
                "on-empty" => parsed.on_empty_restore = given.one_of(&[("restore", true)])?,
                "on-remove" => parsed.on_remove = given.one_of(&OnRemove::ALL)?,
                "schedule" => parsed.schedule = Some(value.parse().map_err(|e: String| given.wrong(e))?),
                "size" => parsed.size = Some(given.size()?),
                "uid" => parsed.uid = Some(given.number(10, u32::MAX - 1)?),
                _ => parsed.uid_map = given.uid_map()?,
            }
        }
        parsed.check_contradictions()?;
        Ok(parsed)
    }

    /// Applies the table in the type's documentation.
    fn check_contradictions(&self) -> Result<(), OptionError> {
        const SERVER: &str = "the server decides how much fits and who owns it";
        const OURS: &str = "what the server holds is not voltool's to overwrite";
        const SAME: &str = "every host sees the same directory, so that there is nothing to hand over";
        const STAYS: &str = "the directory stays on the server, and cannot be moved into the trash";
        const ROOT: &str = "the owner and the mode of the root are in the snapshot";
        let rules = [
            ("mount", self.mount.is_some(), "size", self.size.is_some(), SERVER),
            ("mount", self.mount.is_some(), "uid", self.uid.is_some(), SERVER),
            ("mount", self.mount.is_some(), "gid", self.gid.is_some(), SERVER),
            ("mount", self.mount.is_some(), "mode", self.mode.is_some(), SERVER),
            ("mount", self.mount.is_some(), "from", self.from.is_some(), OURS),
            ("mount", self.mount.is_some(), "on-empty", self.on_empty_restore, OURS),
            ("mount", self.mount.is_some(), "uid-map", !self.uid_map.ranges().is_empty(), OURS),
            ("mount", self.mount.is_some(), "handover=true", self.handover, SAME),
            ("mount", self.mount.is_some(), "lease.takeover", self.lease_takeover.is_some(), SAME),
            ("mount", self.mount.is_some(), "on-remove=trash", self.on_remove == OnRemove::Trash, STAYS),
            ("from", self.from.is_some(), "uid", self.uid.is_some(), ROOT),
            ("from", self.from.is_some(), "gid", self.gid.is_some(), ROOT),
            ("from", self.from.is_some(), "mode", self.mode.is_some(), ROOT),
        ];
        for (one, has_one, other, has_other, why) in rules {
            if has_one && has_other {
                return Err(OptionError::Conflict { one, other, why });
            }
        }
        if self.from_engine.is_some() && self.from.is_none() {
            return Err(OptionError::Alone { name: "from-engine", needs: "from" });
        }
        Ok(())
    }

    /// The options in one canonical form, with what holds if nothing is said about Remove: for the policy in the Status that
    /// `docker volume inspect` shows. [`VolumeOptions::parse`] reads the same options from it.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut say = |name: &str, value: Option<String>| out.extend(value.map(|value| (name.to_owned(), value)));
        say("consistency", self.consistency.map(|value| value.to_string()));
        say(
            "from",
            self.from.as_ref().map(|from| match &from.snapshot {
                Some(snapshot) => format!("{}@{snapshot}", from.volume),
                None => from.volume.clone(),
            }),
        );
        say("from-engine", self.from_engine.clone());
        say("gid", self.gid.map(|gid| gid.to_string()));
        say("handover", self.handover.then(|| "true".to_owned()));
        say("keep", self.keep.map(|keep| keep.to_string()));
        say("lease.takeover", self.lease_takeover.map(|after| format!("after:{after:#}")));
        say("mode", self.mode.map(|mode| format!("{mode:04o}")));
        say("mount", self.mount.as_ref().map(MountUrl::to_string));
        say("on-empty", self.on_empty_restore.then(|| "restore".to_owned()));
        say("on-remove", Some(self.on_remove.to_string()));
        say("schedule", self.schedule.as_ref().map(Schedule::to_string));
        say("size", self.size.map(exact_size));
        say("uid", self.uid.map(|uid| uid.to_string()));
        say("uid-map", Some(self.uid_map.to_string()).filter(|map| !map.is_empty()));
        out
    }
}

/// The size in the largest unit that gives a whole number.
fn exact_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
