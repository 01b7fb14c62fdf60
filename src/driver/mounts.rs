//! Who uses a volume.
//!
//! Engines send `Mount` and `Unmount` with an id that they make up per mount point, and neither is balanced (all seen): `docker cp` sends
//! both with the id that the running container holds; after a crash the engine mounts again with the same id; after a time-out, or
//! while the plugin is down, there is no `Unmount` at all. So ids are counted, an unknown one is no error, and what is counted is
//! compared with what containers the engine runs (see `reconcile`).
//!
//! The counts are kept in a file, because the engine asks for volumes before it can say which containers it has. They are void once the
//! machine has started anew; nothing is lost if the file is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

const FILE: &str = "mounts.json";
/// Uses that were found with the engine rather than announced by it have an id of this form.
const FOUND: &str = "container:";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counted {
    /// Which start of the machine they belong to.
    boot: String,
    mounts: BTreeMap<String, u32>,
}

/// The uses of one volume.
#[derive(Debug)]
pub struct Mounts {
    file: PathBuf,
    counted: Counted,
    /// Those of the counted uses that have begun and not been kept: somebody waits for the content.
    beginning: BTreeMap<String, u32>,
    /// When somebody began or ended a use last.
    changed: Instant,
    /// The volume is being removed: nobody may begin to use it.
    closed: bool,
}

/// The volume is being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Mounts {
    /// Reads the uses that an earlier daemon has counted since the machine was started.
    pub fn read(folder: &Path) -> Mounts {
        let file = folder.join(FILE);
        let boot = boot_id();
        let read: Option<Counted> = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let counted =
            read.filter(|read| read.boot == boot).unwrap_or_else(|| Counted { boot, mounts: BTreeMap::new() });
        Mounts { file, counted, beginning: BTreeMap::new(), changed: Instant::now(), closed: false }
    }

    /// Begins a use. It is written down by [`Mounts::keep`]: a daemon that ends before the engine has its answer leaves none.
    ///
    /// # Errors
    /// If the volume is being removed.
    pub fn begin(&mut self, id: &str) -> Result<(), Closed> {
        if self.closed {
            return Err(Closed);
        }
        *self.counted.mounts.entry(id.to_owned()).or_default() += 1;
        *self.beginning.entry(id.to_owned()).or_default() += 1;
        self.changed = Instant::now();
        Ok(())
    }

    /// The engine is going to be told that it may use it.
    pub fn keep(&mut self, id: &str) {
        one_less(&mut self.beginning, id);
        self.save();
    }

    /// Ends a use that has begun and was not kept.
    pub fn abandon(&mut self, id: &str) {
        one_less(&mut self.beginning, id);
        self.end(id);
    }

    /// Ends a use. Says whether it was the last one.
    pub fn end(&mut self, id: &str) -> bool {
        if !one_less(&mut self.counted.mounts, id) {
            return false;
        }
        self.save();
        self.counted.mounts.is_empty()
    }

    /// Forgets all uses that were kept: what they were uses of is no longer there, and no container runs on it. Without this, those that an
    /// engine has forgotten would be uses of what takes its place.
    pub fn begin_anew(&mut self) {
        self.counted.mounts = self.beginning.clone();
        self.save();
    }

    /// How many uses there are.
    pub fn count(&self) -> u64 {
        self.counted.mounts.values().map(|count| u64::from(*count)).sum()
    }

    /// Whether nobody uses it.
    pub fn is_empty(&self) -> bool {
        self.counted.mounts.is_empty()
    }

    /// Lets nobody begin a use any more, unless somebody has.
    pub fn close(&mut self) -> bool {
        self.closed = self.is_empty();
        self.closed
    }

    /// Lets uses begin again.
    pub fn open(&mut self) {
        self.closed = false;
    }

    /// Compares with the containers that run on the volume, and says whether the last use ended with that.
    ///
    /// Containers that nobody has announced are counted as long as they run. If none runs and nothing has happened for `quiet`, what is still
    /// counted has been forgotten by the engine: a container that is being started does not run yet, and announces itself.
    pub fn reconcile(&mut self, running: &[String], quiet: Duration) -> bool {
        let before = self.counted.mounts.clone();
        let found: Vec<String> = running.iter().map(|id| format!("{FOUND}{id}")).collect();
        self.counted.mounts.retain(|id, _| !id.starts_with(FOUND) || found.contains(id));
        if running.is_empty() && self.changed.elapsed() >= quiet {
            self.counted.mounts.clear();
        }
        let announced: u64 =
            self.counted.mounts.iter().filter(|(id, _)| !id.starts_with(FOUND)).map(|(_, n)| u64::from(*n)).sum();
        if announced == 0 {
            // Lost: the daemon was away, or the engine did not say.
            self.counted.mounts.extend(found.into_iter().map(|id| (id, 1)));
        }
        if self.counted.mounts == before {
            return false;
        }
        self.save();
        !before.is_empty() && self.counted.mounts.is_empty()
    }

    fn save(&mut self) {
        self.changed = Instant::now();
        // Not for the loss of power, after which no container runs. If it cannot be written, a restart of the daemon finds the running
        // containers with the engine.
        if let Ok(text) = serde_json::to_vec(&self.counted) {
            let _ = super::files::replace(&self.file, &text, false);
        }
    }
}

/// Counts one use less. Says whether there was one.
fn one_less(mounts: &mut BTreeMap<String, u32>, id: &str) -> bool {
    match mounts.get_mut(id) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => drop(mounts.remove(id)),
        None => return false,
    }
    true
}

/// Which start of the machine this is.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> (tempfile::TempDir, Mounts) {
        let folder = tempfile::tempdir().expect("a folder");
        let mounts = Mounts::read(folder.path());
        (folder, mounts)
    }

    #[test]
    fn the_same_id_twice_is_two_uses() {
        let (folder, mut mounts) = mounts();
        mounts.begin("a").expect("open");
        mounts.begin("a").expect("open");
        assert!(!mounts.end("a"), "docker cp has ended, the container runs on");
        assert!(!mounts.end("unknown"));
        assert_eq!(Mounts::read(folder.path()).count(), 1, "a new daemon knows");
        assert!(mounts.end("a"));
        assert!(!mounts.end("a"), "ended already");
    }

    #[test]
    fn what_belongs_to_an_earlier_start_of_the_machine_is_void() {
        let (folder, mut mounts) = mounts();
        mounts.counted.boot = "earlier".to_owned();
        mounts.begin("a").expect("open");
        assert!(Mounts::read(folder.path()).is_empty());
        std::fs::write(folder.path().join(FILE), "{").expect("written");
        assert!(Mounts::read(folder.path()).is_empty(), "damage costs nothing");
    }

    #[test]
    fn who_waits_for_new_content_uses_it_and_who_used_the_old_does_not() {
        let (folder, mut mounts) = mounts();
        for id in ["forgotten", "old"] {
            mounts.begin(id).expect("open");
            mounts.keep(id);
        }
        for id in ["waits", "old", "gives up"] {
            mounts.begin(id).expect("open");
        }
        mounts.begin_anew();
        assert_eq!(mounts.count(), 3);
        mounts.abandon("gives up");
        mounts.keep("waits");
        mounts.keep("old");
        assert_eq!(Mounts::read(folder.path()).count(), 2, "a new daemon knows");
        assert!(!mounts.end("old"));
        assert!(mounts.end("waits"));
    }

    #[test]
    fn nobody_begins_while_it_is_removed() {
        let (_folder, mut mounts) = mounts();
        mounts.begin("a").expect("open");
        assert!(!mounts.close(), "somebody uses it");
        mounts.end("a");
        assert!(mounts.close());
        assert_eq!(mounts.begin("b"), Err(Closed));
        mounts.open();
        mounts.begin("b").expect("open again");
    }

    #[test]
    fn containers_that_run_are_uses_and_what_is_forgotten_is_none() {
        let (_folder, mut mounts) = mounts();
        let quiet = Duration::ZERO;
        assert!(!mounts.reconcile(&["c1".to_owned()], quiet));
        assert_eq!(mounts.count(), 1, "it was lost");
        assert!(!mounts.reconcile(&["c1".to_owned()], quiet));
        assert_eq!(mounts.count(), 1);
        mounts.begin("id").expect("open");
        assert!(!mounts.reconcile(&["c2".to_owned()], quiet));
        assert_eq!(mounts.count(), 1, "the announced one stands for the container");
        assert!(!mounts.reconcile(&[], Duration::from_secs(3600)), "it may be starting");
        assert_eq!(mounts.count(), 1);
        assert!(mounts.reconcile(&[], quiet), "the engine has forgotten to say");
        assert!(mounts.is_empty());
        assert!(!mounts.reconcile(&[], quiet));
    }
}
