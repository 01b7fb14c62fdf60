//! Random interleavings of the real code, with the properties of `tests/model/lease_model.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use ulid::Ulid;
use voltool::repo::lease::{Acquired, HeldLease, Host, Lease, Previous, Standing};
use voltool::repo::session::{Commit, Session};
use voltool::repo::{ChunkerParams, Lock, RepoError, Repository, SnapshotRecord, SourceKind};
use voltool::store::Store;

use crate::chaos::{Chaos, Memory, Random};

const HOSTS: usize = 3;
const TURNS: usize = 6;

/// What the test knows of all hosts at once, and no host does.
#[derive(Default)]
struct World {
    believing: BTreeMap<usize, HeldLease>,
    /// Those that somebody asked to take over.
    asked: BTreeSet<HeldLease>,
    epochs: BTreeSet<u64>,
    used: BTreeSet<HeldLease>,
    /// What each holder began with.
    began: Vec<(u64, BTreeSet<String>)>,
    reported: Vec<(u64, String)>,
    leases: usize,
    losses: usize,
}

impl World {
    fn gives(&mut self, number: usize, lease: HeldLease, previous: &Previous, disk: Option<HeldLease>) {
        assert!(self.epochs.insert(lease.epoch), "{lease:?} is not the first of its epoch");
        self.leases += 1;
        self.believing.insert(number, lease);
        let sure: Vec<_> = self.believing.values().filter(|lease| !self.asked.contains(*lease)).collect();
        assert!(sure.len() < 2, "{sure:?}");
        // It may have lost it already, to somebody who was told first: what counts is who was before it.
        let before = self.used.range(..lease).next_back().copied();
        match previous {
            Previous::Nobody => assert_eq!(before, None),
            Previous::Ours => assert_eq!(before, disk),
            Previous::Another(_) => {}
        }
    }
}

struct HostInTest {
    number: usize,
    host: Host,
    memory: Arc<Memory>,
    cache: std::path::PathBuf,
    random: Random,
    failures: u64,
    world: Arc<Mutex<World>>,
    disk: Disk,
}

/// What a host finds again when it was restarted.
#[derive(Clone, Copy, Default)]
struct Disk {
    last: Option<HeldLease>,
    /// Whether that was given back, or is about to be.
    given_back: bool,
}

impl HostInTest {
    async fn open(&self) -> (Chaos, Option<Arc<Repository>>) {
        let chaos = Chaos::new(self.memory.clone(), self.random.clone(), self.failures);
        let repo = open(Arc::new(chaos.clone()), &self.cache).await;
        (chaos, repo.ok())
    }

    async fn run(mut self) {
        for _ in 0..TURNS {
            let (chaos, Some(repo)) = self.open().await else { continue };
            // The host dies at some moment of its turn, or does not.
            let death = async {
                let moment = if self.random.one_in(3) { self.random.below(200) } else { u64::MAX };
                for _ in 0..moment {
                    tokio::task::yield_now().await;
                }
            };
            let (random, world) = (self.random.clone(), self.world.clone());
            let died = tokio::select! {
                () = turn(self.number, &repo, &self.host, &mut self.disk, &random, &world) => false,
                () = death => true,
            };
            if died {
                chaos.die();
            }
            self.world.lock().unwrap().believing.remove(&self.number);
        }
    }
}

async fn open(store: Arc<dyn Store>, cache: &Path) -> voltool::repo::Result<Arc<Repository>> {
    Ok(Arc::new(Repository::open(store, &[], cache).await?))
}

/// Asks for the lease; if it is given, commits a few times, and gives it back or not.
async fn turn(
    number: usize,
    repo: &Arc<Repository>,
    host: &Host,
    disk: &mut Disk,
    random: &Random,
    world: &Mutex<World>,
) {
    let last = disk.last;
    let goes_on = last.filter(|_| !disk.given_back && random.one_in(2));
    let lease = match goes_on.map(|held| Lease::resume(repo, "e", "v", held)) {
        Some(lease) if lease.check().await.is_ok_and(|standing| standing == Standing::Ours) => {
            world.lock().unwrap().believing.insert(number, lease.held());
            lease
        }
        _ => {
            let mut done = Lease::acquire(repo, "e", "v", host, last).await;
            if let Ok(Acquired::Busy(holder)) = &done
                && random.one_in(2)
            {
                world.lock().unwrap().asked.insert(holder.lease);
                done = Lease::take_over(repo, "e", "v", host, last, holder).await;
            }
            let Ok(Acquired::Held(lease, previous)) = done else { return };
            {
                let mut world = world.lock().unwrap();
                world.gives(number, lease.held(), &previous, last);
                *disk = Disk { last: Some(lease.held()), given_back: false };
                world.used.insert(lease.held());
            }
            let _ = lease.tidy().await;
            let Ok(found) = repo.snapshots_of("e", "v").await else { return };
            let ids = found.records.iter().map(|record| record.id.clone()).collect();
            world.lock().unwrap().began.push((lease.held().epoch, ids));
            lease
        }
    };
    for _ in 0..random.below(3) {
        match commit(repo, &lease).await {
            Ok(id) => {
                let mut world = world.lock().unwrap();
                let epoch = lease.held().epoch;
                for (later, ids) in world.began.iter().filter(|(later, _)| *later > epoch) {
                    assert!(ids.contains(&id), "{id} of epoch {epoch} is not known in epoch {later}");
                }
                world.reported.push((epoch, id));
            }
            Err(RepoError::LeaseLost { .. }) => {
                world.lock().unwrap().losses += 1;
                return;
            }
            Err(_) => {}
        }
    }
    if random.one_in(4) {
        return;
    }
    world.lock().unwrap().believing.remove(&number);
    disk.given_back = true;
    let _ = lease.release().await;
}

/// Commits a snapshot of nothing.
async fn commit(repo: &Arc<Repository>, lease: &Lease) -> voltool::repo::Result<String> {
    let session = Session::begin(repo).await?;
    let id = session.id().to_string();
    // Each host's clock says something else.
    let time = Timestamp::from_second(1_800_000_000 + i64::from(rand::random::<u16>())).unwrap();
    let record = SnapshotRecord {
        version: 1,
        id: id.clone(),
        volume: "v".into(),
        engine: "e".into(),
        kind: SourceKind::Volume,
        time,
        finished: time,
        parent: None,
        root: Vec::new(),
        entries: 0,
        files: 0,
        bytes: 0,
        added_bytes: 0,
        stored_bytes: 0,
        errors: Vec::new(),
        tags: Vec::new(),
        excludes: Vec::new(),
        tool: "test".into(),
        docker: None,
        lease: Some(lease.held().epoch),
    };
    match session.commit(&repo.keys().source_name("e", "v"), record, Some(lease)).await? {
        Commit::Committed(_) => Ok(id),
        Commit::Fenced => panic!("nobody fences"),
    }
}

async fn run(seed: u64, failures: u64) -> (usize, usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (memory, random) = (Arc::new(Memory::default()), Random::new(seed));
    Repository::create(memory.clone(), &Lock::Nobody, ChunkerParams::default(), None, dir.path()).await.unwrap();
    let world = Arc::new(Mutex::new(World::default()));
    let hosts = (0..HOSTS).map(|number| HostInTest {
        number,
        host: Host { id: Ulid::generate(), name: format!("host-{number}") },
        memory: memory.clone(),
        cache: dir.path().join(number.to_string()),
        random: random.clone(),
        failures,
        world: world.clone(),
        disk: Disk::default(),
    });
    println!("seed {seed}");
    futures_util::future::join_all(hosts.map(HostInTest::run)).await;
    // What is on its way lands.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }

    let repo = open(memory.clone(), &dir.path().join("new")).await.unwrap();
    let found = repo.snapshots_of("e", "v").await.unwrap();
    assert_eq!(found.damaged.len(), 0);
    let highest = world.lock().unwrap().reported.iter().map(|(epoch, _)| *epoch).max();
    let newest = found.records.last().and_then(|record| record.lease);
    assert!(newest >= highest, "seed {seed}: epoch {highest:?} was reported, and the newest is of {newest:?}");
    // Whatever the dead have left: who is alone gets the lease, if need be by taking it over.
    let host = Host { id: Ulid::generate(), name: "new".into() };
    let done = match Lease::acquire(&repo, "e", "v", &host, None).await.unwrap() {
        Acquired::Busy(holder) => Lease::take_over(&repo, "e", "v", &host, None, &holder).await.unwrap(),
        done => done,
    };
    let Acquired::Held(lease, previous) = done else { panic!("seed {seed}: {done:?}") };
    world.lock().unwrap().believing.clear();
    world.lock().unwrap().gives(HOSTS, lease.held(), &previous, None);
    lease.tidy().await.unwrap();
    assert_eq!(memory.keys("leases/").len(), 2, "seed {seed}");
    let world = world.lock().unwrap();
    (world.leases, world.reported.len(), world.losses)
}

async fn runs(seeds: std::ops::Range<u64>, failures: u64) {
    let mut total = (0, 0, 0);
    for seed in seeds {
        let (leases, reported, losses) = run(seed, failures).await;
        total = (total.0 + leases, total.1 + reported, total.2 + losses);
    }
    // Otherwise nothing was tried.
    assert!(total.0 > 300 && total.1 > 100 && total.2 > 10, "leases, commits, losses: {total:?}");
}

#[tokio::test]
async fn hosts_at_once_that_die_anywhere() {
    runs(0..150, 0).await;
}

#[tokio::test]
async fn and_calls_fail_or_take_effect_late() {
    runs(1000..1150, 25).await;
}
