//! Content: which chunks a set of files needs, in which packs these are, and getting them with few requests.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;

use super::target::{DirFd, make_file, set_attributes};
use crate::repo::entry::{Entry, Segment, display_path};
use crate::repo::index::{Location, PackInfo, PackName};
use crate::repo::{ChunkId, Monitor, RepoError, Repository, Result};

/// Two wanted pieces of a pack are read together if less than this lies between them: about what a distant server sends in the time
/// that another request takes.
const GAP: u64 = 256 << 10;
/// A piece of a pack that is read at once.
const RANGE: u64 = 4 << 20;
/// Pieces that are read or written at once. Each takes its size twice (stored and decrypted) and a decompressed chunk, so that
/// together they stay within about 130 MiB.
pub const PARALLEL: usize = 10;

/// A file that is being written.
pub struct FileTask {
    parent: DirFd,
    name: Vec<u8>,
    entry: Entry,
    file: Mutex<Option<File>>,
    /// Pieces that are still to come, and one for whoever is still planning.
    pending: AtomicU64,
    failed: AtomicBool,
    /// Whether the file is there because this made it.
    made: AtomicBool,
}

/// A piece of a chunk, and where it goes.
struct Want {
    task: Arc<FileTask>,
    file_offset: u64,
    chunk_offset: u64,
    len: u64,
}

/// Pieces of files, by the chunk that they come from.
#[derive(Default)]
pub struct Wants {
    chunks: HashMap<ChunkId, Vec<Want>>,
    pieces: usize,
}

impl Wants {
    /// How many pieces are planned.
    pub fn len(&self) -> usize {
        self.pieces
    }

    /// Whether nothing is planned.
    pub fn is_empty(&self) -> bool {
        self.pieces == 0
    }

    /// Plans a segment of a file.
    pub fn add(&mut self, task: &Arc<FileTask>, file_offset: u64, segment: &Segment) {
        if let Segment::Data { id, len, offset } = segment {
            task.pending.fetch_add(1, Ordering::Relaxed);
            let want = Want { task: task.clone(), file_offset, chunk_offset: *offset, len: *len };
            self.chunks.entry(*id).or_default().push(want);
            self.pieces += 1;
        }
    }
}

/// Problems of a restore: named, counted, and the rest goes on.
pub struct Problems<'a> {
    monitor: &'a dyn Monitor,
    found: Mutex<Vec<(String, String)>>,
}

impl<'a> Problems<'a> {
    /// Begins with none.
    pub fn new(monitor: &'a dyn Monitor) -> Self {
        Problems { monitor, found: Mutex::default() }
    }

    /// Notes one.
    pub fn add(&self, path: &[u8], reason: impl ToString) {
        let (path, reason) = (display_path(path), reason.to_string());
        self.monitor.problem(&path, &reason);
        lock(&self.found).push((path, reason));
    }

    /// All of them: path and reason.
    pub fn take(self) -> Vec<(String, String)> {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A full disk ends a restore at once; any other trouble with one file is that file's.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    )
}

impl FileTask {
    /// Begins a file. Whoever plans its pieces calls [`FileTask::planned`] at the end.
    pub fn new(parent: DirFd, name: &[u8], entry: Entry) -> Arc<Self> {
        Arc::new(FileTask {
            parent,
            name: name.to_vec(),
            entry,
            file: Mutex::new(None),
            pending: AtomicU64::new(1),
            failed: AtomicBool::new(false),
            made: AtomicBool::new(false),
        })
    }

    /// All pieces are planned.
    pub fn planned(self: &Arc<Self>, problems: &Problems<'_>, monitor: &dyn Monitor) -> Result<()> {
        self.piece_done(problems, monitor)
    }

    fn opened(&self) -> io::Result<MutexGuard<'_, Option<File>>> {
        let mut slot = lock(&self.file);
        if slot.is_none() {
            let file = make_file(&self.parent, &self.name)?;
            self.made.store(true, Ordering::Relaxed);
            file.set_len(self.entry.size.unwrap_or(0))?;
            *slot = Some(file);
        }
        Ok(slot)
    }

    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let slot = self.opened()?;
        match &*slot {
            Some(file) => file.write_all_at(data, offset),
            None => Ok(()),
        }
    }

    /// The file cannot be what it was: it is reported, and taken away at the end.
    pub fn fail(&self, problems: &Problems<'_>, reason: impl ToString) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            problems.add(&self.entry.path(), reason);
        }
    }

    fn trouble(&self, problems: &Problems<'_>, error: io::Error) -> Result<()> {
        if is_fatal(&error) {
            return Err(RepoError::Local { action: "write", path: display_path(&self.entry.path()), source: error });
        }
        self.fail(problems, error);
        Ok(())
    }

    fn piece_done(&self, problems: &Problems<'_>, monitor: &dyn Monitor) -> Result<()> {
        if self.pending.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        monitor.advance(0, 1);
        let finish = || -> io::Result<()> {
            let slot = self.opened()?;
            match &*slot {
                Some(file) => set_attributes(file, &self.entry),
                None => Ok(()),
            }
        };
        if self.failed.load(Ordering::Relaxed) {
            // A file that is not what the snapshot holds is worse than none: it would be taken for the real one. What was there before,
            // because a listing names it twice, stays.
            *lock(&self.file) = None;
            if self.made.load(Ordering::Relaxed)
                && let Ok(name) = super::target::cstring(&self.name)
            {
                let _ = rustix::fs::unlinkat(&*self.parent, name, rustix::fs::AtFlags::empty());
            }
            return Ok(());
        }
        let result = finish();
        *lock(&self.file) = None;
        // The content is there; that an attribute is not must be said, but is no reason to take the content away.
        result.or_else(|e| self.trouble(problems, e))
    }
}

/// One piece of a pack to be read.
struct Range {
    pack: Arc<PackInfo>,
    offset: u64,
    len: u64,
    chunks: Vec<(Location, Vec<Want>)>,
}

/// Reads everything that is wanted and writes it where it belongs. Blocks.
///
/// Pieces are fetched by tasks of the runtime; decrypted content goes to as many threads as there are cores, which decompress, check and
/// write it while the next pieces are on their way.
pub fn fetch(
    runtime: &Handle,
    repo: &Arc<Repository>,
    wants: Wants,
    problems: &Problems<'_>,
    monitor: &dyn Monitor,
    cancelled: &AtomicBool,
) -> Result<()> {
    let ranges = runtime.block_on(plan(repo, wants, problems, monitor))?;
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    let (work, queue) = crossbeam_channel::bounded::<(Range, Result<Bytes>)>(cores);
    let failure: Mutex<Option<RepoError>> = Mutex::new(None);
    let stop = || cancelled.load(Ordering::Relaxed) || lock(&failure).is_some();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (queue, failure, stop) = (queue.clone(), &failure, &stop);
            scope.spawn(move || {
                for (range, content) in queue {
                    if stop() {
                        continue;
                    }
                    if let Err(e) = write_range(repo, runtime, range, content, problems, monitor) {
                        lock(failure).get_or_insert(e);
                    }
                }
            });
        }
        drop(queue);
        let jobs = ranges.into_iter().map(|range| {
            let repo = repo.clone();
            runtime.spawn(async move {
                let content = repo.read_range(&range.pack, range.offset, range.len).await;
                (range, content)
            })
        });
        let mut jobs = futures_util::stream::iter(jobs).buffer_unordered(PARALLEL);
        while let Some(job) = runtime.block_on(jobs.next()) {
            if stop() {
                break;
            }
            match job {
                Ok(job) => drop(work.send(job)),
                Err(e) => {
                    lock(&failure).get_or_insert(RepoError::Codec(format!("a download stopped unexpectedly: {e}")));
                }
            }
        }
        drop(work);
    });
    if cancelled.load(Ordering::Relaxed) {
        return Err(RepoError::Interrupted);
    }
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Finds a pack for every chunk, and joins what lies close together.
async fn plan(repo: &Repository, wants: Wants, problems: &Problems<'_>, monitor: &dyn Monitor) -> Result<Vec<Range>> {
    let mut packs: BTreeMap<PackName, Vec<(Location, Vec<Want>)>> = BTreeMap::new();
    for (id, wants) in wants.chunks {
        match repo.locate_or_learn(&id).await {
            Ok(locations) => {
                // A whole chunk is preferred to a delta, which needs its base as well.
                let best = locations.into_iter().min_by_key(|l| (l.entry.base.is_some(), l.pack.name));
                if let Some(location) = best {
                    packs.entry(location.pack.name).or_default().push((location, wants));
                }
            }
            Err(e) if !e.is_about_one_object() => return Err(e),
            Err(e) => give_up(wants, &e, problems, monitor)?,
        }
    }
    let mut ranges: Vec<Range> = Vec::new();
    for (_, mut chunks) in packs {
        chunks.sort_by_key(|(l, _)| l.entry.offset);
        let mut open: Option<Range> = None;
        for (location, wants) in chunks {
            let (from, to) =
                (u64::from(location.entry.offset), u64::from(location.entry.offset) + u64::from(location.entry.len));
            match &mut open {
                Some(range) if from <= range.offset + range.len + GAP && to - range.offset <= RANGE => {
                    range.len = range.len.max(to - range.offset);
                    range.chunks.push((location, wants));
                }
                _ => {
                    ranges.extend(open.take());
                    let pack = location.pack.clone();
                    open = Some(Range { pack, offset: from, len: to - from, chunks: vec![(location, wants)] });
                }
            }
        }
        ranges.extend(open);
    }
    Ok(ranges)
}

fn give_up(wants: Vec<Want>, error: &RepoError, problems: &Problems<'_>, monitor: &dyn Monitor) -> Result<()> {
    for want in wants {
        want.task.fail(problems, error);
        want.task.piece_done(problems, monitor)?;
    }
    Ok(())
}

fn write_range(
    repo: &Repository,
    runtime: &Handle,
    range: Range,
    content: Result<Bytes>,
    problems: &Problems<'_>,
    monitor: &dyn Monitor,
) -> Result<()> {
    for (location, wants) in range.chunks {
        let first = match (&content, location.entry.base) {
            (Ok(content), None) => repo.decode_chunk(&location, content, range.offset, None),
            (Ok(content), Some(base)) => runtime
                .block_on(repo.read_full_chunk(&base))
                .and_then(|base| repo.decode_chunk(&location, content, range.offset, Some(&base))),
            (Err(e), _) => Err(RepoError::damaged(range.pack.name.key(), e)),
        };
        // Another copy may be good.
        let raw = match first {
            Ok(raw) => raw,
            Err(first) => match runtime.block_on(repo.read_chunk(&location.entry.id)) {
                Ok(raw) => raw,
                // A missing or short object is damage; a storage that cannot be reached is not.
                Err(e) if !e.is_about_one_object() => return Err(e),
                Err(_) => {
                    give_up(wants, &first, problems, monitor)?;
                    continue;
                }
            },
        };
        for want in wants {
            let end = want.chunk_offset.saturating_add(want.len);
            let piece = raw.get(want.chunk_offset as usize..end as usize);
            match piece {
                Some(piece) => {
                    if let Err(e) = want.task.write(piece, want.file_offset) {
                        want.task.trouble(problems, e)?;
                    }
                    monitor.advance(piece.len() as u64, 0);
                }
                None => want.task.fail(problems, "its entry reaches beyond the end of a chunk"),
            }
            want.task.piece_done(problems, monitor)?;
        }
    }
    Ok(())
}
