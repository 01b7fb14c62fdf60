//! Volumes and containers of real private engines: Debian's, or the one that `VOLTOOL_TEST_DOCKERD` names.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::engine::{BUSYBOX, SCRATCH, TestEngine, WITH_VOLUME};
use voltool::docker::connect::resolve;
use voltool::docker::{ConnectOptions, Engine, EngineError, EngineErrorKind, Surroundings};
use voltool::inventory::{AccessError, Inventory, Kind, VolumeInfo, readable_root};

async fn connect(engine: &TestEngine) -> Engine {
    let options = ConnectOptions { host: Some(engine.host()), ..ConnectOptions::default() };
    Engine::connect(&options).await.expect("connected")
}

async fn scan(engine: &TestEngine) -> Inventory {
    Inventory::scan(&connect(engine).await).await.expect("scanned")
}

/// The name of the volume that a container has mounted at a path.
fn volume_at(engine: &TestEngine, container: &str, path: &str) -> String {
    let template =
        format!("{{{{range .Mounts}}}}{{{{if eq .Destination {path:?}}}}}{{{{.Name}}}}{{{{end}}}}{{{{end}}}}");
    engine.docker(&["inspect", "--format", &template, container])
}

/// Who uses a volume: container, path, whether it may write.
fn users(volume: &VolumeInfo) -> Vec<(&str, &str, bool)> {
    volume.used_by.iter().map(|usage| (usage.name.as_str(), usage.path.as_str(), usage.rw)).collect()
}

#[tokio::test]
async fn named_and_anonymous_volumes_are_told_apart() {
    let engine = TestEngine::start();
    engine.docker(&["volume", "create", "idle"]);
    engine.docker(&["create", "--name", "named", "-v", "byflag:/a", "--mount", "src=bymount,dst=/b", BUSYBOX]);
    engine.docker(&["create", "--name", "flag", "-v", "/anon", BUSYBOX]);
    engine.docker(&["create", "--name", "image", WITH_VOLUME]);
    engine.docker(&["create", "--name", "mount", "--mount", "type=volume,dst=/anon", BUSYBOX]);
    engine.docker(&["create", "--name", "leaves", "-v", "/anon", BUSYBOX]);
    let dangling = volume_at(&engine, "leaves", "/anon");
    engine.docker(&["rm", "leaves"]);
    // A name of the engine's own shape, but somebody's choice: each mount spells it out.
    let chosen = "c".repeat(64);
    engine.docker(&["create", "--name", "spelled", "-v", &format!("{chosen}:/x"), BUSYBOX]);
    // An anonymous volume that another container mounts by its name, as people do to look into it.
    let shared = volume_at(&engine, "flag", "/anon");
    engine.docker(&["create", "--name", "peek", "-v", &format!("{shared}:/y:ro"), BUSYBOX]);

    let inventory = scan(&engine).await;
    let kind = |name: &str| inventory.volume(name).unwrap_or_else(|| panic!("{name} is not listed")).kind;
    for name in ["idle", "byflag", "bymount", &chosen] {
        assert_eq!(kind(name), Kind::Named, "{name}");
    }
    let (image, mount) = (volume_at(&engine, "image", "/image-volume"), volume_at(&engine, "mount", "/anon"));
    for (name, what) in [(&shared, "-v /anon"), (&image, "VOLUME"), (&mount, "--mount"), (&dangling, "dangling")] {
        assert_eq!(kind(name), Kind::Anonymous, "{what}");
    }
    assert_eq!(inventory.volumes.len(), 8);
    assert!(inventory.volume(&dangling).expect("listed").is_dangling());
    assert_eq!(users(inventory.volume(&shared).expect("listed")), [("flag", "/anon", true), ("peek", "/y", false)]);
    let named: Vec<Option<bool>> =
        inventory.volume(&shared).expect("listed").used_by.iter().map(|u| u.named_in_spec).collect();
    assert_eq!(
        named,
        [Some(false), Some(true)],
        "removing `flag` with -v could take the volume along, removing `peek` never does"
    );
    assert_eq!((&inventory.missing, &inventory.warnings), (&vec![], &vec![]));
    assert_eq!(inventory.nearest("byfalg"), Some("byflag"));
}

#[tokio::test]
async fn data_only_containers_are_recognised_in_all_forms() {
    let engine = TestEngine::start();
    engine.docker(&["create", "--name", "never-started", "-v", "/data", BUSYBOX]);
    engine.docker(&["run", "--name", "exited-at-once", "-v", "/data", BUSYBOX, "true"]);
    engine.docker(&["create", "--name", "scratch", SCRATCH, "none"]);
    let start = engine.try_docker(&["run", "--name", "scratch-run", SCRATCH, "none"]);
    assert!(!start.status.success(), "there is nothing to run in an empty image");
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "referenced",
        "-v",
        "/data",
        "-v",
        "both:/both:ro",
        BUSYBOX,
        "sleep",
        "600",
    ]);
    // Consumers: one that runs, one that was never started, one that names its source by the beginning of its id.
    engine.docker(&["run", "-d", "--name", "consumer", "--volumes-from", "referenced:ro", BUSYBOX, "sleep", "600"]);
    engine.docker(&["create", "--name", "later", "--volumes-from", "referenced", BUSYBOX]);
    let id = engine.docker(&["inspect", "--format", "{{.Id}}", "never-started"]);
    engine.docker(&["create", "--name", "by-id", "--volumes-from", &id[..12], BUSYBOX]);
    // Not data-only: it works, it failed, it serves although another takes its volumes.
    engine.docker(&["run", "-d", "--name", "works", "-v", "work:/data", BUSYBOX, "sleep", "600"]);
    assert!(!engine.try_docker(&["run", "--name", "failed", "-v", "/data", BUSYBOX, "false"]).status.success());
    engine.docker(&["run", "-d", "--name", "database", "--expose", "5432", "-v", "pg:/pg", BUSYBOX, "sleep", "600"]);
    engine.docker(&["run", "-d", "--name", "dump", "--volumes-from", "database:ro", BUSYBOX, "sleep", "600"]);

    let inventory = scan(&engine).await;
    let mut by_container: BTreeMap<&str, bool> = BTreeMap::new();
    for usage in inventory.volumes.iter().flat_map(|volume| &volume.used_by) {
        let earlier = by_container.insert(&usage.name, usage.data_only);
        assert!(earlier.is_none_or(|earlier| earlier == usage.data_only), "{} is both", usage.name);
    }
    let expected = [
        ("by-id", false),
        ("consumer", false),
        ("database", false),
        ("dump", false),
        ("exited-at-once", true),
        ("failed", false),
        ("later", false),
        ("never-started", true),
        ("referenced", true),
        ("scratch", true),
        ("scratch-run", true),
        ("works", false),
    ];
    assert_eq!(by_container, BTreeMap::from(expected));

    let held = inventory.volume(&volume_at(&engine, "referenced", "/data")).expect("listed");
    assert_eq!(users(held), [("consumer", "/data", false), ("later", "/data", true), ("referenced", "/data", true)]);
    assert_eq!(held.kind, Kind::Anonymous, "--volumes-from does not give it a name");
    let states: Vec<&str> = held.used_by.iter().map(|usage| usage.state.as_str()).collect();
    assert_eq!(states, ["running", "created", "running"]);
    let both = inventory.volume("both").expect("listed");
    assert_eq!(both.kind, Kind::Named);
    assert_eq!(users(both), [("consumer", "/both", false), ("later", "/both", false), ("referenced", "/both", false)]);
    assert!(
        both.used_by.iter().all(|usage| usage.named_in_spec == Some(true)),
        "the name is in the source's definition"
    );
    let by_id = inventory.volume(&volume_at(&engine, "never-started", "/data")).expect("listed");
    assert_eq!(users(by_id), [("by-id", "/data", true), ("never-started", "/data", true)]);
}

#[tokio::test]
async fn labels_options_and_projects_are_shown() {
    let engine = TestEngine::start();
    let label = "com.docker.compose.project=shop";
    engine.docker(&["volume", "create", "--label", label, "--label", "empty=", "shop_db"]);
    engine.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]);
    engine.docker(&["create", "--name", "shop_web_1", "--label", label, "-v", "/cache", "-v", "shop_db:/db", BUSYBOX]);
    let inventory = scan(&engine).await;

    let db = inventory.volume("shop_db").expect("listed");
    let labels = [("com.docker.compose.project", "shop"), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(db.labels, BTreeMap::from(labels));
    assert_eq!((db.compose_project.as_deref(), db.driver.as_str()), (Some("shop"), "local"));
    assert_eq!(db.mountpoint, engine.data_root().join("volumes/shop_db/_data").to_str().expect("UTF-8"));
    let cache = inventory.volume(&volume_at(&engine, "shop_web_1", "/cache")).expect("listed");
    assert_eq!(cache.compose_project.as_deref(), Some("shop"), "Compose does not label anonymous volumes");
    let memory = serde_json::to_value(inventory.volume("memory").expect("listed")).expect("JSON");
    assert_eq!(memory["options"], json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}));
    assert_eq!(
        (&memory["kind"], &memory["compose_project"], &memory["used_by"]),
        (&json!("named"), &Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn a_containers_definition_is_kept_whole() {
    let engine = TestEngine::start();
    let arguments = ["--env", "SECRET=s", "--label", "a=b", "--cap-add", "NET_ADMIN", "--restart", "on-failure:3"];
    let mounts = ["-v", "v:/v", "--mount", "type=tmpfs,dst=/t", "-v", "/tmp:/host:ro", "--ulimit", "nofile=10:20"];
    let create = [&["create", "--name", "one"][..], &arguments, &mounts, &[BUSYBOX, "sleep", "1"]].concat();
    engine.docker(&create);
    // The docker command prints what it got from the engine, including what it does not know.
    let mut printed: Vec<Value> = serde_json::from_str(&engine.docker(&["inspect", "one"])).expect("JSON");
    let mut container = connect(&engine).await.container("one").await.expect("inspected").expect("there");
    // The engine lists mounts in a different order each time.
    for raw in [&mut printed[0], &mut container.raw] {
        let mounts = raw["Mounts"].as_array_mut().expect("mounts");
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    assert_eq!(container.raw, printed[0]);
    assert_eq!(container.raw["Config"]["Env"][0], json!("SECRET=s"));
    assert_eq!(container.name, "one");
    assert_eq!(connect(&engine).await.container("none").await.expect("asked"), None);
}

#[tokio::test]
async fn volumes_are_made_and_containers_stopped_and_started() {
    let test = TestEngine::start();
    let engine = connect(&test).await;
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let (labels, options) = (map(&[("a", "b"), ("empty", "")]), map(&[("type", "tmpfs"), ("device", "tmpfs")]));
    let made = engine.create_volume("made", "local", &labels, &options).await.expect("made");
    let seen = engine.volume("made").await.expect("asked").expect("there");
    assert_eq!((made.name.as_str(), &seen.labels, &seen.options), ("made", &labels, &options));
    assert_eq!(engine.volume("mad").await.expect("asked"), None, "the whole name counts");
    assert_eq!(engine.volume("").await.expect("asked"), None);
    assert_eq!(engine.volume("a/b c?d").await.expect("asked"), None);

    let error = engine.create_volume("x", "no-such-driver", &map(&[]), &map(&[])).await.expect_err("no such driver");
    assert!(error.to_string().contains("cannot create volume x on the Docker engine at unix://"), "{error}");
    assert!(error.to_string().contains("no-such-driver"), "{error}");
    let error = engine.create_volume("../x", "local", &map(&[]), &map(&[])).await.expect_err("a bad name");
    assert_eq!(error.kind, EngineErrorKind::Engine);

    test.docker(&["run", "-d", "--name", "one", "--stop-signal", "KILL", BUSYBOX, "sleep", "600"]);
    let running = async || engine.container("one").await.expect("asked").expect("there").is_running();
    assert!(running().await);
    for _ in 0..2 {
        engine.stop_container("one", Some(Duration::from_secs(1))).await.expect("stopped, also when it is already");
        assert!(!running().await);
    }
    for _ in 0..2 {
        engine.start_container("one").await.expect("started, also when it is already");
        assert!(running().await);
    }
    engine.stop_container("one", None).await.expect("stopped");
    let error = engine.start_container("none").await.expect_err("no such container");
    assert_eq!(error.kind, EngineErrorKind::NotFound);
    assert!(error.to_string().contains("none"), "{error}");
}

#[tokio::test]
async fn an_engine_that_goes_away_is_a_clear_error_and_one_that_comes_back_works() {
    let mut test = TestEngine::start();
    test.docker(&["run", "-d", "--name", "one", "-v", "kept:/v", BUSYBOX, "sleep", "600"]);
    let engine = connect(&test).await;
    let info = engine.info().clone();
    assert_eq!(info.root_dir, test.data_root().to_str().expect("UTF-8"));
    assert!(!info.id.is_empty() && !info.name.is_empty() && !info.version.is_empty());
    assert_eq!(info.api_version, test.docker(&["version", "--format", "{{.Server.APIVersion}}"]));

    test.kill();
    let error = Inventory::scan(&engine).await.expect_err("it is gone");
    assert_eq!(error.kind, EngineErrorKind::Absent, "{error}");
    assert!(error.to_string().contains(&test.host()) && error.hint().is_some(), "{error}");
    let options = ConnectOptions { host: Some(test.host()), ..ConnectOptions::default() };
    let error = Engine::connect(&options).await.expect_err("it is gone");
    assert_eq!(error.kind, EngineErrorKind::Absent, "{error}");

    test.restart();
    let inventory = Inventory::scan(&engine).await.expect("the same connection works again");
    assert_eq!(users(inventory.volume("kept").expect("kept")), [("one", "/v", true)]);
    test.docker(&["rm", "-f", "one"]);
    assert!(Inventory::scan(&engine).await.expect("scanned").volume("kept").expect("kept").is_dangling());
}

/// Surroundings in which only these variables are set, on the machine's own files.
fn surroundings(env: &[(&str, &str)]) -> Surroundings {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Surroundings { env, root: "/".into(), superuser: true }
}

#[tokio::test]
async fn the_engine_is_found_as_dockers_own_command_finds_it() {
    let test = TestEngine::start();
    let home = tempfile::tempdir().expect("a folder");
    let config = home.path().to_str().expect("UTF-8");
    let host = test.host();
    // Written by Docker's own command, not by us.
    let context = |arguments: &[&str]| {
        let output =
            Command::new("docker").args(arguments).env("DOCKER_CONFIG", config).env_remove("DOCKER_HOST").output();
        let output = output.expect("the docker command starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    context(&["context", "create", "private", "--docker", &format!("host={host}")]);
    let id = connect(&test).await.info().id.clone();
    let reaches = async |env: &[(&str, &str)]| {
        let endpoint = resolve(None, &surroundings(env)).expect("resolved");
        assert_eq!(endpoint.host, host, "{env:?}");
        let engine = Engine::connect_to(endpoint, Duration::from_secs(60)).await.expect("connected");
        assert_eq!(engine.info().id, id);
        assert!(engine.is_local(), "{:?}", engine.local_reason());
        engine
    };
    reaches(&[("DOCKER_HOST", &host)]).await;
    reaches(&[("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "private")]).await;
    context(&["context", "use", "private"]);
    reaches(&[("DOCKER_CONFIG", config)]).await;
    reaches(&[("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "other"), ("DOCKER_HOST", &host)]).await;
    let pinned = reaches(&[("DOCKER_HOST", &host), ("DOCKER_API_VERSION", "1.40")]).await;
    assert_eq!(pinned.info().api_version, "1.40");
    pinned.volumes().await.expect("the engine still speaks it");

    let endpoint =
        resolve(None, &surroundings(&[("DOCKER_HOST", &host), ("DOCKER_API_VERSION", "1.99")])).expect("resolved");
    let error = Engine::connect_to(endpoint, Duration::from_secs(60)).await.expect_err("newer than the engine");
    assert!(error.to_string().contains("1.99"), "the pinned version is sent: {error}");
}

/// Passes connections on to a socket, and writes down the first line of each request.
fn forward(socket: &Path) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (socket, written) = (socket.to_owned(), Arc::clone(&lines));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (mut client, written) = (client, Arc::clone(&written));
            let mut engine = UnixStream::connect(&socket).expect("the engine listens");
            let mut answers = (engine.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
            std::thread::spawn(move || {
                // Either side may hang up at any time; the test sees it as a failed call.
                let _ = std::io::copy(&mut answers.0, &mut answers.1);
                let _ = answers.1.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut first = true;
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    if std::mem::take(&mut first) {
                        let text = String::from_utf8_lossy(&buffer[..read]);
                        let line = text.lines().next().unwrap_or_default().to_owned();
                        written.lock().expect("not poisoned").push(line);
                    }
                    if engine.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = engine.shutdown(Shutdown::Both);
            });
        }
    });
    (address, lines)
}

#[tokio::test]
async fn an_engine_across_the_network_is_listed_and_its_mountpoints_are_out_of_reach() {
    let test = TestEngine::start();
    test.docker(&["create", "--name", "one", "-v", "vol:/v", BUSYBOX]);
    let (address, lines) = forward(&test.socket());
    let options = ConnectOptions { host: Some(address.clone()), ..ConnectOptions::default() };
    let engine = Engine::connect(&options).await.expect("connected");
    let inventory = Inventory::scan(&engine).await.expect("scanned");
    let volume = inventory.volume("vol").expect("listed");
    assert_eq!(users(volume), [("one", "/v", true)]);

    let error = readable_root(volume, &engine).expect_err("elsewhere");
    assert!(matches!(error, AccessError::OutOfReach { .. }), "{error}");
    assert!(error.to_string().contains(&address) && error.to_string().contains("out of reach"), "{error}");

    let version = &engine.info().api_version;
    let lines = lines.lock().expect("not poisoned").clone();
    assert_eq!(lines[0], "GET /version HTTP/1.1");
    let prefix = format!("GET /v{version}/");
    assert!(lines[1..].iter().all(|line| line.starts_with(&prefix)), "the version is in each request: {lines:?}");
    assert_eq!(lines.len(), 6, "version, info, volumes, unused volumes, containers, one inspection: {lines:?}");
}

#[tokio::test]
async fn content_is_read_where_it_is_or_not_at_all() {
    let test = TestEngine::start();
    let outside = tempfile::tempdir().expect("a folder");
    let device = format!("device={}", outside.path().display());
    test.docker(&["volume", "create", "plain"]);
    test.docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]);
    test.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    test.docker(&["volume", "create", "-o", "type=nfs", "-o", "o=addr=127.0.0.1", "-o", "device=:/x", "remote"]);
    for name in ["plain", "bound"] {
        let mount = format!("{name}:/v");
        test.docker(&["run", "--rm", "-v", &mount, BUSYBOX, "sh", "-c", &format!("echo {name} > /v/file")]);
    }
    let engine = connect(&test).await;
    let inventory = Inventory::scan(&engine).await.expect("scanned");
    let root = |name: &str| readable_root(inventory.volume(name).expect("listed"), &engine);
    for name in ["plain", "bound"] {
        let path = root(name).expect("readable");
        assert_eq!(std::fs::read_to_string(path.join("file")).expect("the file"), format!("{name}\n"));
    }
    assert_eq!(root("bound").expect("readable"), outside.path());
    assert!(matches!(root("memory"), Err(AccessError::Memory { .. })));
    let error = root("remote").expect_err("not mounted");
    assert!(matches!(error, AccessError::NotMounted { .. }), "{error}");

    // What is mounted now is read from there, whatever it is.
    let mountpoint = inventory.volume("remote").expect("listed").mountpoint.clone();
    let mount = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(&mountpoint).status().expect("it starts").success());
    };
    std::fs::create_dir_all(&mountpoint).expect("the mountpoint");
    mount("mount", &["-t", "tmpfs", "stands-for-nfs"]);
    let mounted = root("remote");
    mount("umount", &[]);
    assert_eq!(mounted.expect("readable"), Path::new(&mountpoint));

    drop(outside);
    let error = root("bound").expect_err("its folder is gone");
    assert!(error.to_string().contains("volume bound") && error.to_string().contains("does not exist"), "{error}");
}

/// Makes an authority, a certificate for 127.0.0.1 and one for a client, as Docker's documentation describes it.
fn make_certificates(dir: &Path) {
    let recipe = "set -e; key() { openssl ecparam -name prime256v1 -genkey -noout -out $1; }
        key ca-key.pem; openssl req -x509 -new -key ca-key.pem -subj /CN=authority -days 2 -out ca.pem
        sign() { key $1-key.pem; openssl req -new -key $1-key.pem -subj /CN=$1 -out $1.csr; printf \"$2\" >$1.ext
          openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $1.ext -out $1-cert.pem; }
        sign server 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth'; sign client extendedKeyUsage=clientAuth
        mkdir c; cp ca.pem c/; cp client-cert.pem c/cert.pem; cp client-key.pem c/key.pem; mkdir anonymous; cp ca.pem anonymous/
        mkdir other; cp client-cert.pem other/cert.pem; cp client-key.pem other/key.pem
        openssl req -x509 -new -key ca-key.pem -subj /CN=impostor -days 2 -out other/ca.pem";
    let output = Command::new("sh").args(["-c", recipe]).current_dir(dir).output().expect("sh starts");
    assert!(output.status.success(), "openssl failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Passes connections on to a port of 127.0.0.1 in another network.
fn forward_into(network: &Path, port: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let enter = format!("--net={}", network.display());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let both = [(); 2].map(|()| std::os::fd::OwnedFd::from(client.try_clone().expect("cloned")));
            let [input, output] = both;
            let mut command = Command::new("nsenter");
            command.args([&enter, "busybox", "nc", "127.0.0.1", port]).stdin(input).stdout(output);
            let mut child = command.spawn().expect("nsenter starts");
            std::thread::spawn(move || child.wait());
        }
    });
    address
}

#[tokio::test]
async fn tls_proves_the_engine_and_the_client() {
    let dir = tempfile::tempdir().expect("a folder");
    make_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let [ca, cert, key] = ["ca.pem", "server-cert.pem", "server-key.pem"].map(file);
    let (ca, cert, key) = (format!("--tlscacert={ca}"), format!("--tlscert={cert}"), format!("--tlskey={key}"));
    let test = TestEngine::start_with(&["-H", "tcp://127.0.0.1:2376", "--tlsverify", &ca, &cert, &key]);
    let address = forward_into(&test.network(), "2376");
    let connect = async |certificates: &str| {
        let (certificates, verify) = (file(certificates), "1");
        let env = [("DOCKER_HOST", &*address), ("DOCKER_TLS_VERIFY", verify), ("DOCKER_CERT_PATH", &certificates)];
        let endpoint = resolve(None, &surroundings(&env)).expect("resolved");
        assert!(endpoint.tls.is_some());
        Engine::connect_to(endpoint, Duration::from_secs(20)).await
    };
    let engine = connect("c").await.expect("connected");
    assert!(engine.volumes().await.expect("listed").volumes.is_empty());
    assert_eq!(engine.local_reason(), Some("it is reached over the network"));
    // Engines differ in the alert: BadCertificate, CertificateRequired.
    for (certificates, why) in [("anonymous", "Certificate"), ("other", "UnknownIssuer")] {
        let error = connect(certificates).await.expect_err(certificates);
        assert!(error.to_string().contains(why) && error.to_string().contains(&address), "{certificates}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("DOCKER_CERT_PATH")), "{error}");
    }
}

/// A volume plugin with one volume, whose name and status are as free as plugins may make them.
fn serve_plugin(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket for the plugin");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let read = client.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let volume = json!({"Name": "odd name/ü", "Mountpoint": "/none", "Status": {"lag": 3, "peers": ["a"]}});
            let answer = match request.split_whitespace().nth(1) {
                Some("/Plugin.Activate") => json!({"Implements": ["VolumeDriver"]}),
                Some("/VolumeDriver.Capabilities") => json!({"Capabilities": {"Scope": "global"}}),
                Some("/VolumeDriver.List") => json!({"Volumes": [volume]}),
                Some("/VolumeDriver.Get") if request.contains("odd name") => json!({"Volume": volume}),
                _ => json!({"Err": "no such volume"}),
            };
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            // The engine may have hung up.
            let _ = client.write_all(format!("{head}{answer}").as_bytes());
        }
    });
}

#[tokio::test]
async fn volumes_of_plugins_are_listed_whatever_the_plugin_says() {
    let test = TestEngine::start();
    serve_plugin(&test.plugins().join("odd.sock"));
    test.docker(&["volume", "create", "-d", "odd", "odd name/ü"]);
    let engine = connect(&test).await;
    let volume = engine.volume("odd name/ü").await.expect("asked").expect("there");
    assert_eq!(volume.status, json!({"lag": 3, "peers": ["a"]}));
    let inventory = Inventory::scan(&engine).await.expect("scanned");
    let volume = inventory.volume("odd name/ü").expect("listed");
    assert_eq!((volume.kind, volume.driver.as_str()), (Kind::Named, "odd"));
    let error = readable_root(volume, &engine).expect_err("there is nothing");
    assert!(matches!(error, AccessError::Unreadable { .. }), "{error}");
}

async fn failure_at(host: &str, timeout: Duration) -> EngineError {
    Engine::connect(&ConnectOptions { host: Some(host.to_owned()), timeout }).await.expect_err("no engine")
}

#[tokio::test]
async fn an_engine_that_cannot_be_reached_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("s");
    let host = format!("unix://{}", socket.display());
    let check = async |host: &str, kind: EngineErrorKind, words: &str| {
        let error = failure_at(host, Duration::from_secs(2)).await;
        assert_eq!(error.kind, kind, "{error}");
        let start = format!("cannot reach the Docker engine at {host} (given explicitly): ");
        assert!(error.to_string().starts_with(&start) && error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some(), "{error}");
    };
    check(&host, EngineErrorKind::Absent, "no such socket").await;
    let silent = UnixListener::bind(&socket).expect("a socket");
    check(&host, EngineErrorKind::Timeout, "no answer in time").await;
    drop(silent);
    check(&host, EngineErrorKind::Absent, "nobody listens").await;
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    check(&format!("tcp://{port}"), EngineErrorKind::Absent, "nobody listens").await;
    let ssh = failure_at("ssh://host", Duration::from_secs(2)).await;
    assert_eq!(ssh.kind, EngineErrorKind::Unsupported);
}

/// Names the socket for the second run of the following test, which is done by another user.
const AS_NOBODY: &str = "VOLTOOL_TEST_AS_NOBODY";

#[tokio::test]
async fn a_socket_that_must_not_be_used_is_told_from_one_that_is_not_there() {
    if let Ok(host) = std::env::var(AS_NOBODY) {
        let error = failure_at(&host, Duration::from_secs(5)).await;
        assert_eq!(error.kind, EngineErrorKind::Denied, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("group")), "{error}");
        return;
    }
    // This program again, as a user who may not use the socket, or not even look into its folder.
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    let _listeners = [dir.path().join("s"), closed.join("s")].map(|path| UnixListener::bind(path).expect("a socket"));
    let mode = |path: &Path, mode: &str| {
        assert!(Command::new("chmod").arg(mode).arg(path).status().expect("chmod starts").success());
    };
    mode(dir.path(), "755");
    mode(&dir.path().join("s"), "600");
    mode(&closed, "700");
    for socket in [dir.path().join("s"), closed.join("s")] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command.args(["--exact", "a_socket_that_must_not_be_used_is_told_from_one_that_is_not_there"]);
        let output = command.env(AS_NOBODY, format!("unix://{}", socket.display())).output().expect("setpriv starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", socket.display());
    }
}
