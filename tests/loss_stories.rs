//! How people have lost data, each story a test with its name, and the nine ways to lose a data-only container.
//!
//! The stories are users' reports from the trackers of the projects that they name. Where a story has another home, it is named there:
//! a restore over live data is in `docker_restore`, a lost host in `docker_e2e`, a database beside its volume (postgres 18) and a renamed
//! project in `audit`.

#[path = "authz/guarded.rs"]
mod guarded;
mod support;

use std::process::Command;

use guarded::Guarded;
use support::cli::Ran;
use support::engine::BUSYBOX;
use support::host::Host;
use support::raw_api;

/// Puts the docker command that asks the guard in front of the real one, for shells in the sandbox.
fn install(host: &mut Host) {
    let bin = host.sandbox.folder("bin");
    host.sandbox.run(["guard", "install", "--dir", bin.to_str().expect("UTF-8")]);
    let path = std::env::var("PATH").expect("a PATH");
    host.sandbox.set("PATH", &format!("{}:{path}", bin.display()));
}

/// Runs a line in a shell, as a person or a script would.
fn sh(host: &Host, line: &str) -> Ran {
    let mut command = Command::new("sh");
    host.sandbox.settle(&mut command);
    Ran::of(command.args(["-c", line]).output().expect("sh starts"))
}

/// A data-only container whose anonymous volume has content, and a consumer of it that has run. Returns the volume's name.
fn seed(host: &Host) -> String {
    host.docker(&["create", "--name", "data", "-v", "/data", BUSYBOX, "true"]);
    let volume = host.volume_at("data", "/data");
    host.docker(&["run", "--name", "app", "--network", "none", "--volumes-from", "data", BUSYBOX, "true"]);
    host.write(&volume, "file", "precious");
    volume
}

/// A Compose project with one service on a named volume, which has content and runs. Returns the folder.
fn compose(host: &Host) -> String {
    let folder = host.sandbox.folder("shop");
    let file = format!(
        "version: '2.4'\nservices:\n  db:\n    image: {BUSYBOX}\n    command: sleep 600\n    network_mode: none\n    stop_signal: SIGKILL\n    \
         volumes: ['data:/data']\nvolumes:\n  data: {{}}\n"
    );
    std::fs::write(folder.join("docker-compose.yml"), file).expect("written");
    let folder = folder.to_str().expect("UTF-8").to_owned();
    host.docker_compose(&folder, "up -d").ok();
    host.write("shop_data", "file", "a year of work");
    folder
}

trait Compose {
    fn docker_compose(&self, folder: &str, line: &str) -> Ran;
}

impl Compose for Host {
    /// Debian's docker-compose, as it stands in `PATH`: behind the guard, if that is there.
    fn docker_compose(&self, folder: &str, line: &str) -> Ran {
        sh(self, &format!("cd {folder} && docker-compose {line}"))
    }
}

/// Ways to lose a data-only container's data with the docker command; `VOLUME` stands for the volume's name. The last consumer, Compose
/// and the bare socket have places of their own below.
const WAYS: &[(&str, &str)] = &[
    ("rm -fv", "docker rm -fv app data"),
    ("volume rm", "docker rm app data; docker volume rm VOLUME"),
    ("volume prune", "docker rm app data; docker volume prune -f"),
    ("system prune --volumes", "docker system prune -f --volumes"),
    ("container prune, then volume prune", "docker container prune -f; docker volume prune -f"),
    ("a script with xargs", "docker ps -aq | xargs docker rm -fv"),
];

#[test]
fn nine_ways_to_lose_data_with_the_wrapper() {
    let mut host = Host::new();
    install(&mut host);
    let volume = seed(&host);
    for (name, line) in WAYS {
        let ran = sh(&host, &line.replace("VOLUME", &volume));
        assert!(
            ran.err.contains("exists nowhere else") && ran.err.contains("nothing was removed"),
            "{name}: {}",
            ran.err
        );
        assert_eq!(host.read(&volume, "file"), "precious", "{name}");
        assert_eq!(host.docker(&["ps", "-aq"]).lines().count(), 2, "{name}");
    }
    // -a is a flag of newer docker commands; the guard knows it whatever the real one does.
    sh(&host, "docker rm -v app && docker volume prune -a -f");
    assert_eq!(host.read(&volume, "file"), "precious");

    // The same with a snapshot first; and everything back.
    let ran = sh(&host, "VOLTOOL_GUARD=snapshot docker rm -fv data");
    assert_eq!((ran.code, host.has_volume(&volume)), (Some(0), false), "{}", ran.err);
    host.ok(&["undo", "latest"]);
    assert_eq!((host.read(&volume, "file").as_str(), host.volume_at("data", "/data")), ("precious", volume.clone()));

    // The last consumer, after the one that held the data was removed with an engine's own command.
    host.docker(&[
        "run",
        "--name",
        "last",
        "--network",
        "none",
        "--volumes-from",
        "data",
        BUSYBOX,
        "sh",
        "-c",
        "echo new >/data/new",
    ]);
    host.docker(&["rm", "data"]);
    let ran = sh(&host, "docker rm -v last");
    ran.fails(4, &["exists nowhere else"]);
    assert_eq!(host.read(&volume, "new"), "new\n");
    sh(&host, "VOLTOOL_GUARD=snapshot docker rm -v last").ok();
    host.ok(&["undo", "latest"]);
    assert_eq!((host.read(&volume, "file").as_str(), host.read(&volume, "new").as_str()), ("precious", "new\n"));
}

#[test]
fn nine_ways_to_lose_data_with_the_engine_asking() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    for (name, line) in WAYS {
        let volume = seed(host);
        let ran = sh(host, &line.replace("VOLUME", &volume));
        assert!(ran.err.contains("authorization denied by plugin voltool"), "{name}: {}", ran.err);
        assert_eq!(host.read(&volume, "file"), "precious", "{name}");
        // One of the two containers may go, whichever the engine is asked about first, since the other one still holds the volume.
        assert!(!host.docker(&["ps", "-aq"]).is_empty(), "{name}");
        // Backed up, they may all go.
        host.ok(&["backup"]);
        for container in host.docker(&["ps", "-aq"]).lines() {
            host.docker(&["rm", "-fv", container]);
        }
        assert!(!host.has_volume(&volume), "{name}");
    }
    let volume = seed(host);
    for target in [
        "/v1.41/containers/data?v=1&force=1".to_owned(),
        format!("/volumes/{volume}?force=1"),
        format!("/v1.41/%76olumes/{volume}"),
    ] {
        host.docker(&["rm", "-f", "app"]);
        let answer = raw_api::call(&host.engine.socket(), "DELETE", &target, None);
        assert!(answer.status == 403 || answer.status == 409, "{target}: {answer:?}");
        host.docker(&["run", "--name", "app", "--network", "none", "--volumes-from", "data", BUSYBOX, "true"]);
        assert_eq!(host.read(&volume, "file"), "precious", "{target}");
    }
    let answer = raw_api::call(&host.engine.socket(), "POST", "/v1.41/volumes/prune", None);
    assert_eq!(answer.status, 200, "nothing is unused, so nothing is refused: {answer:?}");
    host.docker(&["rm", "app"]);

    host.ok(&["rm", "-v", "data", "--snapshot"]);
    assert!(!host.has_volume(&volume));
    host.ok(&["undo", "latest"]);
    assert_eq!((host.read(&volume, "file").as_str(), host.volume_at("data", "/data")), ("precious", volume.clone()));

    // What is allowed from elsewhere can be undone too. The container names its volume now, so it has to be removed by itself.
    host.docker(&["rm", "-v", "data"]);
    host.docker(&["volume", "rm", &volume]);
    assert!(!host.has_volume(&volume));
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read(&volume, "file"), "precious");
}

/// owncloud/client#7358, appwrite#5042, docker/compose#6468: `down -v` to fix a crash loop, or from a tutorial.
#[test]
fn compose_down_v_to_fix_a_crash_loop() {
    let mut host = Host::new();
    install(&mut host);
    let folder = compose(&host);
    host.docker_compose(&folder, "down -v").fails(4, &["destroys volume shop_data", "exists nowhere else"]);
    assert_eq!(host.read("shop_data", "file"), "a year of work");
    assert_eq!(host.docker(&["ps", "-q"]).lines().count(), 1, "it still runs");
    // Without -v nothing is lost.
    host.docker_compose(&folder, "down").ok();
    host.docker_compose(&folder, "up -d").ok();
    assert_eq!(host.read("shop_data", "file"), "a year of work");

    let ran = sh(&host, &format!("cd {folder} && VOLTOOL_GUARD=snapshot docker-compose down -v"));
    assert_eq!((ran.code, host.has_volume("shop_data")), (Some(0), false), "{}", ran.err);
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("shop_data", "file"), "a year of work");
    assert_eq!(host.docker(&["ps", "-q"]).lines().count(), 1, "and what ran runs again");
}

/// The same where Compose talks to an engine that asks.
#[test]
fn compose_down_v_from_a_program_that_nobody_wraps() {
    let guarded = Guarded::new();
    let folder = compose(&guarded.host);
    let ran = guarded.host.docker_compose(&folder, "down -v");
    assert!(ran.err.contains("authorization denied by plugin voltool") && ran.err.contains("shop_data"), "{}", ran.err);
    assert_eq!(guarded.host.read("shop_data", "file"), "a year of work");
}

/// moby#40693, #31757, docker/cli#3742: `system prune --volumes` while another stack is stopped; before 23.0 that took named volumes.
#[test]
fn system_prune_volumes_with_another_stack_stopped() {
    let mut host = Host::new();
    install(&mut host);
    host.docker(&["create", "--name", "shop", "-v", "shop_db:/db", "-v", "/uploads", BUSYBOX]);
    let uploads = host.volume_at("shop", "/uploads");
    host.write("shop_db", "file", "orders");
    host.write(&uploads, "file", "pictures");
    // As a coding agent types it (anthropics/claude-code#41357): no terminal, no prompt, all flags.
    sh(&host, "docker system prune -af --volumes </dev/null").fails(4, &["exists nowhere else"]);
    sh(&host, "yes | docker system prune --volumes").fails(4, &["exists nowhere else"]);
    assert_eq!((host.read("shop_db", "file").as_str(), host.read(&uploads, "file").as_str()), ("orders", "pictures"));
    assert_eq!(host.docker(&["ps", "-aq"]).lines().count(), 1);
}

/// moby#41686, #38883: an engine that was restarted under running containers does not count them any more, and prunes their volumes.
#[test]
fn volume_prune_with_live_restore_takes_what_is_in_use() {
    let mut host = Host::new();
    std::fs::write(host.engine.data_root().with_file_name("daemon.json"), r#"{"live-restore": true}"#)
        .expect("written");
    host.engine.restart();
    std::fs::write(host.sandbox.path("config.toml"), {
        let text = std::fs::read_to_string(host.sandbox.path("config.toml")).expect("read");
        format!("{text}\n[guard]\ngrace = \"0s\"\n")
    })
    .expect("written");
    host.run_container("db", &["--restart", "always", "-v", "db:/db", "-v", "/cache"]);
    let cache = host.volume_at("db", "/cache");
    host.write("db", "file", "orders");
    host.write(&cache, "file", "cached");
    host.engine.kill();
    host.engine.restart();
    install(&mut host);
    host.ok(&["volume", "prune", "-a", "-f"]);
    sh(&host, "docker volume prune -f");
    assert_eq!((host.read("db", "file").as_str(), host.read(&cache, "file").as_str()), ("orders", "cached"));
    // Backed up or not: it is in use.
    host.ok(&["backup"]);
    host.ok(&["volume", "prune", "-a", "-f"]);
    assert!(host.has_volume("db") && host.has_volume(&cache));
}

/// coolify#6286, dokploy#3188, nextcloud/all-in-one#63: a prune from cron in the moment in which a container is made anew.
#[test]
fn cron_prunes_while_a_container_is_made_anew() {
    let mut host = Host::new();
    install(&mut host);
    host.run_container("db", &["-v", "db:/db"]);
    host.write("db", "file", "orders");
    host.ok(&["backup"]);
    host.write("db", "file", "more orders");
    host.docker(&["rm", "-f", "db"]);
    // Now cron comes. On an engine of today the default spares named volumes; what takes them is refused.
    sh(&host, "docker volume prune -f");
    sh(&host, "docker volume ls -qf dangling=true | xargs -r docker volume rm");
    assert_eq!(host.read("db", "file"), "more orders");
    // voltool's own prune leaves alone what was used a moment ago, backed up or not.
    host.ok(&["backup"]);
    let ran = host.voltool(&["volume", "prune", "-a", "-f"]);
    assert!(ran.err.contains("db is left alone: it was used"), "{}", ran.err);
    assert_eq!(host.read("db", "file"), "more orders");
}

/// coolify#9582: a database dies of its memory limit, `container prune` takes the container, and a collector the nameless volume.
#[test]
fn container_prune_after_a_crash() {
    let mut host = Host::new();
    install(&mut host);
    host.docker(&[
        "run",
        "--name",
        "db",
        "--network",
        "none",
        "-v",
        "/db",
        BUSYBOX,
        "sh",
        "-c",
        "echo orders >/db/file; kill -9 $$",
    ]);
    let volume = host.volume_at("db", "/db");
    sh(&host, "docker container prune -f && docker volume prune -f").fails(4, &["leaves without a name or an owner"]);
    assert_eq!(host.read(&volume, "file"), "orders\n");
    assert_eq!(host.volume_at("db", "/db"), volume);
}

/// moby#17907: `run --rm` with a volume that nobody named: the engine removes it by itself, and nobody is asked.
#[test]
fn run_rm_takes_its_anonymous_volume_along() {
    let mut host = Host::new();
    install(&mut host);
    host.volume("seeded", "content");
    let run = format!("docker run --rm --network none -v seeded:/s -v /scratch {BUSYBOX} true");
    let ran = sh(&host, &run);
    assert!(ran.err.contains("/scratch"), "a note says which path is meant: {}", ran.err);
    ran.ok();
    assert_eq!(host.read("seeded", "file"), "content");
}

/// moby#5742, #9878, #14438: `docker rm -f $(docker ps -aq)` takes the data-only container too.
#[test]
fn rm_f_ps_aq_takes_the_data_only_container() {
    let mut host = Host::new();
    install(&mut host);
    let volume = seed(&host);
    sh(&host, "docker rm -f $(docker ps -aq)").fails(4, &["leaves without a name or an owner"]);
    assert_eq!(host.volume_at("data", "/data"), volume);
    assert_eq!(host.read(&volume, "file"), "precious");
}

/// moby#6504, docker-library/mysql#255: the container is gone; which of two hundred hexadecimal names was the database?
#[test]
fn which_of_the_hexadecimal_names_was_it() {
    let host = Host::new();
    host.docker(&[
        "create",
        "--name",
        "db",
        "--label",
        "com.docker.compose.project=shop",
        "-v",
        "/var/lib/db",
        BUSYBOX,
    ]);
    let volume = host.volume_at("db", "/var/lib/db");
    host.write(&volume, "file", "orders");
    host.ok(&["ls"]);
    host.docker(&["rm", "db"]);
    let list = host.ok(&["ls"]);
    let line = list.lines().find(|line| line.contains(&volume[..12])).expect("listed");
    assert!(line.contains("db") && line.contains(BUSYBOX), "{line}");
    let history = host.ok(&["history", &volume[..12]]);
    for text in ["db", BUSYBOX, "/var/lib/db", "shop"] {
        assert!(history.contains(text), "{text} is not in {history}");
    }
}

/// chadoe/docker-cleanup-volumes#19, spotify/docker-gc#90: a script removes what "dangles", and that was the stopped stack's.
#[test]
fn a_cleanup_script_removes_what_dangles() {
    let mut host = Host::new();
    install(&mut host);
    host.volume("archive", "ten years");
    let script = "for v in $(docker volume ls -qf dangling=true); do docker volume rm $v || exit; done";
    sh(&host, script).fails(4, &["destroys volume archive"]);
    assert_eq!(host.read("archive", "file"), "ten years");
}

/// watchtower#410, #476: an updater makes a container anew without its anonymous volume, and removes the old one.
#[test]
fn an_updater_makes_a_container_anew_without_its_anonymous_volume() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.docker(&[
        "run",
        "-d",
        "--name",
        "wiki",
        "--network",
        "none",
        "--stop-signal",
        "KILL",
        "-v",
        "/pages",
        BUSYBOX,
        "sleep",
        "600",
    ]);
    let volume = host.volume_at("wiki", "/pages");
    host.write(&volume, "file", "pages");
    let api = |method: &str, target: &str| raw_api::call(&host.engine.socket(), method, target, None);
    assert_eq!(api("POST", "/containers/wiki/stop").status, 204);
    let answer = api("DELETE", "/containers/wiki?v=1");
    assert!(answer.status == 403 && answer.body.contains("voltool backup"), "{answer:?}");
    let answer = api("DELETE", "/containers/wiki");
    assert!(answer.status == 403 && answer.body.contains("without a name"), "{answer:?}");
    assert_eq!(host.volume_at("wiki", "/pages"), volume);
}
