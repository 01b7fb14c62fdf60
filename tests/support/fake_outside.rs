//! A volume driver on a socket without an engine: what it asks of others, the test answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;
use voltool::docker::VolumeUser;
use voltool::driver::{Driver, DriverSettings, Outside};
use voltool::guard::authz::Destroying;
use voltool::plugin::{self, Authz, Decide, Listening, Plugin, Ruling};
use voltool::repo::{ChunkerParams, Lock, Repository, SnapshotRecord, SourceKind};
use voltool::snapshot::{self, BackupOptions, ByteBudget, Excludes, Source};
use voltool::store::local::LocalStore;

/// What the engine is called in snapshots.
pub const ENGINE: &str = "here";

/// What there is of a repository.
#[derive(Clone)]
pub enum Access {
    /// It answers.
    Open(Arc<Repository>),
    /// It fails, for this reason.
    Fails(String),
    /// It never answers, or not before this changes.
    Hangs,
}

/// Answers the driver's questions as it is told to.
pub struct FakeOutside {
    dir: PathBuf,
    access: watch::Sender<Access>,
    waiting: AtomicUsize,
    users: Mutex<Result<Vec<VolumeUser>, String>>,
    log: Mutex<Vec<String>>,
}

impl FakeOutside {
    /// One without a repository and without containers, which keeps what it needs in that folder.
    pub fn new(dir: &Path) -> FakeOutside {
        FakeOutside {
            dir: dir.to_owned(),
            access: watch::Sender::new(Access::Fails("no repository is configured".to_owned())),
            waiting: AtomicUsize::new(0),
            users: Mutex::new(Ok(Vec::new())),
            log: Mutex::default(),
        }
    }

    /// From now on there is this repository; whoever waits for one gets it.
    pub fn access(&self, access: Access) {
        self.access.send_replace(access);
    }

    /// How many wait for a repository that does not answer.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// From now on the engine says this when it is asked for containers.
    pub fn users(&self, users: Result<Vec<VolumeUser>, String>) {
        *self.users.lock().expect("not poisoned") = users;
    }

    /// What the driver said.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("not poisoned").clone()
    }

    /// A new repository in a folder, not encrypted.
    pub async fn make_repository(&self) -> Arc<Repository> {
        std::fs::create_dir(self.dir.join("repository")).expect("made");
        let store = Arc::new(LocalStore::new(self.dir.join("repository")));
        let cache = self.dir.join("cache");
        let made = Repository::create(store, &Lock::Nobody, ChunkerParams::default(), None, &cache).await;
        let repo = made.expect("a repository");
        repo.load_index().await.expect("an index");
        Arc::new(repo)
    }
}

/// Counts who waits, also if it is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Outside for FakeOutside {
    async fn users(&self, volume: Option<&str>) -> Result<Vec<VolumeUser>, String> {
        let users = self.users.lock().expect("not poisoned").clone()?;
        let has = |user: &VolumeUser| volume.is_none_or(|name| user.volumes.iter().any(|(other, _)| other == name));
        Ok(users.into_iter().filter(has).collect())
    }

    async fn engine_name(&self) -> Result<String, String> {
        Ok(ENGINE.to_owned())
    }

    async fn labels(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, String> {
        Ok(BTreeMap::new())
    }

    async fn repository(&self) -> Result<Arc<Repository>, String> {
        let mut access = self.access.subscribe();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let answers = |access: &Access| !matches!(access, Access::Hangs);
        let access = access.wait_for(answers).await.map_err(|e| e.to_string())?.clone();
        match access {
            Access::Open(repo) => Ok(repo),
            Access::Fails(why) => Err(why),
            Access::Hangs => Err("it has not been waited for".to_owned()),
        }
    }

    async fn find(
        &self,
        volume: &str,
        snapshot: Option<&str>,
        _engine: Option<&str>,
    ) -> Result<Arc<SnapshotRecord>, String> {
        let found = self.repository().await?.snapshots().await.map_err(|e| e.to_string())?;
        let meant = |r: &Arc<SnapshotRecord>| r.volume == volume && snapshot.is_none_or(|id| r.id.starts_with(id));
        found.records.into_iter().rfind(meant).ok_or_else(|| format!("there is no snapshot of {volume}"))
    }

    fn backup_options(&self) -> BackupOptions {
        BackupOptions {
            state_dir: self.dir.join("state"),
            tags: Vec::new(),
            budget: ByteBudget::new(64 << 20),
            excludes: Excludes::default(),
            level: 3,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    fn log(&self, text: &str) {
        self.log.lock().expect("not poisoned").push(text.to_owned());
    }
}

/// Nobody asks about requests here.
struct Never;

#[async_trait]
impl Decide for Never {
    async fn decide(&self, _: Destroying, _: Vec<Destroying>) -> Ruling {
        Ruling::Allow
    }

    fn log(&self, _: &str) {}
}

/// A driver that is served on a socket.
pub struct Served {
    /// Where everything is.
    pub dir: tempfile::TempDir,
    /// Who answers the driver.
    pub outside: Arc<FakeOutside>,
    runtime: tokio::runtime::Runtime,
    serving: Option<tokio::task::JoinHandle<()>>,
}

/// An answer: status and body.
pub type Answer = (u16, Value);

impl Default for Served {
    fn default() -> Self {
        Served::new()
    }
}

impl Served {
    /// A driver without volumes.
    pub fn new() -> Served {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = Arc::new(FakeOutside::new(dir.path()));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let mut served = Served { dir, outside, runtime, serving: None };
        served.start();
        served
    }

    /// One with a repository that answers.
    pub fn with_repository() -> (Served, Arc<Repository>) {
        let served = Served::new();
        let repo = served.runtime.block_on(served.outside.make_repository());
        served.outside.access(Access::Open(repo.clone()));
        (served, repo)
    }

    fn start(&mut self) {
        let mut listening = self.runtime.block_on(async { Listening::bind(&self.socket()) }).expect("bound");
        let listener = listening.take().expect("not taken");
        let opened = Driver::open(&self.state(), DriverSettings::default(), self.outside.clone());
        let driver = opened.expect("the folders can be used");
        let plugin = Plugin::new(Authz::new(Arc::new(Never), Duration::from_secs(30)), Arc::new(driver));
        let served = plugin::serve(listener, Arc::new(plugin), std::future::pending(), Duration::ZERO);
        self.serving = Some(self.runtime.spawn(async move {
            served.await;
            drop(listening);
        }));
    }

    /// The driver ends, as in a crash, and a new one begins.
    pub fn restart(&mut self) {
        let serving = self.serving.take().expect("runs");
        serving.abort();
        let _ = self.runtime.block_on(serving);
        self.start();
    }

    /// Waits for something of the library's.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("plugins/voltool.sock")
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where a volume's content is.
    pub fn data(&self, name: &str) -> PathBuf {
        self.state().join("volumes").join(name).join("_data")
    }

    /// Takes a snapshot of a folder with that file, as one of that volume.
    pub fn snapshot(&self, repo: &Arc<Repository>, volume: &str, file: &str, content: &[u8]) {
        let root = self.dir.path().join(format!("source-{volume}"));
        std::fs::create_dir_all(&root).expect("made");
        std::fs::write(root.join(file), content).expect("written");
        let source = Source {
            engine: ENGINE.to_owned(),
            name: volume.to_owned(),
            kind: SourceKind::Volume,
            root,
            docker: None,
            lease: None,
        };
        let options = self.outside.backup_options();
        let done = self.runtime.block_on(snapshot::backup(repo, &source, &options, Arc::new(())));
        assert_eq!(done.expect("a snapshot").problems, 0);
        // The driver's own backups of a volume of that name begin without this one's listing.
        std::fs::remove_file(source.state_path(repo, &options.state_dir)).expect("there");
    }

    /// Sends a request as an engine of 20.10 does, and returns the stream on which the answer comes.
    pub fn send(&self, method: &str, body: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).expect("listens");
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: \r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        stream
    }

    /// What is answered to these bytes; nothing if the connection is closed without an answer.
    pub fn post(&self, method: &str, body: &[u8]) -> Option<Answer> {
        read_answer(self.send(method, body))
    }

    /// A question of the volume driver's, and its answer.
    #[track_caller]
    pub fn ask(&self, question: &str, body: &Value) -> Answer {
        let answer = self.post(&format!("VolumeDriver.{question}"), body.to_string().as_bytes());
        answer.unwrap_or_else(|| panic!("no answer to {question} {body}"))
    }

    /// One that has to be answered with success.
    #[track_caller]
    pub fn ok(&self, question: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(question, body);
        assert_eq!((status, &answer["Err"]), (200, &json!("")), "{question} {body}: {answer}");
        answer
    }

    /// One that has to be refused; the reason.
    #[track_caller]
    pub fn refused(&self, question: &str, body: &Value) -> String {
        let (status, answer) = self.ask(question, body);
        let reason = answer["Err"].as_str().unwrap_or_default();
        assert!(status == 500 && !reason.is_empty(), "{question} {body}: {status} {answer}");
        reason.to_owned()
    }

    /// Makes a volume.
    #[track_caller]
    pub fn create(&self, name: &str, options: &Value) {
        self.ok("Create", &json!({ "Name": name, "Opts": options }));
    }

    /// How many uses a volume has.
    #[track_caller]
    pub fn mounts(&self, name: &str) -> u64 {
        let status = &self.ok("Get", &json!({ "Name": name }))["Volume"]["Status"];
        status["mounts"].as_u64().unwrap_or_else(|| panic!("no count: {status}"))
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "in vain: {what}; {:?}", self.outside.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Reads an answer to its end; nothing if there is none.
pub fn read_answer(mut stream: UnixStream) -> Option<Answer> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut answer = Vec::new();
    // A connection that is reset has no answer either.
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"))))
}
