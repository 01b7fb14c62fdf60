//! Repositories that no honest writer makes. Whatever they say: nothing outside of the target is touched, nothing panics or fills the
//! memory, and what is not as it should be is reported.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tree::{Facts, Place, describe, differences};
use voltool::repo::index::{self, PackInfo, PackName};
use voltool::repo::pack::PackBuilder;
use voltool::repo::session::{Commit, Compressor, Session};
use voltool::repo::{ChunkId, ChunkKind, RepoError, Repository, SnapshotRecord, SourceKind};
use voltool::restore::{self, Selection};
use voltool::store::{ObjectInfo, PutIfAbsent, Result, Store};

/// A place whose snapshots say what a test wants, and a folder beside its targets that nobody may touch.
struct Hostile {
    place: Place,
    repo: Arc<Repository>,
    outside: Facts,
}

/// A file entry of nothing, but for what `fields` say.
fn entry(fields: Value) -> Value {
    let mut entry = json!({"t": "f", "m": 0o644, "u": 0, "g": 0, "mt": [1_700_000_000, 0], "s": 0});
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    entry
}

impl Hostile {
    async fn new() -> Hostile {
        let place = Place::with_repository(false).await;
        tree::plant(&place.path("outside"), "outside", 3);
        let outside = describe(&place.path("outside"));
        let repo = place.open().await;
        Hostile { place, repo, outside }
    }

    /// Commits a snapshot with this root.
    async fn commit(
        &self,
        fill: impl FnOnce(&Session, &mut Compressor) -> Vec<ChunkId> + Send + 'static,
    ) -> SnapshotRecord {
        let session = Session::begin(&self.repo).await.unwrap();
        let filled = tokio::task::spawn_blocking(move || {
            let root = fill(&session, &mut Compressor::new(3).unwrap());
            session.flush().unwrap();
            (session, root)
        });
        let (session, root) = filled.await.unwrap();
        let now = Timestamp::now();
        let record = SnapshotRecord {
            version: 1,
            id: session.id().to_string(),
            volume: "v".into(),
            engine: "engine".into(),
            kind: SourceKind::Volume,
            time: now,
            finished: now,
            parent: None,
            root,
            entries: 1,
            files: 1,
            bytes: 1,
            added_bytes: 0,
            stored_bytes: 0,
            errors: Vec::new(),
            tags: Vec::new(),
            excludes: Vec::new(),
            tool: "hostile".into(),
            docker: None,
            lease: None,
        };
        let source = self.repo.keys().source_name("engine", "v");
        match session.commit(&source, record, None).await.unwrap() {
            Commit::Committed(record) => *record,
            Commit::Fenced => panic!("nobody fences"),
        }
    }

    /// Commits a listing of three leaves: `first` and `last` around the lines in question.
    async fn list(&self, lines: Vec<String>) -> SnapshotRecord {
        self.commit(move |session, compressor| {
            let file = |path: &str| format!("{}\n", entry(json!({"p": path})));
            let root = json!({"p": ".", "t": "d", "m": 0o755, "u": 0, "g": 0, "mt": [1, 1]});
            let leaves = [
                (".", format!("{root}\n{}", file("first"))),
                ("m", lines.iter().map(|line| format!("{line}\n")).collect()),
                ("zz", file("zz last")),
            ];
            let mut list = String::new();
            for (first, text) in leaves {
                let id = session.put(ChunkKind::Leaf, text.as_bytes(), compressor).unwrap();
                list += &format!("{}\n", json!({"leaf": id, "entries": 1, "first": first}));
            }
            vec![session.put(ChunkKind::List, list.as_bytes(), compressor).unwrap()]
        })
        .await
    }

    /// Restores in every way. Returns the problems and what is in the target; nothing may have happened elsewhere.
    async fn restore(&self, record: &SnapshotRecord) -> (Vec<(String, String)>, Facts) {
        // Without a cache, so that everything is read as a stranger reads it.
        let repo = self.place.try_open(self.place.store(), "nowhere").await.unwrap();
        let restored = self.place.restore(&repo, record).await;
        self.untouched();
        // What a tar program does with it is not ours to say, only that we do not break.
        let _ = self.export(&repo, record).await;
        // A backup whose parent this is reads the listing, too.
        let source = self.place.source("v");
        if !source.root.exists() {
            tree::plant(&source.root, "v", 3);
        }
        let done = self.place.backup(&repo, "v").await.expect("a backup goes on without its parent");
        let (again, facts) = self.place.restore(&repo, &done.record).await.unwrap();
        assert_eq!((again.problems, differences(&describe(&source.root), &facts)), (vec![], vec![]));
        fs::remove_dir_all(self.place.path("state")).unwrap();
        self.place.store().put(&format!("forgotten/{}.json", done.record.id), "{}".into()).await.unwrap();
        self.untouched();
        match restored {
            Ok((restored, facts)) => (restored.problems, facts),
            Err(e) => (vec![(String::new(), e.to_string())], Facts::new()),
        }
    }

    async fn export(&self, repo: &Arc<Repository>, record: &SnapshotRecord) -> voltool::repo::Result<()> {
        let (repo, record) = (repo.clone(), record.clone());
        tokio::task::spawn_blocking(move || {
            let (all, never) = (Selection::default(), AtomicBool::new(false));
            restore::export::to_tar(&repo, &record, &all, std::io::sink(), &(), &never).map(drop)
        })
        .await
        .expect("an export does not panic")
    }

    fn untouched(&self) {
        assert_eq!(differences(&self.outside, &describe(&self.place.path("outside"))), [""; 0]);
        let ours = ["repository", "cache", "nowhere", "state", "sources", "outside"];
        let found = fs::read_dir(self.place.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let targets: Vec<String> = found.filter(|name| !ours.contains(&name.as_str())).collect();
        assert_eq!(targets, [""; 0], "something was made beside the target");
    }

    /// Lists `lines`, restores, and expects that something is said, and that the other leaves come back.
    async fn refuses(&self, lines: Vec<String>) -> (Vec<(String, String)>, Facts) {
        let record = self.list(lines.clone()).await;
        let (problems, facts) = self.restore(&record).await;
        assert!(!problems.is_empty(), "nothing was said of {lines:?}: {facts:?}");
        for good in ["first", "zz last"] {
            assert!(facts.contains_key(good), "{good} is lost to {lines:?}: {problems:?}");
        }
        (problems, facts)
    }
}

fn lines(entries: &[Value]) -> Vec<String> {
    entries.iter().map(|fields| entry(fields.clone()).to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out() {
    let hostile = Hostile::new().await;
    let outside = hostile.place.path("outside/nothing").display().to_string();
    for path in [
        "../outside/made",
        "../outside/nothing",
        &outside,
        "/",
        "",
        "..",
        "m/..",
        "m/../../outside/made",
        "m//n",
        "m/./n",
        "./m",
        "m/",
        "nul\0",
    ] {
        for kind in ["f", "d", "p", "s", "c"] {
            let (problems, facts) = hostile.refuses(lines(&[json!({"p": path, "t": kind, "dv": [1, 3]})])).await;
            assert_eq!(facts.len(), 3, "{path}: {facts:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            // A tar with such a name in it would be a trap for whoever unpacks it.
            let record = hostile.list(lines(&[json!({"p": path, "t": kind, "dv": [1, 3]})])).await;
            assert!(hostile.export(&hostile.repo, &record).await.is_err(), "{path}");
        }
    }
    // Base64 of `../up`, and no base64 at all.
    for path in ["Li4vdXA=", "!", ""] {
        hostile.refuses(lines(&[json!({"p64": path})])).await;
    }
    hostile.refuses(lines(&[json!({})])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_symbolic_link() {
    let hostile = Hostile::new().await;
    for target in ["../outside", "../../outside", hostile.place.path("outside").to_str().unwrap()] {
        let link = json!({"p": "n", "t": "l", "l": target});
        for below in [
            json!({"p": "n/made"}),
            json!({"p": "n/nothing"}),
            json!({"p": "n/made", "t": "d", "m": 0o777}),
            json!({"p": "n/made", "t": "l", "l": "x"}),
            json!({"p": "n/made", "t": "p"}),
            json!({"p": "n/many/made"}),
        ] {
            let (_, facts) = hostile.refuses(lines(&[link.clone(), below.clone()])).await;
            assert!(facts["n"].starts_with('l'), "{below}: {facts:?}");
            // As a folder that is there already, because the link claims to be one, too.
            hostile.refuses(lines(&[link.clone(), json!({"p": "n", "t": "d", "m": 0o700}), below.clone()])).await;
            hostile.refuses(lines(&[json!({"p": "n", "t": "d", "m": 0o700}), link.clone(), below])).await;
        }
    }
}

/// The same in leaves of their own, each in order: what is refused within a leaf may come with the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_becomes_a_folder_in_the_next_leaf() {
    let hostile = Hostile::new().await;
    let kinds = [
        json!({"p": "n", "t": "l", "l": "../outside"}),
        json!({"p": "n", "t": "d", "m": 0o777}),
        json!({"p": "n", "t": "f", "m": 0o777}),
        json!({"p": "n", "t": "f", "hl": "1"}),
    ];
    for first in &kinds {
        for second in &kinds {
            let (first, second) = (first.clone(), second.clone());
            let below = [json!({"p": "n/made"}), json!({"p": "n/nothing", "m": 0o777}), json!({"p": "n0", "hl": "1"})];
            let said = format!("{first} {second}");
            let record = hostile
                .commit(move |session, compressor| {
                    let mut list = String::new();
                    for (number, entries) in [vec![first], vec![second], below.to_vec()].iter().enumerate() {
                        let text: String = lines(entries).iter().map(|line| format!("{line}\n")).collect();
                        let id = session.put(ChunkKind::Leaf, text.as_bytes(), compressor).unwrap();
                        list += &format!("{}\n", json!({"leaf": id, "entries": 1, "first": format!("n{number}")}));
                    }
                    vec![session.put(ChunkKind::List, list.as_bytes(), compressor).unwrap()]
                })
                .await;
            let (problems, _) = hostile.restore(&record).await;
            assert!(!problems.is_empty(), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_to_elsewhere() {
    let hostile = Hostile::new().await;
    let link = json!({"p": "n", "t": "l", "l": "../outside"});
    // The first name of the inode is below a link, or is one.
    hostile
        .refuses(lines(&[link, json!({"p": "n/nothing", "hl": "1"}), json!({"p": "o", "hl": "1", "m": 0o777})]))
        .await;
    let record = hostile.list(lines(&[
        json!({"p": "n", "t": "l", "l": "../outside/nothing", "hl": "1"}),
        json!({"p": "o", "hl": "1", "m": 0o777}),
    ]));
    hostile.restore(&record.await).await;
    hostile.refuses(lines(&[json!({"p": "n", "hl": "1"}), json!({"p": "../outside/made", "hl": "1"})])).await;
    // A folder has one name: the second one is made as a folder, not left out in silence.
    let folder = |path: &str| json!({"p": path, "t": "d", "m": 0o755, "hl": "2"});
    let record = hostile.list(lines(&[folder("n"), folder("o"), json!({"p": "o/p"})])).await;
    let (problems, facts) = hostile.restore(&record).await;
    assert!(problems.is_empty() && facts.contains_key("o/p"), "{problems:?} {facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_twice_and_orders_that_are_none() {
    let hostile = Hostile::new().await;
    for entries in [
        vec![json!({"p": "n"}), json!({"p": "n"})],
        vec![json!({"p": "n", "t": "d", "m": 0o755}), json!({"p": "n"})],
        vec![json!({"p": "n"}), json!({"p": "n", "t": "d", "m": 0o755}), json!({"p": "n/o"})],
        vec![json!({"p": "n/o"}), json!({"p": "n", "t": "d", "m": 0o755})],
        vec![json!({"p": "n/o"})],
        vec![json!({"p": "n"}), json!({"p": "n/o"})],
        vec![json!({"p": "o"}), json!({"p": "n"})],
        vec![json!({"p": "zz last", "t": "d", "m": 0o755})],
    ] {
        hostile.refuses(lines(&entries)).await;
    }
    // The second file of a name, in a leaf of its own: the first one stays.
    let id = hostile.repo.keys().chunk_id(b"four");
    hostile
        .commit(move |session, compressor| {
            session.put(ChunkKind::Fixed, b"four", compressor).unwrap();
            vec![]
        })
        .await;
    for content in [json!([]), json!([[id, 4]])] {
        let size = 4 * content.as_array().unwrap().len();
        let second = json!({"p": "first", "m": 0o600, "k": "fixed", "s": size, "c": content});
        let (problems, facts) = hostile.refuses(lines(&[second])).await;
        assert!(problems[0].0 == "first" && facts["first"].starts_with("f 0644"), "{problems:?} {facts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_make_no_sense() {
    let hostile = Hostile::new().await;
    let zeros = "00".repeat(32);
    for fields in [
        json!({"p": "n", "t": "x"}),
        json!({"p": "n", "mt": 5}),
        json!({"p": "n", "mt": [0, 4_000_000_000u32]}),
        json!({"p": "n", "t": "l"}),
        json!({"p": "n", "t": "l", "l": ""}),
        json!({"p": "n", "t": "l", "l": "nul\0"}),
        json!({"p": "n", "t": "l", "l": "x".repeat(5000)}),
        json!({"p": "n".repeat(300)}),
        json!({"p": "n", "s": 1}),
        json!({"p": "n", "s": 1, "c": [["zz", 1]]}),
        json!({"p": "n", "s": 3, "c": [[-1], [4]]}),
        json!({"p": "n", "s": 1, "c": [[zeros, 1]]}),
        json!({"p": "n", "s": 5, "cl": [[zeros, 5]]}),
        json!({"p": "n", "s": u64::MAX, "c": [[u64::MAX]]}),
        json!({"p": "n", "s": 4, "c": [[u64::MAX], [5]]}),
        json!({"p": "n", "s": 3, "c": [[u64::MAX], [4], [zeros, 1]]}),
        json!({"p": "n", "x": [["user.x", "!"]]}),
        json!({"p": "n", "x": [["", "", "AAA="]]}),
        json!({"p": "n", "x": [["no.such.namespace", ""]]}),
    ] {
        hostile.refuses(lines(&[fields])).await;
    }
    for text in ["", "{", "[]", "null", "\u{1}", "{\"p\": \"n\"}"] {
        let record = hostile.list(vec![text.to_owned(), "{}".into()]).await;
        let (problems, _) = hostile.restore(&record).await;
        assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_beyond_their_chunk() {
    let hostile = Hostile::new().await;
    let id = hostile.repo.keys().chunk_id(b"four");
    hostile
        .commit(move |session, compressor| {
            session.put(ChunkKind::Fixed, b"four", compressor).unwrap();
            vec![]
        })
        .await;
    for (size, segment) in [
        (9, json!([id, 9])),
        (4, json!([id, 4, 1])),
        (1, json!([id, 1, 4])),
        (1, json!([id, 1, u64::MAX])),
        (u64::MAX, json!([id, u64::MAX])),
        (u64::MAX, json!([id, u64::MAX, 4])),
        (5, json!([id, 4])),
        (3, json!([id, 4])),
    ] {
        let (problems, facts) =
            hostile.refuses(lines(&[json!({"p": "n", "k": "fixed", "s": size, "c": [segment]})])).await;
        assert!(problems[0].0 == "n" && !facts.contains_key("n"), "{segment}: {problems:?}");
    }
    let good = json!({"p": "n", "k": "fixed", "s": 5, "c": [[id, 3, 1], [1], [id, 1]]});
    let record = hostile.list(lines(&[good])).await;
    let (problems, facts) = hostile.restore(&record).await;
    assert_eq!(problems, []);
    assert!(facts["n"].contains(&tree::sha256(b"our\0f")), "{facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_none() {
    let hostile = Hostile::new().await;
    let nowhere = ChunkId([9; 32]);
    let line = |leaf: Value| format!("{}\n", json!({"leaf": leaf, "entries": 1, "first": "m"}));
    for text in [
        String::new(),
        "garbage".into(),
        "\n\n".into(),
        line(json!(nowhere)),
        line(json!("zz")),
        line(json!(nowhere)).repeat(2),
        line(json!(nowhere)).replace("\"m\"", "\"../m\""),
    ] {
        let given = text.clone();
        let put = move |session: &Session, compressor: &mut Compressor| {
            vec![session.put(ChunkKind::List, given.as_bytes(), compressor).unwrap()]
        };
        let record = hostile.commit(put).await;
        let (problems, _) = hostile.restore(&record).await;
        // Nothing in it is nothing to restore.
        assert_eq!(problems.is_empty(), text.trim().is_empty(), "{text:?}: {problems:?}");
    }
    let record = hostile.commit(move |_, _| vec![nowhere]).await;
    assert!(hostile.restore(&record).await.0[0].1.contains("is missing"));
}

/// Id, kind, raw length, frame, base: what a pack says of a chunk, true or not.
type PlantedChunk = (ChunkId, ChunkKind, u32, Vec<u8>, Option<ChunkId>);

/// Makes a pack by hand, with its index, as a session of its own.
async fn plant_pack(store: &Arc<dyn Store>, chunks: &[PlantedChunk]) {
    let mut builder = PackBuilder::default();
    for (id, kind, raw_len, frame, base) in chunks {
        builder.add(*id, *kind, *raw_len, frame, *base);
    }
    let (bytes, entries) = builder.finish();
    let name = PackName { session: ulid::Ulid::generate(), number: 0 };
    let info = PackInfo { name, size: bytes.len() as u64, header: Vec::new() };
    store.put(&name.key(), bytes.into()).await.unwrap();
    let index = zstd::bulk::compress(&index::encode(&[(info, entries)]), 3).unwrap();
    store.put(&format!("index/{}.idx", ulid::Ulid::generate()), index.into()).await.unwrap();
}

/// 1 GiB of zeros in a few kilobytes.
fn bomb() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_lies() {
    let hostile = Hostile::new().await;
    let store = hostile.place.store();
    let bomb = bomb();
    assert!(bomb.len() < 1 << 20);
    let before = peak();
    let mut number = 10;
    for raw_len in [0, 4, 8 << 20, (8 << 20) + 1, u32::MAX] {
        for kind in [ChunkKind::Fixed, ChunkKind::Leaf] {
            number += 1;
            let id = ChunkId([number; 32]);
            plant_pack(&store, &[(id, kind, raw_len, bomb.clone(), None)]).await;
            if kind == ChunkKind::Fixed {
                let size = raw_len.max(1);
                hostile.refuses(lines(&[json!({"p": "n", "k": "fixed", "s": size, "c": [[id, size]]})])).await;
                continue;
            }
            let record = hostile
                .commit(move |session, compressor| {
                    let list = format!("{}\n", json!({"leaf": id, "entries": 1, "first": "m"}));
                    vec![session.put(ChunkKind::List, list.as_bytes(), compressor).unwrap()]
                })
                .await;
            assert_eq!(hostile.restore(&record).await.0.len(), 1);
        }
    }
    // An index that claims to be huge once it is decompressed, and one that claims chunks of 4 GiB.
    let name = format!("index/{}.idx", ulid::Ulid::generate());
    store.put(&name, bomb.clone().into()).await.unwrap();
    let unlock = Vec::new();
    let repo = Repository::open(store.clone(), &unlock, &hostile.place.path("cache-2")).await.unwrap();
    let damaged = repo.load_index().await.unwrap();
    assert!(damaged.len() == 1 && damaged[0].to_string().contains(&name), "{damaged:?}");
    assert!(peak() < before + 400, "{} MiB, before it were {before}", peak());
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_in_a_circle() {
    let hostile = Hostile::new().await;
    let ids: Vec<ChunkId> = [&b"one!"[..], b"two!", b"tre!"].iter().map(|d| hostile.repo.keys().chunk_id(d)).collect();
    let frame = |data: &[u8]| zstd::bulk::compress(data, 3).unwrap();
    plant_pack(
        &hostile.place.store(),
        &[
            (ids[0], ChunkKind::Fixed, 4, frame(b"one!"), Some(ids[1])),
            (ids[1], ChunkKind::Fixed, 4, frame(b"two!"), Some(ids[0])),
            (ids[2], ChunkKind::Fixed, 4, frame(b"tre!"), Some(ids[2])),
        ],
    )
    .await;
    for id in ids {
        let (problems, _) = hostile.refuses(lines(&[json!({"p": "n", "k": "fixed", "s": 4, "c": [[id, 4]]})])).await;
        assert_eq!(problems[0].0, "n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_under_an_id() {
    let hostile = Hostile::new().await;
    let id = ChunkId([7; 32]);
    let frame = zstd::bulk::compress(b"lies", 3).unwrap();
    plant_pack(&hostile.place.store(), &[(id, ChunkKind::Fixed, 4, frame, None)]).await;
    let (problems, _) = hostile.refuses(lines(&[json!({"p": "n", "k": "fixed", "s": 4, "c": [[id, 4]]})])).await;
    assert!(problems[0].1.contains("packs/"), "{problems:?}");
}

/// A bucket can hold any key, and anybody who may write to it can choose them.
#[derive(Debug)]
struct AnyKey {
    inner: Arc<dyn Store>,
    objects: Vec<(String, Bytes)>,
}

#[async_trait]
impl Store for AnyKey {
    fn url(&self) -> String {
        self.inner.url()
    }
    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.inner.put(key, data).await
    }
    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        self.inner.put_if_absent(key, data).await
    }
    async fn get(&self, key: &str) -> Result<Bytes> {
        match self.objects.iter().find(|(k, _)| k == key) {
            Some((_, data)) => Ok(data.clone()),
            None => self.inner.get(key).await,
        }
    }
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.inner.get_range(key, offset, len).await
    }
    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        self.inner.get_tail(key, len).await
    }
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.inner.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut found = self.inner.list(prefix).await?;
        let ours = self.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        found.extend(ours.map(|(key, data)| ObjectInfo { key: key.clone(), size: data.len() as u64 }));
        Ok(found)
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }
    async fn prepare(&self) -> Result<()> {
        self.inner.prepare().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_lead_out_of_the_cache() {
    let hostile = Hostile::new().await;
    let record = hostile.list(lines(&[json!({"p": "n"})])).await;
    // The cache of the repository is two folders below the place.
    let up =
        |prefix: &str, name: &str| format!("{prefix}/{}../../outside/{name}", "../".repeat(prefix.split('/').count()));
    let mut renamed = record.clone();
    renamed.id = "made".into();
    let key = up("snapshots/v", "made.json");
    let objects = vec![
        (up("gc", "made.json"), Bytes::from_static(br#"{"epoch": 0, "condemned": []}"#)),
        (up("gc", "made.decided"), Bytes::from_static(br#"{"epoch": 0, "rejected": []}"#)),
        (key.clone(), renamed.encode(&key, hostile.repo.keys()).unwrap()),
        (up("index", "made.idx"), zstd::bulk::compress(&index::encode(&[]), 3).unwrap().into()),
    ];
    let store: Arc<dyn Store> = Arc::new(AnyKey { inner: hostile.place.store(), objects });
    let repo = hostile.place.try_open(store, "cache").await.unwrap();
    repo.epochs().await.unwrap();
    repo.snapshots().await.unwrap();
    let (restored, _) = hostile.place.restore(&repo, &record).await.unwrap();
    assert_eq!(restored.problems, []);
    hostile.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_leads_out_of_the_cache() {
    for encrypted in [false, true] {
        let place = Place::with_repository(encrypted).await;
        let path = place.repository().join("voltool.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for id in ["../made", "/tmp/voltool-test-made", "", "."] {
            config["id"] = json!(id);
            fs::write(&path, config.to_string()).unwrap();
            let error = place.try_open(place.store(), "cache-2/below").await.unwrap_err();
            assert!(matches!(&error, RepoError::Damaged { key, .. } if key == "voltool.json"), "{error}");
            assert!(!place.path("cache-2").exists() && !Path::new("/tmp/voltool-test-made").exists());
        }
    }
}
