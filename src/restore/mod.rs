//! From a snapshot to a volume, a directory or a tar.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`listing`] | reading the listing; which entries are wanted |
//! | [`target`] | writing into a folder and nowhere else |
//! | [`owners`] | owners that are shifted, for engines with user namespaces |
//! | [`fetch`] | content: planned by pack, few requests, written out of order |
//! | [`verify`] | reading back what was written |
//! | [`replace`] | putting a restored folder in the place of an old one |
//! | [`export`] | a tar on a stream |

pub mod export;
pub mod fetch;
pub mod listing;
pub mod owners;
pub mod replace;
pub mod target;
pub mod verify;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::repo::entry::{Entry, EntryType, LeafRef, Segment};
use crate::repo::{Monitor, RepoError, Repository, Result, SnapshotRecord};

use fetch::{FileTask, Problems, Wants};
pub use listing::Selection;
pub use owners::OwnerMap;
use target::{DirFd, DirStack};

/// Pieces of files that are planned together. Bounds memory; large enough that a pack is rarely visited twice.
const WINDOW: usize = 65_536;
/// Folders that are open for the files of a window.
const WINDOW_DIRS: usize = 400;

/// What a restore came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// Entries that were made.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// What could not be restored as it was: path and reason. Empty if everything is as it was.
    pub problems: Vec<(String, String)>,
}

/// Restores what is selected of a snapshot into the empty folder `root`, with all attributes. Damaged content is left out, named in
/// the result, and stops nothing else. Owners are shifted by `owners`; each id that it does not know is a problem, named once.
/// Blocks; call it from a thread of its own within the runtime.
pub fn to_dir(
    repo: &Arc<Repository>,
    record: &SnapshotRecord,
    root: &Path,
    selection: &Selection,
    owners: &OwnerMap,
    monitor: &dyn Monitor,
    cancelled: &AtomicBool,
) -> Result<Restored> {
    let runtime = tokio::runtime::Handle::current();
    monitor.total(record.bytes, record.files);
    let leaves = runtime.block_on(repo.leaves(record))?;
    let stack = DirStack::open(root).map_err(|e| RepoError::local("open", root, e))?;
    target::forget_acls(stack.root()).map_err(|e| RepoError::local("prepare", root, e))?;
    let mut restore = Restore {
        repo,
        record,
        runtime,
        leaves,
        selection,
        owners,
        unknown_owners: HashSet::new(),
        problems: Problems::new(monitor),
        monitor,
        cancelled,
        wants: Wants::default(),
        dirs: 0,
        links: HashMap::new(),
        matched: HashSet::new(),
        lost: HashSet::new(),
        done: Restored::default(),
    };
    restore.make_content(stack)?;
    let stack = DirStack::open(root).map_err(|e| RepoError::local("open", root, e))?;
    restore.finish_dirs(stack)?;
    listing::check_matched(selection, &restore.matched, record)?;
    let mut done = restore.done;
    done.problems = restore.problems.take();
    Ok(done)
}

struct Restore<'a> {
    repo: &'a Arc<Repository>,
    record: &'a SnapshotRecord,
    runtime: tokio::runtime::Handle,
    leaves: Vec<LeafRef>,
    selection: &'a Selection,
    owners: &'a OwnerMap,
    /// Ids that the map does not know and that have been reported.
    unknown_owners: HashSet<u32>,
    problems: Problems<'a>,
    monitor: &'a dyn Monitor,
    cancelled: &'a AtomicBool,
    wants: Wants,
    dirs: usize,
    /// The first name of each inode with several.
    links: HashMap<String, Vec<u8>>,
    /// Selected paths that the listing has.
    matched: HashSet<Vec<u8>>,
    /// Leaves that cannot be read.
    lost: HashSet<usize>,
    done: Restored,
}

impl Restore<'_> {
    fn for_each_entry(&mut self, mut visit: impl FnMut(&mut Self, Entry) -> Result<()>) -> Result<()> {
        for index in 0..self.leaves.len() {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(RepoError::Interrupted);
            }
            if !listing::leaf_wanted(&self.leaves, index, self.selection) {
                continue;
            }
            let leaf = self.leaves[index].leaf;
            let entries = match self.runtime.block_on(listing::entries(self.repo, self.record, &leaf)) {
                Ok(entries) => entries,
                // One bad leaf loses its entries, not the others'.
                Err(e) if e.is_about_one_object() => {
                    // There are two passes: it is said once.
                    if self.lost.insert(index) {
                        let first = self.leaves[index].first_path().into_owned();
                        let entries = self.leaves[index].entries;
                        self.problems.add(&first, format!("{entries} entries from here on are lost: {e}"));
                    }
                    continue;
                }
                Err(e) => return Err(e),
            };
            for mut entry in entries {
                if self.selection.has(&entry.path())
                    || (entry.kind == EntryType::Dir && self.selection.touches(&entry.path()))
                {
                    self.shift_owners(&mut entry);
                    visit(self, entry)?;
                }
            }
        }
        Ok(())
    }

    fn shift_owners(&mut self, entry: &mut Entry) {
        let mut unknown = Vec::new();
        self.owners.shift(entry, |id| unknown.push(id));
        for id in unknown {
            if self.unknown_owners.insert(id) {
                let reason = format!(
                    "the id {id} is in no range of the map {}: it was kept, here and wherever else it occurs; if that is \
                     right, add {id}:{id}:1",
                    self.owners
                );
                self.problems.add(&entry.path(), reason);
            }
        }
    }

    /// First pass: folders, files and everything else; folders keep a mode in which they can be written.
    fn make_content(&mut self, mut stack: DirStack) -> Result<()> {
        self.for_each_entry(|this, entry| this.make(&mut stack, entry))?;
        self.fetch()
    }

    fn make(&mut self, stack: &mut DirStack, entry: Entry) -> Result<()> {
        let path = entry.path().into_owned();
        if path == b"." {
            return Ok(());
        }
        self.done.entries += 1;
        if self.selection.paths().any(|wanted| wanted == path) {
            self.matched.insert(path.clone());
        }
        let parent = match stack.parent(&path, |_, _| ()) {
            Ok(parent) => parent,
            Err(e) => {
                self.problems.add(&path, e);
                return Ok(());
            }
        };
        let name = target::split(&path).1;
        // A folder has one name, whatever the listing says.
        if let Some(link) = entry.hard_link.as_ref().filter(|_| entry.kind != EntryType::Dir) {
            if self.links.contains_key(link) {
                // Made in the second pass, when what it is another name of is there.
                return Ok(());
            }
            self.links.insert(link.clone(), path.clone());
        }
        match entry.kind {
            EntryType::Dir => {
                self.dirs += 1;
                let made = target::make_dir(&parent, name).and_then(|()| stack.enter(&path));
                self.check(&path, made)?;
            }
            EntryType::File => {
                self.done.files += 1;
                self.plan(parent, name, entry)?;
            }
            _ => {
                let made = target::make_special(&parent, name, &entry);
                self.check(&path, made)?;
            }
        }
        if self.wants.len() >= WINDOW || self.dirs >= WINDOW_DIRS {
            self.fetch()?;
        }
        Ok(())
    }

    fn check(&self, path: &[u8], result: std::io::Result<()>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                Err(RepoError::Local { action: "write", path: crate::repo::entry::display_path(path), source: e })
            }
            Err(e) => {
                self.problems.add(path, e);
                Ok(())
            }
        }
    }

    fn plan(&mut self, parent: DirFd, name: &[u8], mut entry: Entry) -> Result<()> {
        let segments = std::mem::take(&mut entry.segments);
        let lists = std::mem::take(&mut entry.segment_lists);
        let size = entry.size.unwrap_or(0);
        let task = FileTask::new(parent, name, entry);
        let mut at = 0;
        self.plan_segments(&task, &segments, &mut at);
        for (list, _) in &lists {
            match self.runtime.block_on(self.repo.listed_segments(list)) {
                Ok(segments) => self.plan_segments(&task, &segments, &mut at),
                Err(e) if !e.is_about_one_object() => return Err(e),
                Err(e) => {
                    // Without its list the file cannot be whole: what was made of it goes away with the last piece.
                    task.fail(&self.problems, e);
                    return task.planned(&self.problems, self.monitor);
                }
            }
            if self.wants.len() >= WINDOW {
                self.fetch()?;
            }
        }
        if at != size {
            task.fail(&self.problems, format!("its segments cover {at} of {size} bytes"));
        }
        task.planned(&self.problems, self.monitor)
    }

    fn plan_segments(&mut self, task: &Arc<FileTask>, segments: &[Segment], at: &mut u64) {
        for segment in segments {
            self.wants.add(task, *at, segment);
            // A sum that does not fit is not the size either.
            *at = at.saturating_add(segment.len());
        }
    }

    fn fetch(&mut self) -> Result<()> {
        self.dirs = 0;
        let wants = std::mem::take(&mut self.wants);
        if wants.is_empty() {
            return Ok(());
        }
        fetch::fetch(&self.runtime, self.repo, wants, &self.problems, self.monitor, self.cancelled)
    }

    /// Second pass: further names of files, and the attributes of folders, each after everything in it.
    fn finish_dirs(&mut self, mut stack: DirStack) -> Result<()> {
        let mut seen: HashMap<String, ()> = HashMap::new();
        // The folders from the root to where the listing is, with their entries.
        let mut pending: Vec<Entry> = Vec::new();
        let mut root_entry = None;
        let root = stack.root().clone();
        self.for_each_entry(|this, entry| {
            let path = entry.path().into_owned();
            if path == b"." {
                root_entry = Some(entry);
                return Ok(());
            }
            let problems = &this.problems;
            let parent = stack.parent(&path, |left, fd| finish_dir(&mut pending, left, fd, problems));
            let Ok(parent) = parent else { return Ok(()) };
            if entry.kind == EntryType::Dir {
                if stack.enter(&path).is_ok() {
                    pending.push(entry);
                }
                return Ok(());
            }
            if let Some(link) = &entry.hard_link
                && seen.insert(link.clone(), ()).is_some()
                && let Some(first) = this.links.get(link)
            {
                let made = target::open_parent(&root, first).and_then(|first_dir| {
                    let (from, to) =
                        (target::cstring(target::split(first).1)?, target::cstring(target::split(&path).1)?);
                    Ok(rustix::fs::linkat(&*first_dir, from, &*parent, to, rustix::fs::AtFlags::empty())?)
                });
                this.check(&path, made)?;
            }
            Ok(())
        })?;
        let problems = &self.problems;
        stack.leave_all(|left, fd| finish_dir(&mut pending, left, fd, problems));
        if let Some(entry) = root_entry.filter(|_| self.selection.is_all()) {
            self.done.entries += 1;
            let set = target::set_attributes(&*root, &entry);
            self.check(b".", set)?;
        }
        Ok(())
    }
}

fn finish_dir(pending: &mut Vec<Entry>, path: &[u8], fd: &DirFd, problems: &Problems<'_>) {
    if pending.last().is_some_and(|entry| *entry.path() == *path)
        && let Some(entry) = pending.pop()
        && let Err(e) = target::set_attributes(&**fd, &entry)
    {
        problems.add(path, e);
    }
}
