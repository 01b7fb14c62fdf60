//! Volumes of a real engine in a bucket and back: on the S3 server that `VOLTOOL_TEST_S3_ENDPOINT` names (`tests/garage.sh run` starts
//! one), else on the one in the process.

mod support;

use std::path::Path;

use support::cli::{Lock, Sandbox};
use support::engine::BUSYBOX;
use support::host::{Host, assert_same, make_tree};
use support::mem_s3::{self, MemS3, Server};
use voltool::store::{S3Options, StoreUrl};

/// What a client needs to reach a bucket.
struct Bucket {
    endpoint: String,
    name: String,
    access_key: String,
    secret: String,
    region: String,
    /// Serves as long as this is kept.
    _server: Option<Server>,
}

impl Bucket {
    async fn find() -> Bucket {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = variable("VOLTOOL_TEST_S3_ENDPOINT") else {
            let server = MemS3::new().serve().await;
            return Bucket {
                endpoint: server.endpoint(),
                name: mem_s3::BUCKET.to_owned(),
                access_key: mem_s3::ACCESS_KEY.to_owned(),
                secret: mem_s3::SECRET_KEY.to_owned(),
                region: "us-east-1".to_owned(),
                _server: Some(server),
            };
        };
        let needed = |name| variable(name).unwrap_or_else(|| panic!("VOLTOOL_TEST_S3_ENDPOINT is set, {name} is not"));
        Bucket {
            endpoint,
            name: needed("VOLTOOL_TEST_S3_BUCKET"),
            access_key: needed("AWS_ACCESS_KEY_ID"),
            secret: needed("AWS_SECRET_ACCESS_KEY"),
            region: needed("AWS_REGION"),
            _server: None,
        }
    }

    /// Lets a sandbox reach the bucket, with the credentials in the environment.
    fn give_to(&self, sandbox: &mut Sandbox) {
        sandbox.set("AWS_ACCESS_KEY_ID", &self.access_key);
        sandbox.set("AWS_SECRET_ACCESS_KEY", &self.secret);
        sandbox.set("AWS_EC2_METADATA_DISABLED", "true");
    }

    /// Copies the repository into a folder, as any S3 client would.
    async fn copy(&self, url: &str, to: &Path) {
        let options = S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some(self.region.clone()),
            ..S3Options::default()
        };
        let prefix = url.strip_prefix(&format!("s3://{}/", self.name)).expect("a URL of this bucket");
        let store =
            voltool::store::s3::S3Store::with_credentials(&self.name, prefix, &options, &self.access_key, &self.secret);
        let store: Box<dyn voltool::store::Store> = Box::new(store.expect("a store"));
        for object in store.list("").await.expect("listed") {
            let path = to.join(&object.key);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, store.get(&object.key).await.expect("read")).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_a_bucket_and_back() {
    let bucket = Bucket::find().await;
    let mut sandbox = Sandbox::bare();
    bucket.give_to(&mut sandbox);
    sandbox.repo = format!("s3://{}/hosts/{}", bucket.name, ulid::Ulid::generate());
    assert!(StoreUrl::parse(&sandbox.repo).is_ok());
    let server = ["--s3-endpoint", &bucket.endpoint, "--s3-region", &bucket.region];
    let init = sandbox.run([&["init", "--repo", &sandbox.repo][..], &server].concat()).ok();
    assert!(init.contains("conditional writes are"), "{init}");

    let old = Host::with(sandbox);
    old.docker(&["volume", "create", "--label", "app=shop", "db"]);
    make_tree(&old.sandbox, &old.mountpoint("db"));
    let write = ["run", "--name", "app", "--network", "none", "-v", "/cache", BUSYBOX, "sh", "-c", "echo 1 >/cache/x"];
    old.docker(&write);
    let cache = old.volume_at("app", "/cache");
    let copies = ["db", &cache].map(|volume| (volume, old.keep(&old.mountpoint(volume), &format!("copy-{volume}"))));
    // From here on, settings come from the configuration that `init` wrote.
    old.ok(&["backup"]);
    let again = old.json(&["backup", "db", "--json"]);
    assert_eq!(again[0]["added_bytes"], 0, "{again}");
    assert_eq!(old.row("db")["at_risk"], false);

    // On the same host, with and without what is kept locally.
    for forget in [false, true] {
        old.docker(&["rm", "-f", "-v", "app"]);
        old.docker(&["volume", "rm", "-f", "db", &cache]);
        if forget {
            old.sandbox.forget_local();
        }
        old.ok(&["restore", "--all"]);
        for (volume, copy) in &copies {
            assert_same(copy, &old.mountpoint(volume));
        }
    }

    // On an empty host, by what the recovery kit says.
    let mut sandbox = Sandbox::bare();
    bucket.give_to(&mut sandbox);
    sandbox.file("config.toml", "");
    sandbox.repo.clone_from(&old.sandbox.repo);
    let key = std::fs::read_to_string(old.sandbox.path("identity.txt")).expect("the identity");
    let key = sandbox.file("key.txt", &key);
    let new = Host::with(sandbox);
    let repo = ["--repo", &new.sandbox.repo, "--identity", &key];
    new.ok(&[&repo[..], &server, &["restore", "--all"]].concat());
    for (volume, copy) in &copies {
        assert_same(copy, &new.mountpoint(volume));
    }
    assert_eq!(new.definition("db")["Labels"], serde_json::json!({"app": "shop"}));

    // Without voltool, from a copy of the bucket.
    let folder = old.sandbox.folder("bucket");
    bucket.copy(&old.sandbox.repo, &folder).await;
    let tar = old.sandbox.restore_py(Lock::Identity, &folder, &cache, "cache.tar");
    assert_same(&copies[1].1, &old.sandbox.untar(&tar, "from-python"));
}
