//! The walk: everything below a folder, in the order of a listing.
//!
//! Folders are opened from their parent's descriptor and symbolic links are never followed, so that whoever owns the content cannot
//! lead the walk elsewhere while it runs, and no path is too long. A few threads read folders ahead; how far is bounded, so memory
//! and descriptors do not grow with the tree. Of a very large folder only the names are kept; its entries are looked at as they
//! are reached.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};

/// Folders that are read ahead at once. Each holds a descriptor.
const AHEAD: usize = 128;
/// Folders with more names than this are looked at in steps of this size.
const BATCH: usize = 2048;

/// What `stat` says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub inode: u64,
    pub device: u64,
    pub links: u64,
    pub rdev: u64,
    /// Blocks of 512 bytes that are allocated.
    pub blocks: u64,
}

impl From<rustix::fs::Stat> for Meta {
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn from(s: rustix::fs::Stat) -> Self {
        Meta {
            mode: s.st_mode,
            uid: s.st_uid,
            gid: s.st_gid,
            size: s.st_size as u64,
            mtime: (s.st_mtime as i64, s.st_mtime_nsec as u32),
            ctime: (s.st_ctime as i64, s.st_ctime_nsec as u32),
            inode: s.st_ino as u64,
            device: s.st_dev as u64,
            links: s.st_nlink as u64,
            rdev: s.st_rdev as u64,
            blocks: s.st_blocks as u64,
        }
    }
}

impl Meta {
    /// The object's type.
    pub fn file_type(&self) -> rustix::fs::FileType {
        rustix::fs::FileType::from_raw_mode(self.mode)
    }
}

/// An open folder; entries are reached through it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Its path below the walk's root, empty for the root itself.
    pub path: Vec<u8>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One object that the walk came to.
#[derive(Debug)]
pub struct Node {
    /// The folder that it is in; for the root, the root itself.
    pub dir: Arc<Dir>,
    /// Its name in that folder; `.` for the root.
    pub name: CString,
    /// Its path below the walk's root; `.` for the root.
    pub path: Vec<u8>,
    /// What `stat` said.
    pub meta: Meta,
}

/// What comes out of the walk.
#[derive(Debug)]
pub enum Step {
    /// The next object.
    Node(Node),
    /// An object, or the content of a folder, that could not be looked at.
    Problem {
        /// Its path.
        path: Vec<u8>,
        /// Why not.
        error: io::Error,
    },
}

/// Names of a folder in sorted order, in one allocation.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    ends: Vec<(u32, u32)>,
}

impl Names {
    fn get(&self, at: usize) -> &[u8] {
        let (from, to) = self.ends[at];
        &self.bytes[from as usize..to as usize]
    }
}

type Stats = Vec<Result<Meta, rustix::io::Errno>>;

struct Listing {
    dir: Arc<Dir>,
    names: Names,
    stats: Stats,
}

type Listed = io::Result<Listing>;

struct Job {
    parent: Arc<Dir>,
    name: CString,
    path: Vec<u8>,
    answer: Sender<Listed>,
}

/// A folder by its parent and name, its path, and the answer if it is being read ahead.
type ToEnter = (Arc<Dir>, CString, Vec<u8>, Option<Receiver<Listed>>);

struct Frame {
    listing: Listing,
    /// The entry that comes next.
    at: usize,
    /// Where `listing.stats` begins.
    stats_from: usize,
    /// Folders among the entries that are being read ahead, in order.
    ahead: VecDeque<(usize, Receiver<Listed>)>,
    /// Entries before this one have been considered for reading ahead.
    asked: usize,
}

/// A walk in progress. Iterate over it.
pub struct Walk {
    stack: Vec<Frame>,
    next: VecDeque<Step>,
    /// The folder that the last step named, to be entered now.
    enter: Option<ToEnter>,
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl Walk {
    /// Begins a walk below `root`. Fails if the root itself cannot be opened.
    pub fn new(root: &Path) -> io::Result<Walk> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty())?;
        let meta = rustix::fs::fstat(&fd)?.into();
        let dir = Arc::new(Dir { fd, path: Vec::new() });
        let (jobs, queue) = unbounded::<Job>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(1, 8);
        for _ in 0..threads {
            let (queue, waiting) = (queue.clone(), waiting.clone());
            // The threads end when the walk is dropped and with it the sender.
            std::thread::Builder::new().name("walk".to_owned()).spawn(move || {
                for job in queue {
                    let listed = list(&job.parent, &job.name, job.path);
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    let _ = job.answer.send(listed);
                }
            })?;
        }
        let node = Node { dir: dir.clone(), name: c".".to_owned(), path: b".".to_vec(), meta };
        Ok(Walk {
            stack: Vec::new(),
            next: VecDeque::from([Step::Node(node)]),
            enter: Some((dir, c".".to_owned(), Vec::new(), None)),
            jobs,
            waiting,
        })
    }

    /// Does not enter the folder that was named last.
    pub fn skip_folder(&mut self) {
        self.enter = None;
    }

    fn step(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.next.pop_front() {
                return Some(step);
            }
            if let Some((parent, name, path, answer)) = self.enter.take() {
                let listed = match answer.map(|a| a.recv()) {
                    Some(Ok(listed)) => listed,
                    _ => list(&parent, &name, path.clone()),
                };
                match listed {
                    Ok(listing) => {
                        let mut frame = Frame { listing, at: 0, stats_from: 0, ahead: VecDeque::new(), asked: 0 };
                        self.read_ahead(&mut frame);
                        self.stack.push(frame);
                    }
                    // A folder that vanished since it was named is not a problem: it is no longer part of the volume.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let path = if path.is_empty() { b".".to_vec() } else { path };
                        return Some(Step::Problem { path, error });
                    }
                }
            }
            let mut frame = self.stack.pop()?;
            if frame.at >= frame.listing.names.ends.len() {
                continue;
            }
            let step = self.advance(&mut frame);
            self.stack.push(frame);
            if let Some(step) = step {
                return Some(step);
            }
        }
    }

    /// Looks at the next entry of the frame.
    fn advance(&mut self, frame: &mut Frame) -> Option<Step> {
        let at = frame.at;
        frame.at += 1;
        if at >= frame.stats_from + frame.listing.stats.len() {
            frame.stats_from = at;
            frame.listing.stats = stats(&frame.listing.dir, &frame.listing.names, at, BATCH);
            frame.asked = at;
            self.read_ahead(frame);
        }
        let dir = frame.listing.dir.clone();
        let name = frame.listing.names.get(at);
        let path = join(&dir.path, name);
        let meta = match frame.listing.stats[at - frame.stats_from] {
            Ok(meta) => meta,
            Err(rustix::io::Errno::NOENT) => return None,
            Err(e) => return Some(Step::Problem { path, error: e.into() }),
        };
        // A name from the kernel has no NUL in it.
        let name = CString::new(name).ok()?;
        if meta.file_type().is_dir() {
            let answer = match frame.ahead.front() {
                Some((index, _)) if *index == at => frame.ahead.pop_front().map(|(_, answer)| answer),
                _ => None,
            };
            self.enter = Some((dir.clone(), name.clone(), path.clone(), answer));
            self.read_ahead(frame);
        }
        Some(Step::Node(Node { dir, name, path, meta }))
    }

    /// Asks for folders of the frame that will be entered soon.
    fn read_ahead(&self, frame: &mut Frame) {
        let end = frame.stats_from + frame.listing.stats.len();
        while frame.asked < end && self.waiting.load(Ordering::Relaxed) < AHEAD && frame.ahead.len() < AHEAD {
            let at = frame.asked;
            frame.asked += 1;
            let is_dir = frame.listing.stats[at - frame.stats_from].is_ok_and(|m| m.file_type().is_dir());
            if at < frame.at || !is_dir {
                continue;
            }
            let name = frame.listing.names.get(at);
            let path = join(&frame.listing.dir.path, name);
            let Ok(name) = CString::new(name) else { continue };
            let (answer, receiver) = bounded(1);
            self.waiting.fetch_add(1, Ordering::Relaxed);
            if self.jobs.send(Job { parent: frame.listing.dir.clone(), name, path, answer }).is_ok() {
                frame.ahead.push_back((at, receiver));
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.step()
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Opens a folder, reads its names, and looks at its entries unless there are very many.
fn list(parent: &Dir, name: &CString, path: Vec<u8>) -> Listed {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Reading a folder changes its access time; where that may be avoided, it is.
    let fd = rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| rustix::fs::openat(parent, name, flags, Mode::empty()))?;
    let mut names = Names::default();
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let from = names.bytes.len() as u32;
            names.bytes.extend_from_slice(name);
            names.ends.push((from, names.bytes.len() as u32));
        }
    }
    let Names { bytes, ends } = &mut names;
    ends.sort_unstable_by(|a, b| bytes[a.0 as usize..a.1 as usize].cmp(&bytes[b.0 as usize..b.1 as usize]));
    let dir = Arc::new(Dir { fd, path });
    let stats = if names.ends.len() <= BATCH { stats(&dir, &names, 0, BATCH) } else { Vec::new() };
    Ok(Listing { dir, names, stats })
}

fn stats(dir: &Dir, names: &Names, from: usize, count: usize) -> Stats {
    let to = (from + count).min(names.ends.len());
    let look = |at| rustix::fs::statat(dir, names.get(at), AtFlags::SYMLINK_NOFOLLOW).map(Meta::from);
    (from..to).map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::entry::compare_paths;

    fn paths(root: &Path) -> Vec<Vec<u8>> {
        Walk::new(root)
            .unwrap()
            .map(|step| match step {
                Step::Node(node) => node.path,
                Step::Problem { path, error } => panic!("{path:?}: {error}"),
            })
            .collect()
    }

    #[test]
    fn everything_comes_once_in_listing_order() {
        let dir = tempfile::tempdir().unwrap();
        for d in ["a", "a/b", "a/b/c", "z", "a.d", "a b"] {
            std::fs::create_dir(dir.path().join(d)).unwrap();
        }
        for i in 0..300 {
            std::fs::create_dir(dir.path().join(format!("z/d{i}"))).unwrap();
            std::fs::write(dir.path().join(format!("z/d{i}/f")), b"x").unwrap();
        }
        for i in 0..BATCH * 2 + 10 {
            std::fs::write(dir.path().join(format!("a/b/f{i}")), b"").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("a/link")).unwrap();
        let got = paths(dir.path());
        assert_eq!(got.len(), 1 + 6 + 600 + BATCH * 2 + 10 + 1);
        assert!(got.is_sorted_by(|a, b| compare_paths(a, b).is_lt()));
    }

    #[test]
    fn a_path_deeper_than_the_kernel_takes_in_one_piece() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut fd = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..30 {
            rustix::fs::mkdirat(&fd, name.as_str(), Mode::RWXU).unwrap();
            fd = rustix::fs::openat(&fd, name.as_str(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        }
        let got = paths(dir.path());
        assert_eq!(got.last().unwrap().len(), 30 * 201 - 1);
    }
}
