//! Owners that are shifted on their way to the disk.
//!
//! An engine with `userns-remap` runs containers in a user namespace: user 0 in the container is, say, user 100000 on the host,
//! and that is who owns the files of its volumes. A snapshot from an engine without it holds the ids as the container sees
//! them. An [`OwnerMap`] turns the ones into the others, or back.

use std::fmt;
use std::str::FromStr;

use crate::repo::entry::Entry;

/// Ids that follow one another, and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRange {
    /// The first id in the snapshot: as the container sees it.
    pub inside: u32,
    /// What it becomes on the disk.
    pub outside: u32,
    /// How many ids; never 0.
    pub count: u32,
}

impl OwnerRange {
    fn inside(&self, id: u32) -> Option<u32> {
        let at = id.checked_sub(self.inside)?;
        (at < self.count).then(|| self.outside + at)
    }

    fn has_outside(&self, id: u32) -> bool {
        id.checked_sub(self.outside).is_some_and(|at| at < self.count)
    }
}

/// What becomes of users and groups in a restore: `INSIDE:OUTSIDE:COUNT`, several separated by commas, as in
/// `/proc/PID/uid_map` with colons. Applied to users and groups alike. The empty map changes nothing.
///
/// An id in no range stays what it is. If it is not an id that some range leads to either, containers will see it as `nobody`,
/// and the restore reports it as a problem. Ids that a range leads to pass in silence: a volume whose files were shifted
/// once has such ids in its own snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerMap {
    ranges: Vec<OwnerRange>,
}

/// A map that cannot be read: what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OwnerMapError(String);

/// The most ranges in a map, which is the kernel's limit for a user namespace.
const MAX_RANGES: usize = 340;

impl OwnerMap {
    /// The ranges, as they were given.
    pub fn ranges(&self) -> &[OwnerRange] {
        &self.ranges
    }

    /// Whether the map changes nothing.
    pub fn is_identity(&self) -> bool {
        self.ranges.iter().all(|range| range.inside == range.outside)
    }

    /// What the id becomes.
    pub fn apply(&self, id: u32) -> u32 {
        self.ranges.iter().find_map(|range| range.inside(id)).unwrap_or(id)
    }

    /// Whether the map says something about the id: it is in a range, or is what a range leads to. The empty map knows all.
    pub fn knows(&self, id: u32) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|range| range.inside(id).is_some() || range.has_outside(id))
    }

    /// Shifts all ids of an entry: its owner, its group, those that its ACLs name, and the one whose namespace its
    /// capabilities belong to. Each id that the map does not know is given to `unknown`.
    pub fn shift(&self, entry: &mut Entry, mut unknown: impl FnMut(u32)) {
        if self.ranges.is_empty() {
            return;
        }
        let mut apply = |id: u32| {
            if !self.knows(id) {
                unknown(id);
            }
            self.apply(id)
        };
        entry.uid = apply(entry.uid);
        entry.gid = apply(entry.gid);
        for xattr in &mut entry.xattrs {
            match &xattr.name[..] {
                b"system.posix_acl_access" | b"system.posix_acl_default" => shift_acl(&mut xattr.value, &mut apply),
                b"security.capability" => shift_capability(&mut xattr.value, &mut apply),
                _ => {}
            }
        }
    }

    /// Whether it is all the same to apply the map once or twice: no range leads into a range that would move the id on.
    pub fn is_idempotent(&self) -> bool {
        let moving = || self.ranges.iter().filter(|range| range.inside != range.outside);
        moving().all(|from| moving().all(|to| !overlap((from.outside, from.count), (to.inside, to.count))))
    }
}

/// Version 2 of the kernel's format (`linux/posix_acl_xattr.h`), little-endian: a version (4 bytes), then for each entry a tag,
/// permissions (2 bytes each) and an id (4 bytes), which counts only where the tag is a user's or a group's.
fn shift_acl(value: &mut [u8], apply: &mut impl FnMut(u32) -> u32) {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let Some((&mut [2, 0, 0, 0], entries)) = value.split_first_chunk_mut::<4>() else { return };
    for entry in entries.chunks_exact_mut(8) {
        if let [tag0, tag1, _, _, id @ ..] = entry
            && matches!(u16::from_le_bytes([*tag0, *tag1]), USER | GROUP)
        {
            shift_number(id, apply);
        }
    }
}

/// The kernel's format (`linux/capability.h`), little-endian: a word whose highest byte is the version and whose lowest bit says
/// "effective", four words of capabilities, and in version 3 the user who is root in the namespace that they hold in. Version
/// 2 is for the root of the host: it becomes version 3 where that root is moved.
fn shift_capability(value: &mut Vec<u8>, apply: &mut impl FnMut(u32) -> u32) {
    match (value.len(), value.get(3)) {
        (24, Some(3)) => shift_number(&mut value[20..], apply),
        (20, Some(2)) => {
            let root = apply(0);
            if root != 0 {
                value[3] = 3;
                value.extend(root.to_le_bytes());
            }
        }
        _ => {}
    }
}

fn shift_number(bytes: &mut [u8], apply: &mut impl FnMut(u32) -> u32) {
    if let Ok(id) = <[u8; 4]>::try_from(&*bytes) {
        bytes.copy_from_slice(&apply(u32::from_le_bytes(id)).to_le_bytes());
    }
}

fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    let end = |(start, count): (u32, u32)| u64::from(start) + u64::from(count);
    u64::from(a.0) < end(b) && u64::from(b.0) < end(a)
}

impl FromStr for OwnerMap {
    type Err = OwnerMapError;

    /// Reads `0:100000:65536` and lists of such ranges. Ranges may not overlap, neither in what they cover nor in what they
    /// lead to: two users would become one, and nothing could tell them apart again.
    fn from_str(text: &str) -> Result<Self, OwnerMapError> {
        let mut ranges: Vec<OwnerRange> = Vec::new();
        for part in text.split(',') {
            let wrong = |why: &str| OwnerMapError(format!("{part:?} {why}"));
            let numbers: Vec<&str> = part.split(':').collect();
            let [inside, outside, count] = numbers[..] else {
                return Err(wrong("is not INSIDE:OUTSIDE:COUNT, such as 0:100000:65536"));
            };
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                digits
                    .then(|| text.parse::<u32>().ok())
                    .flatten()
                    .ok_or_else(|| wrong("has a part that is no number below 2^32"))
            };
            let range = OwnerRange { inside: number(inside)?, outside: number(outside)?, count: number(count)? };
            if range.count == 0 {
                return Err(wrong("covers no id"));
            }
            // 2^32 - 1 means "no change" to chown.
            if range.inside.max(range.outside).checked_add(range.count).is_none() {
                return Err(wrong("goes beyond the highest id, 4294967294"));
            }
            for other in &ranges {
                if overlap((range.inside, range.count), (other.inside, other.count)) {
                    return Err(wrong("covers ids that another range covers as well"));
                }
                if overlap((range.outside, range.count), (other.outside, other.count)) {
                    return Err(wrong("leads to ids that another range leads to as well"));
                }
            }
            ranges.push(range);
            if ranges.len() > MAX_RANGES {
                return Err(OwnerMapError(format!("it has more than {MAX_RANGES} ranges")));
            }
        }
        Ok(OwnerMap { ranges })
    }
}

impl fmt::Display for OwnerMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}:{}", range.inside, range.outside, range.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> OwnerMap {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn ids_are_shifted_by_the_range_that_they_are_in() {
        let map = map("0:100000:1000,1000:5000:1");
        for (inside, outside) in [(0, 100_000), (999, 100_999), (1000, 5000), (1001, 1001), (100_000, 100_000)] {
            assert_eq!(map.apply(inside), outside, "{inside}");
        }
        assert!(map.knows(999) && map.knows(5000) && map.knows(100_999));
        assert!(!map.knows(1001) && !map.knows(101_000) && !map.knows(5001));
        let none = OwnerMap::default();
        assert!(none.is_identity() && none.knows(7) && none.apply(7) == 7);
    }

    #[test]
    fn what_cannot_be_a_map_is_refused() {
        for text in [
            "",
            "0",
            "0:1",
            "0:1:0",
            "0:1:1:1",
            "a:1:1",
            "+0:1:1",
            "-1:1:1",
            "0:1:1,",
            "0:100:10,5:200:10",
            "0:100:10,50:105:10",
            "4294967295:0:1",
            "0:4294967295:1",
            "0:1:4294967295",
            "0:99999999999:1",
        ] {
            assert!(text.parse::<OwnerMap>().is_err(), "{text}");
        }
        assert_eq!(map("0:100000:65536,65536:1000:1").to_string(), "0:100000:65536,65536:1000:1");
        assert_eq!(map("4294967294:0:1").apply(u32::MAX - 1), 0);
    }

    #[test]
    fn acls_name_the_moved_ids() {
        // user::rw-, user:7:r--, group::r--, group:9:r--, mask::r--, other::---
        let mut acl = vec![2, 0, 0, 0];
        for (tag, id) in [(1u16, u32::MAX), (2, 7), (4, u32::MAX), (8, 9), (16, u32::MAX), (32, u32::MAX)] {
            acl.extend(tag.to_le_bytes());
            acl.extend(4u16.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        let before = acl.clone();
        let shifting = map("0:100000:1000");
        shift_acl(&mut acl, &mut |id| shifting.apply(id));
        assert_eq!(acl[16..20], 100_007u32.to_le_bytes());
        assert_eq!(acl[32..36], 100_009u32.to_le_bytes());
        shift_acl(&mut acl, &mut |id| id - 100_000);
        assert_eq!(acl, before, "nothing else was changed");
        // What is cut off or of another version is left alone.
        for odd in [&b""[..], &[2, 0, 0], &[2, 0, 0, 0, 2, 0, 4], &[1, 0, 0, 0, 2, 0, 4, 0, 7, 0, 0, 0]] {
            let mut value = odd.to_vec();
            shift_acl(&mut value, &mut |_| panic!("there is no id"));
            assert_eq!(value, odd);
        }
    }

    #[test]
    fn capabilities_hold_for_the_moved_root() {
        let mut plain = vec![1, 0, 0, 2];
        plain.extend([0; 16]);
        let shifting = map("0:100000:1000");
        let mut moved = plain.clone();
        shift_capability(&mut moved, &mut |id| shifting.apply(id));
        assert_eq!((moved.len(), moved[3], &moved[20..]), (24, 3, &100_000u32.to_le_bytes()[..]));
        shift_capability(&mut moved, &mut |_| 5);
        assert_eq!(moved[20..], 5u32.to_le_bytes());
        let mut kept = plain.clone();
        shift_capability(&mut kept, &mut |id| id);
        assert_eq!(kept, plain);
    }

    #[test]
    fn a_map_that_moves_what_it_has_moved_is_known() {
        for text in ["0:100000:65536", "100000:0:65536", "0:0:1000", "0:0:1000,1000:200000:10"] {
            assert!(map(text).is_idempotent(), "{text}");
        }
        for text in ["0:1000:65536", "1:2:1,2:1:1", "0:10:1,10:20:1"] {
            assert!(!map(text).is_idempotent(), "{text}");
        }
        let twice = map("0:0:1000,1000:200000:10");
        assert_eq!(twice.apply(twice.apply(1005)), 200_005);
    }
}
