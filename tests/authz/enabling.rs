//! Putting the guard into an engine and taking it out, and what happens when the daemon is gone.

use std::time::Duration;

use serde_json::{Value, json};
use voltool::plugin::client;

use crate::guarded::Guarded;
use crate::support::cli::{Ran, Sandbox};
use crate::support::engine::SCRATCH;

#[test]
fn the_guard_goes_into_an_engine_and_out_of_it() {
    let mut guarded = Guarded::not_yet();
    std::fs::write(guarded.config_file(), "{\n  \"debug\": false\n}\n").expect("written");
    guarded.host.volume("db", "content");

    // Without the daemon the engine would end.
    guarded.guard("enable").fails(1, &["does not answer", "start it first"]);
    assert_eq!(config(&guarded), "{\n  \"debug\": false\n}\n");
    guarded.guard("status").ok();

    guarded.start_daemon();
    let enabled = guarded.guard("enable");
    assert!(
        enabled.err.contains("the engine refuses every request") && enabled.err.contains("guard disable"),
        "{}",
        enabled.err
    );
    enabled.ok();
    assert_eq!(config(&guarded), "{\n  \"debug\": false,\n  \"authorization-plugins\": [\"voltool\"]\n}\n");
    let status: Value = serde_json::from_str(&guarded.guard_with("status", &["--json"]).ok()).expect("JSON");
    assert_eq!((&status["configured"], &status["asked"], &status["flag"]), (&json!(true), &json!(true), &json!(false)));
    guarded.refused(&["volume", "rm", "db"]);
    guarded.guard("enable").ok();

    // Gone without a word: nothing is answered any more, and it is enough to start it again.
    guarded.kill_daemon();
    let answer = guarded.call("GET", "/v1.41/info");
    assert_eq!(answer.status, 500, "{}", answer.body);
    guarded.start_daemon();
    guarded.host.docker(&["ps"]);
    guarded.refused(&["volume", "rm", "db"]);

    // Stopped in an orderly way: the way out works all the same.
    assert_eq!(guarded.stop_daemon(), Some(0));
    assert!(!guarded.plugin_socket().exists());
    let disabled = guarded.guard("disable");
    assert!(disabled.err.contains("no longer asks"), "{}", disabled.err);
    disabled.ok();
    assert_eq!(config(&guarded), "{\n  \"debug\": false\n}\n");
    guarded.host.docker(&["volume", "rm", "db"]);
    guarded.guard("disable").ok();
    guarded.guard("status").ok();
    let beside = std::fs::read_dir(guarded.config_file().parent().expect("a folder")).expect("listed");
    let copies =
        beside.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().contains("voltool-backup-")));
    assert_eq!(copies.count(), 2);
}

fn config(guarded: &Guarded) -> String {
    std::fs::read_to_string(guarded.config_file()).expect("there")
}

#[test]
fn a_decision_that_cannot_be_made_in_time_is_a_refusal() {
    // A storage that takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut guarded = Guarded::not_yet();
    let sandbox = &mut guarded.host.sandbox;
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    for (name, value) in [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_REGION", "r"),
    ] {
        sandbox.set(name, value);
    }
    sandbox.file("config.toml", "repo = \"s3://bucket/prefix\"\n[guard]\ntimeout = \"2s\"\n");
    guarded.start_daemon();
    guarded.guard("enable").ok();
    let host = &guarded.host;
    host.volume("db", "content");
    let said = guarded.refused(&["volume", "rm", "db"]);
    assert!(said.contains("within 2s") && said.contains("guard.timeout"), "{said}");
    assert!(host.has_volume("db"));
    // What loses nothing does not wait for the storage.
    host.docker(&["create", "--name", "user", "-v", "db:/data", SCRATCH, "none"]);
    host.docker(&["rm", "-v", "user"]);
    assert!(host.has_volume("db"));
}

#[test]
fn systemd_may_pass_the_socket() {
    let sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let socket = sandbox.path("passed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let mut command = sandbox.command(["daemon", "--plugin", "--socket", "-"]);
    let mut daemon = command.stdin(std::os::fd::OwnedFd::from(listener)).spawn().expect("voltool starts");
    // Queued until the daemon is there, as systemd has it.
    client::is_authz(&socket, Duration::from_secs(30)).expect("it answers");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(daemon.wait().expect("gone").code(), Some(0));
    assert!(socket.exists(), "it is systemd's");
}

#[test]
fn parts_that_do_not_fit_together_are_told() {
    let sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let socket = sandbox.path("voltool.sock");
    let guard = |verb: &str, config: &str, pid: &str| -> Ran {
        let config = sandbox.file("daemon.json", config);
        let pidfile = sandbox.file("docker.pid", pid);
        let args = [
            "guard",
            verb,
            "--config-file",
            &config,
            "--pidfile",
            &pidfile,
            "--socket",
            socket.to_str().expect("UTF-8"),
        ];
        sandbox.run(args)
    };
    let named = r#"{"authorization-plugins": ["voltool"]}"#;
    guard("status", named, "").fails(1, &["refuses every request", "guard disable"]);
    guard("status", "{}", "0").ok();
    guard("status", "{", "0").fails(1, &["it is not JSON"]);
    // A process that is no engine gets no signal.
    let own = std::process::id().to_string();
    guard("enable", "{}", &own).fails(1, &["which is no engine"]);
    guard("disable", named, &own).fails(1, &["which is no engine"]);
    guard("enable", "{}", "x").fails(1, &["it holds no process id"]);

    // An engine's flags are read from its command line.
    let fake = sandbox.path("dockerd");
    std::os::unix::fs::symlink("/bin/busybox", &fake).expect("linked");
    let start = |arguments: &str| {
        let line = format!("exec -a {} /bin/sh -c 'read x' {arguments}", fake.display());
        let child = std::process::Command::new("bash").args(["-c", &line]).stdin(std::process::Stdio::piped()).spawn();
        let child = child.expect("bash starts");
        // Until the shell has become the other program.
        while !std::fs::read_to_string(format!("/proc/{}/cmdline", child.id()))
            .unwrap_or_default()
            .starts_with(fake.to_str().expect("UTF-8"))
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    };
    for (arguments, texts) in [
        ("--authorization-plugin=voltool", ["--authorization-plugin", "would not start"]),
        ("--authorization-plugin other", ["--authorization-plugin", "would not start"]),
        ("--config-file=/elsewhere.json", ["does not read", "/elsewhere.json"]),
    ] {
        let mut engine = start(arguments);
        guard("enable", "{}", &engine.id().to_string()).fails(1, &texts);
        drop(engine.stdin.take());
        engine.wait().expect("ended");
    }

    std::fs::write(&socket, "a file").expect("written");
    sandbox.run(["daemon", "--plugin", "--socket", socket.to_str().expect("UTF-8")]).fails(1, &["is no socket"]);
    sandbox.run(["daemon", "--plugin", "--socket", "-"]).fails(1, &["no unix socket that listens"]);
    let config = sandbox.file("daemon.json", "{}");
    let none = sandbox.run(["guard", "disable", "--no-reload", "--config-file", &config, "--pidfile", "/nonexistent"]);
    none.ok();
}
