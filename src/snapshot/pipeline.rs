//! From a folder to chunks and a listing.
//!
//! ```text
//!  walk + compare ──files──▶ readers ──chunks──▶ workers (hash, deduplicate, compress, verify, pack)
//!        └───────────────entries in path order──────────▶ listing (leaves, local state)
//! ```
//!
//! One thread walks and compares with the last listing. What has not changed goes straight to the listing; files to be read go to the
//! readers, small ones in groups that become bundles. The listing receives everything in path order and waits, entry by entry,
//! for what is still on its way. All queues are bounded, and file content is counted against one byte budget.
//!
//! Why it cannot lock up: the only thread that waits for another's result is the listing. It waits for groups that have been handed
//! out; an open group is handed out before more entries have followed its first member than the queue to the listing holds.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::budget::{ByteBudget, Reserved};
use super::chunker::Cdc;
use super::content::FileResult;
use super::describe;
use super::exclude::Excludes;
use super::later::{Later, Promise};
use super::listing::{self, ListingWriter, spread};
use super::state::{Stamp, StateReader, StateWriter};
use super::walk::{Meta, Node, Step, Walk};
use crate::repo::entry::{Entry, EntryType, Segment, display_path};
use crate::repo::session::{Compressor, Session};
use crate::repo::{ChunkId, ChunkKind, ChunkerParams, FileProblem, Monitor, RepoError, Result};

/// Entries on their way to the listing.
const ENTRIES: usize = 8192;
/// A group of small files is handed out at the latest when this many entries have followed its first.
const GROUP_ENTRIES: usize = ENTRIES / 2;
/// A group spans at most this many folders, because each is an open descriptor.
const GROUP_DIRS: usize = 256;
/// A file's modification time is trusted if it is at least this much older than the scan that recorded it, in seconds. Coarser than
/// any file system's clock that Docker runs on.
pub(super) const RACY: i64 = 2;
/// Problems that are kept for the record; more are only counted.
const MAX_PROBLEMS: usize = 1000;

/// A file to be read.
pub(super) struct Member {
    pub node: Node,
    pub old: Option<Box<Entry>>,
    pub hard_link: Option<String>,
}

/// Results of a job, one for each member, taken out one by one.
pub(super) type Results = Vec<Option<FileResult>>;

/// One large file, or a group of small ones.
pub(super) struct FileJob {
    pub members: Vec<Member>,
    pub results: Promise<Results>,
}

struct ChunkJob {
    kind: ChunkKind,
    data: Vec<u8>,
    /// Goes back to the budget when the chunk has been stored.
    _reserved: Reserved,
    promise: Promise<ChunkId>,
}

enum Item {
    /// Complete as it is.
    Ready { path: Vec<u8>, stamp: Stamp, line: Vec<u8> },
    /// A member of a job.
    File { results: Arc<Later<Results>>, index: usize },
    /// Another name of a file that came before.
    Link { entry: Box<Entry>, stamp: Stamp },
}

/// What the threads of one backup share.
pub(super) struct Shared<'a> {
    pub session: &'a Session,
    pub params: ChunkerParams,
    pub cdc: Cdc,
    pub budget: Arc<ByteBudget>,
    pub monitor: &'a dyn Monitor,
    excludes: &'a Excludes,
    cancelled: &'a AtomicBool,
    stop: AtomicBool,
    fatal: Mutex<Option<RepoError>>,
    problems: Mutex<(Vec<FileProblem>, u64)>,
    /// Taken out when no reader is left, so that the workers end.
    chunks: RwLock<Option<Sender<ChunkJob>>>,
}

impl Shared<'_> {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed)
    }

    fn fail(&self, error: RepoError) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn problem(&self, path: &[u8], error: &io::Error) {
        let path = display_path(path);
        self.monitor.problem(&path, &error.to_string());
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.1 += 1;
        if problems.0.len() < MAX_PROBLEMS {
            problems.0.push(FileProblem { path, error: error.to_string() });
        }
    }

    pub(super) fn send(&self, kind: ChunkKind, data: Vec<u8>, reserved: Reserved, promise: Promise<ChunkId>) {
        // If the workers are gone, the promise is dropped with the job, and whoever waits for it learns that.
        if let Some(chunks) = &*self.chunks.read().unwrap_or_else(PoisonError::into_inner) {
            let _ = chunks.send(ChunkJob { kind, data, _reserved: reserved, promise });
        }
    }

    /// Whether an entry of the parent may be carried over: always, unless packs are condemned; then only if every chunk is still to
    /// be had.
    pub(super) fn may_carry(&self, entry: &Entry) -> bool {
        if !self.session.must_check_parent() {
            return true;
        }
        // The chunks inside segment lists are not looked up here: such a file is read again, which is always right.
        entry.segment_lists.is_empty() && entry.chunk_ids().all(|id| self.session.has(&id))
    }
}

/// What a run of the pipeline came to.
#[derive(Debug)]
pub(super) struct Scanned {
    pub root: Vec<ChunkId>,
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    pub problems: Vec<FileProblem>,
    pub problem_count: u64,
}

/// What a run of the pipeline needs.
pub(super) struct Run<'a> {
    pub session: &'a Session,
    pub root: &'a Path,
    pub parent: Option<StateReader>,
    pub state: StateWriter,
    pub budget: Arc<ByteBudget>,
    pub level: i32,
    pub monitor: &'a dyn Monitor,
    pub excludes: &'a Excludes,
    pub cancelled: &'a AtomicBool,
}

/// Runs the pipeline to its end. Blocks; called from a thread of its own.
pub(super) fn run(run: Run<'_>) -> Result<(Scanned, StateWriter)> {
    let Run { session, root, parent, mut state, budget, level, monitor, excludes, cancelled } = run;
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    let (chunks, chunk_queue) = bounded::<ChunkJob>(2 * cores);
    let (files, file_queue) = bounded::<FileJob>(2 * cores);
    let (items, item_queue) = bounded::<Item>(ENTRIES);
    let params = session.repo().config().chunker;
    let walk = Walk::new(root).map_err(|e| RepoError::local("read", root, e))?;
    let shared = Shared {
        session,
        params,
        cdc: Cdc::new(&params, session.repo().keys().writer_key("voltool 1 gear table")),
        budget,
        monitor,
        excludes,
        cancelled,
        stop: AtomicBool::new(false),
        fatal: Mutex::default(),
        problems: Mutex::default(),
        chunks: RwLock::new(Some(chunks)),
    };
    let listed = std::thread::scope(|scope| {
        let shared = &shared;
        let mut threads = Vec::new();
        for _ in 0..cores {
            let queue = chunk_queue.clone();
            threads.push(scope.spawn(move || work(shared, &queue, level)));
        }
        let mut readers = Vec::new();
        for _ in 0..cores.div_ceil(2) {
            let queue = file_queue.clone();
            readers.push(scope.spawn(move || queue.iter().for_each(|job| shared.read(job))));
        }
        drop((chunk_queue, file_queue));
        let scan = Scan::new(shared, files, items);
        let scan = scope.spawn(move || scan.run(walk, parent));
        let listed = list(shared, &item_queue, &mut state, level);
        let listed = listed.map_err(|e| shared.fail(e)).ok();
        // A scan that still wants to send, sends to nobody, and ends.
        drop(item_queue);
        let counts = scan.join();
        let read = readers.into_iter().map(|t| t.join()).all(|r| r.is_ok());
        shared.chunks.write().unwrap_or_else(PoisonError::into_inner).take();
        let worked = threads.into_iter().map(|t| t.join()).all(|r| r.is_ok());
        match (counts, read && worked) {
            (Ok(counts), true) => listed.map(|listed| (listed, counts)),
            _ => {
                shared.fail(RepoError::Codec("a thread of the backup stopped unexpectedly".to_owned()));
                None
            }
        }
    });
    let Shared { fatal, problems, .. } = shared;
    if let Some(error) = fatal.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let Some(((root, entries), counts)) = listed.filter(|_| !cancelled.load(Ordering::Relaxed)) else {
        return Err(RepoError::Interrupted);
    };
    session.flush()?;
    let (problems, problem_count) = problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((Scanned { root, entries, files: counts.files, bytes: counts.bytes, problems, problem_count }, state))
}

/// A worker: stores chunks.
fn work(shared: &Shared<'_>, queue: &Receiver<ChunkJob>, level: i32) {
    let mut compressor = match Compressor::new(level) {
        Ok(compressor) => compressor,
        Err(e) => return shared.fail(e),
    };
    for job in queue {
        // After a failure the queue is emptied, so that nobody waits for room in it.
        if shared.stopped() {
            continue;
        }
        match shared.session.put(job.kind, &job.data, &mut compressor) {
            Ok(id) => job.promise.keep(id),
            Err(e) => shared.fail(e),
        }
    }
}

/// The listing: takes entries in path order and completes them.
fn list(
    shared: &Shared<'_>,
    items: &Receiver<Item>,
    state: &mut StateWriter,
    level: i32,
) -> Result<(Vec<ChunkId>, u64)> {
    let mut compressor = Compressor::new(level)?;
    let mut listing = ListingWriter::new(shared.session);
    // The content of files with several names, for the names that follow.
    let mut links: HashMap<String, Entry> = HashMap::new();
    for item in items {
        let (entry, stamp) = match item {
            Item::Ready { path, stamp, line } => {
                listing.add(&path, &line, &mut compressor)?;
                state.add(&path, &stamp, &line);
                continue;
            }
            Item::Link { mut entry, stamp } => {
                let Some(first) = entry.hard_link.as_ref().and_then(|link| links.get(link)) else {
                    shared.problem(&entry.path(), &io::Error::other("its other name could not be read"));
                    continue;
                };
                entry.size = first.size;
                entry.xattrs.clone_from(&first.xattrs);
                entry.bad.clone_from(&first.bad);
                entry.set_content_of(first);
                (entry, stamp)
            }
            Item::File { results, index } => {
                let result = results.wait_with(|results| results.get_mut(index).and_then(Option::take));
                let Some(result) = result.flatten() else { return Err(RepoError::Interrupted) };
                let Some(done) = complete(result, shared, &mut compressor)? else { continue };
                if let Some(link) = &done.0.hard_link {
                    links.insert(link.clone(), (*done.0).clone());
                }
                done
            }
        };
        let line = to_line(&entry)?;
        listing.add(&entry.path(), &line, &mut compressor)?;
        state.add(&entry.path(), &stamp, &line);
    }
    if shared.stopped() {
        return Err(RepoError::Interrupted);
    }
    listing.finish(&mut compressor)
}

pub(super) fn to_line(entry: &Entry) -> Result<Vec<u8>> {
    serde_json::to_vec(entry).map_err(|e| RepoError::Codec(format!("cannot write an entry: {e}")))
}

/// What all names of one inode have in common. Device numbers can change from boot to boot, so the root's is left out.
pub(super) fn link_name(meta: &Meta, root_device: u64) -> String {
    if meta.device == root_device {
        return meta.inode.to_string();
    }
    format!("{}@{:x}", meta.inode, meta.device)
}

/// Completes an entry with the ids of its chunks. `None` if there is nothing to list.
fn complete(
    result: FileResult,
    shared: &Shared<'_>,
    compressor: &mut Compressor,
) -> Result<Option<(Box<Entry>, Stamp)>> {
    Ok(match result {
        FileResult::Gone | FileResult::Failed => None,
        FileResult::Done(entry, stamp) => Some((entry, stamp)),
        FileResult::Bundled { mut entry, stamp, chunk, offset } => {
            let id = chunk.wait().ok_or(RepoError::Interrupted)?;
            entry.segments = vec![Segment::Data { id, len: entry.size.unwrap_or(0), offset }];
            Some((entry, stamp))
        }
        FileResult::Segments { mut entry, stamp, segments } => {
            listing::set_segments(&mut entry, segments, shared.session, compressor)?;
            Some((entry, stamp))
        }
    })
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    files: u64,
    bytes: u64,
}

/// The thread that walks and compares.
struct Scan<'a, 'b> {
    shared: &'a Shared<'b>,
    files: Sender<FileJob>,
    items: Sender<Item>,
    counts: Counts,
    group: Vec<Member>,
    group_bytes: u64,
    group_results: Option<(Promise<Results>, Arc<Later<Results>>)>,
    entries_since: usize,
    cut_key: [u8; 32],
    root_device: u64,
    /// Files with several names that were met: those that go through a reader, and those that need not.
    links: HashMap<(u64, u64), bool>,
    /// Folders in the open group: each is an open descriptor.
    group_dirs: usize,
}

impl<'a, 'b> Scan<'a, 'b> {
    fn new(shared: &'a Shared<'b>, files: Sender<FileJob>, items: Sender<Item>) -> Self {
        Scan {
            shared,
            files,
            items,
            counts: Counts::default(),
            group: Vec::new(),
            group_bytes: 0,
            group_results: None,
            entries_since: 0,
            cut_key: shared.session.repo().keys().writer_key("voltool 1 bundle cut"),
            root_device: 0,
            links: HashMap::new(),
            group_dirs: 0,
        }
    }

    fn run(mut self, mut walk: Walk, mut parent: Option<StateReader>) -> Counts {
        let scanned = parent.as_ref().map_or(0, |p| p.header().scanned);
        while let Some(step) = walk.next() {
            if self.shared.stopped() {
                break;
            }
            let node = match step {
                Step::Node(node) => node,
                Step::Problem { path, error } => {
                    self.shared.problem(&path, &error);
                    continue;
                }
            };
            if self.shared.excludes.matches(&node.path) {
                walk.skip_folder();
                continue;
            }
            if node.path == b"." {
                self.root_device = node.meta.device;
            }
            let old = match parent.as_mut().map(|p| p.seek(&node.path, |_| ())) {
                Some(Ok(row)) => row,
                // The state can no longer be read: go on without it.
                Some(Err(_)) => {
                    parent = None;
                    None
                }
                None => None,
            };
            if self.visit(node, old, scanned).is_err() {
                break;
            }
        }
        let _ = self.hand_out();
        self.counts
    }

    /// Decides what to do with one object. An error means that nobody takes entries any more.
    fn visit(&mut self, node: Node, old: Option<super::state::Row>, scanned: i64) -> std::result::Result<(), ()> {
        let stamp = Stamp::of(&node.meta);
        let is_file = node.meta.file_type().is_file();
        let linked = node.meta.links > 1 && !node.meta.file_type().is_dir();
        let first_name = !linked || !self.links.contains_key(&(node.meta.device, node.meta.inode));
        if is_file && first_name {
            self.counts.files += 1;
            self.counts.bytes += node.meta.size;
        }
        let key = (node.meta.device, node.meta.inode);
        let racy = is_file && old.as_ref().is_some_and(|old| old.stamp.mtime.0 + RACY >= scanned);
        let mut old_entry = None;
        if let Some(old) = old {
            let unchanged = old.stamp == stamp && !racy;
            if unchanged && !self.shared.session.must_check_parent() {
                if linked {
                    self.links.entry(key).or_insert(false);
                }
                self.shared.monitor.advance(if is_file && first_name { stamp.size } else { 0 }, u64::from(is_file));
                return self.send(Item::Ready { path: node.path, stamp, line: old.line });
            }
            // An entry that cannot be read is as good as none.
            old_entry = serde_json::from_slice::<Entry>(&old.line).ok().map(Box::new);
            let content_same = Stamp { ctime: old.stamp.ctime, ..stamp } == old.stamp && !racy;
            if let Some(entry) = &old_entry
                && is_file
                && entry.kind == EntryType::File
                && content_same
                && self.shared.may_carry(entry)
            {
                self.shared.monitor.advance(if first_name { stamp.size } else { 0 }, 1);
                if linked {
                    self.links.entry(key).or_insert(false);
                }
                return self.refresh(&node, stamp, Some(entry));
            }
        }
        if !is_file {
            return self.refresh(&node, stamp, None);
        }
        let hard_link = linked.then(|| link_name(&node.meta, self.root_device));
        if linked && self.links.insert(key, true) == Some(true) {
            let mut entry = Box::new(describe::entry(&node.path, &node.meta));
            entry.hard_link = hard_link;
            return self.send(Item::Link { entry, stamp });
        }
        self.queue(Member { node, old: old_entry, hard_link })
    }

    /// Makes a new entry without reading content; that of `content` is taken over.
    fn refresh(&mut self, node: &Node, stamp: Stamp, content: Option<&Entry>) -> std::result::Result<(), ()> {
        let mut entry = describe::entry(&node.path, &node.meta);
        match describe::complete(&mut entry, node) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                self.shared.problem(&node.path, &e);
                return Ok(());
            }
        }
        if node.meta.links > 1 && entry.kind != EntryType::Dir {
            entry.hard_link = Some(link_name(&node.meta, self.root_device));
        }
        if let Some(content) = content {
            entry.set_content_of(content);
        }
        match to_line(&entry) {
            Ok(line) => self.send(Item::Ready { path: node.path.clone(), stamp, line }),
            Err(e) => {
                self.shared.fail(e);
                Err(())
            }
        }
    }

    fn queue(&mut self, member: Member) -> std::result::Result<(), ()> {
        let params = self.shared.params;
        if member.node.meta.size > params.bundle_max_file {
            let (promise, results) = Later::new();
            let job = FileJob { members: vec![member], results: promise };
            self.files.send(job).map_err(|_| ())?;
            return self.send(Item::File { results, index: 0 });
        }
        let cut = spread(&self.cut_key, &member.node.path).is_multiple_of(32);
        let (_, results) = self.group_results.get_or_insert_with(Later::new);
        let results = results.clone();
        self.group_bytes += member.node.meta.size;
        let same_dir = self.group.last().is_some_and(|last| Arc::ptr_eq(&last.node.dir, &member.node.dir));
        self.group_dirs += usize::from(!same_dir);
        self.group.push(member);
        let index = self.group.len() - 1;
        let full = self.group_bytes >= 2 * params.bundle_target || self.group_dirs >= GROUP_DIRS;
        if full || (cut && self.group_bytes >= params.bundle_target / 2) {
            self.hand_out()?;
        }
        self.send(Item::File { results, index })
    }

    /// Hands the open group to the readers.
    fn hand_out(&mut self) -> std::result::Result<(), ()> {
        self.entries_since = 0;
        self.group_bytes = 0;
        self.group_dirs = 0;
        let Some((promise, _)) = self.group_results.take() else { return Ok(()) };
        let job = FileJob { members: std::mem::take(&mut self.group), results: promise };
        self.files.send(job).map_err(|_| ())
    }

    fn send(&mut self, item: Item) -> std::result::Result<(), ()> {
        self.items.send(item).map_err(|_| ())?;
        if !self.group.is_empty() {
            self.entries_since += 1;
            if self.entries_since >= GROUP_ENTRIES {
                return self.hand_out();
            }
        }
        Ok(())
    }
}
