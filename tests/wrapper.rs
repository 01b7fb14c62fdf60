//! The docker command with the guard in front: `voltool docker -- …`, and the link named docker that `guard install` makes.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cli::{Lock, Ran, Sandbox};
use support::engine::{BUSYBOX, SCRATCH};
use support::host::Host;

/// Installs the links into a folder of the sandbox that comes first in `PATH` from now on, and returns the folder.
fn install(sandbox: &mut Sandbox) -> PathBuf {
    let bin = sandbox.folder("bin");
    sandbox.run(["guard", "install", "--dir", bin.to_str().expect("UTF-8")]).ok();
    put_in_front(sandbox, &bin);
    bin
}

fn put_in_front(sandbox: &mut Sandbox, bin: &Path) {
    let path = std::env::var("PATH").expect("a PATH");
    sandbox.set("PATH", &format!("{}:{path}", bin.display()));
}

/// A command line for a shell in the sandbox.
fn shell(sandbox: &Sandbox, line: &str) -> Command {
    let mut command = Command::new("sh");
    sandbox.settle(&mut command);
    command.args(["-c", line]);
    command
}

fn run(sandbox: &Sandbox, line: &str) -> Ran {
    Ran::of(shell(sandbox, line).output().expect("sh starts"))
}

fn script(file: &Path, text: &str) {
    std::fs::write(file, text).expect("written");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("made executable");
}

#[test]
fn install_touches_only_what_is_its_own() {
    let mut sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let bin = sandbox.folder("bin");
    let dir = bin.to_str().expect("UTF-8").to_owned();
    let install = ["guard", "install", "--dir", &dir];

    // Somebody else's command stays.
    script(&bin.join("docker"), "#!/bin/sh\n");
    sandbox.run(install).fails(1, &["voltool did not put it there"]);
    assert!(std::fs::symlink_metadata(bin.join("docker")).expect("there").is_file());
    sandbox.run(["guard", "uninstall", "--dir", &dir]).ok();
    assert!(bin.join("docker").exists());
    std::fs::remove_file(bin.join("docker")).expect("removed");
    symlink("/bin/true", bin.join("docker")).expect("linked");
    sandbox.run(install).fails(1, &["voltool did not put it there"]);
    std::fs::remove_file(bin.join("docker")).expect("removed");

    // A folder that no shell looks into guards nothing, and that is said.
    let ran = sandbox.run(install);
    assert!(ran.err.contains("is not in PATH") && ran.err.contains("export PATH="), "{}", ran.err);
    ran.ok();
    assert_eq!(std::fs::read_link(bin.join("docker")).expect("a link"), Path::new(env!("CARGO_BIN_EXE_voltool")));
    let path = std::env::var("PATH").expect("a PATH");
    let ran = sandbox.run_with("PATH", &format!("{path}:{dir}"), install);
    assert!(ran.err.contains("after the real docker command"), "{}", ran.err);
    put_in_front(&mut sandbox, &bin);
    let ran = sandbox.run(install);
    assert!(ran.err.contains("is there already") && !ran.err.contains("warning"), "{}", ran.err);

    // A link to a voltool that is gone is replaced.
    std::fs::remove_file(bin.join("docker")).expect("removed");
    symlink("/nonexistent/voltool", bin.join("docker")).expect("linked");
    sandbox.run(install).ok();
    assert!(bin.join("docker").exists());
    sandbox.run(["guard", "uninstall", "--dir", &dir]).ok();
    assert_eq!(std::fs::read_dir(&bin).expect("there").count(), 0);
    let ran = sandbox.run(["guard", "uninstall", "--dir", &dir]);
    assert!(ran.err.contains("no docker command of voltool's"), "{}", ran.err);
    ran.ok();
}

#[test]
fn it_never_calls_itself() {
    let mut sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let bin = install(&mut sandbox);
    let docker = bin.join("docker");
    let only = bin.to_str().expect("UTF-8");

    sandbox.run_with("PATH", only, ["docker", "--", "ps"]).fails(1, &["no docker command in PATH other than voltool"]);
    let ran = Ran::of(command(&sandbox, &docker, &["ps"]).env("PATH", only).output().expect("it starts"));
    ran.fails(1, &["no docker command in PATH other than voltool"]);
    let by_name = docker.to_str().expect("UTF-8");
    sandbox.run_with("VOLTOOL_DOCKER", by_name, ["docker", "--", "ps"]).fails(1, &["which is voltool"]);
    sandbox
        .run_with("VOLTOOL_DOCKER", "/nonexistent", ["docker", "--", "ps"])
        .fails_plainly(1, &["cannot run /nonexistent"]);

    // Through a script, which nobody can see through.
    let loops = sandbox.path("loops");
    script(&loops, &format!("#!/bin/sh\nexec {by_name} \"$@\"\n"));
    let ran = sandbox.run_with("VOLTOOL_DOCKER", loops.to_str().expect("UTF-8"), ["docker", "--", "ps"]);
    ran.fails(1, &["leads back to voltool"]);
}

/// A program in the sandbox.
fn command(sandbox: &Sandbox, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    sandbox.settle(&mut command);
    command.args(args);
    command
}

#[test]
fn what_destroys_nothing_is_the_real_docker() {
    let mut host = Host::bare();
    // No settings are looked at: these could not be read.
    host.sandbox.file("config.toml", "this is not TOML");
    host.sandbox.file("good.toml", "");
    let good = host.sandbox.path("good.toml");
    let bin = host.sandbox.folder("bin");
    let args = ["guard", "install", "--dir", bin.to_str().expect("UTF-8")];
    host.sandbox.run_with("VOLTOOL_CONFIG", good.to_str().expect("UTF-8"), args).ok();
    put_in_front(&mut host.sandbox, &bin);
    let sandbox = &host.sandbox;
    let run_busybox = format!("docker run --rm --network none {BUSYBOX}");

    assert_eq!(run(sandbox, &format!("{run_busybox} sh -c 'exit 7'")).code, Some(7));
    assert_eq!(
        sandbox.run(["docker", "--", "run", "--rm", "--network", "none", BUSYBOX, "sh", "-c", "exit 7"]).code,
        Some(7)
    );
    assert_eq!(run(sandbox, "docker no-such-verb").code, Some(1));
    assert_eq!(run(sandbox, "docker volume ls -q").ok(), "");

    // Everything that is piped in arrives.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let line = format!("docker run -i --rm --network none {BUSYBOX} md5sum");
    let file = sandbox.path("bytes");
    std::fs::write(&file, &bytes).expect("written");
    let expected = Command::new("md5sum").arg(&file).output().expect("md5sum starts").stdout;
    // On a loaded machine an engine now and then fails to run an attached container at all; that is tried again.
    let arrived = (0..3).any(|_| {
        let mut child = shell(sandbox, &line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
        let written = child.stdin.take().expect("piped").write_all(&bytes);
        let sum = child.wait_with_output().expect("it ends").stdout;
        written.is_ok() && sum.get(..32) == expected.get(..32)
    });
    assert!(arrived, "what was piped in is not what arrived");

    // A signal to the shim is a signal to docker, which hands it to the container.
    let mut child = command(
        sandbox,
        &bin.join("docker"),
        &[
            "run",
            "--rm",
            "--network",
            "none",
            BUSYBOX,
            "sh",
            "-c",
            "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done",
        ],
    );
    let mut child = child.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "up\n");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("it ends").code(), Some(9));

    // A note is no refusal.
    let ran = run(sandbox, &format!("docker run --rm --network none -v /data {BUSYBOX} true"));
    assert!(ran.err.contains("the volume at /data goes with the container"), "{}", ran.err);
    ran.ok();
}

#[test]
fn nothing_is_lost_through_the_docker_command() {
    let mut host = Host::new();
    install(&mut host.sandbox);
    host.docker(&["create", "--name", "holder", SCRATCH, "x"]);
    let held = host.volume_at("holder", "/data");
    host.write(&held, "file", "held");
    host.volume("db", "orders");
    host.run_container("app", &["-v", "/cache", "-v", "db:/db"]);
    let cached = host.volume_at("app", "/cache");
    host.write(&cached, "file", "cached");
    host.volume("vacant", "still needed");
    let all = [held.as_str(), "db", cached.as_str(), "vacant"];
    let intact = |line: &str| {
        for volume in all {
            assert!(host.has_volume(volume), "{line}: {volume} is gone");
        }
        assert_eq!(
            (host.read(&held, "file"), host.read("vacant", "file")),
            ("held".to_owned(), "still needed".to_owned())
        );
        assert_eq!(host.docker(&["ps", "-aq"]).lines().count(), 2, "{line}: a container is gone");
        assert!(host.is_running("app"), "{line}");
    };

    for (line, texts) in [
        ("docker rm -v holder", &["exists nowhere else", "voltool docker --snapshot -- rm -v holder"][..]),
        ("docker rm holder", &["without a name or an owner"]),
        ("docker rm -fv app holder", &["2 volumes"]),
        ("docker container rm -vf=true app", &["exists nowhere else"]),
        ("docker container remove --force --volumes=1 app", &["exists nowhere else"]),
        ("echo holder | xargs docker rm -v", &["exists nowhere else"]),
        ("docker volume rm vacant", &["'docker volume rm vacant' destroys volume vacant"]),
        ("docker volume remove -f vacant", &["destroys volume vacant"]),
        ("docker volume prune --all --force", &["exists nowhere else"]),
        ("docker system prune -af --volumes", &["exists nowhere else"]),
        ("docker container prune -f", &["without a name"]),
        ("docker rm -fvq app", &["-q in -fvq is not a flag"]),
        ("docker plugin rm -f rclone", &["nobody can look into that"]),
        ("docker volume rm ../volumes/vacant", &["is not a volume's name"]),
        ("voltool docker -- docker rm -v holder", &["'docker rm -v holder' destroys"]),
    ] {
        let line = line.replace("voltool ", &format!("{} ", env!("CARGO_BIN_EXE_voltool")));
        // xargs has an exit code of its own.
        let code = if line.contains("xargs") { 123 } else { 4 };
        run(&host.sandbox, &line).fails(code, texts);
        intact(&line);
    }

    // With --plan nothing is run, and what nothing happens to may go.
    let plan = host.voltool(&["docker", "--plan", "--json", "--", "rm", "-fv", "app"]);
    assert_eq!(plan.code, Some(4), "{}", plan.err);
    let plan: Value = serde_json::from_slice(&plan.out).expect("JSON");
    assert_eq!((&plan["verdict"], &plan["command"]), (&"refuse".into(), &"docker rm -fv app".into()));
    // In the order of their names, and an engine draws this one's at random.
    let of = |name: &str| plan["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == name);
    assert_eq!(of(&cached).expect("the anonymous volume")["action"], "destroy");
    assert!(of("db").is_none_or(|db| db["action"] == "orphan"), "{plan}");
    assert_eq!(host.json(&["docker", "--plan", "--json", "--", "ps"])["verdict"], "allow");
    host.voltool(&["docker", "--plan", "--", "run", BUSYBOX, "false"]).ok();
    intact("--plan");

    // VOLTOOL_GUARD has three values.
    let ran = run(&host.sandbox, "VOLTOOL_GUARD=maybe docker volume rm vacant");
    ran.fails(2, &["VOLTOOL_GUARD is maybe"]);
    run(&host.sandbox, "VOLTOOL_GUARD=on docker volume rm vacant").fails(4, &["destroys volume vacant"]);
    intact("VOLTOOL_GUARD");
    let ran = run(&host.sandbox, "VOLTOOL_GUARD=snapshot docker volume rm vacant");
    assert!(ran.out.ends_with(b"vacant\n"), "{}", ran.err);
    assert!(!host.has_volume("vacant"));
    assert_eq!(host.backed_up(), ["vacant"]);
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("vacant", "file"), "still needed");
    intact("undo");
    // Now it is in a snapshot, and may go; the real docker says what it says.
    assert_eq!(run(&host.sandbox, "docker volume rm vacant").ok(), "vacant\n");
    assert_eq!(run(&host.sandbox, "docker volume rm vacant").code, Some(1));
    assert_eq!(run(&host.sandbox, "docker rm nobody").code, Some(1));

    host.voltool(&["docker", "--lose", "db", "--", "rm", "-fv", "app"]).fails(4, &["exists nowhere else"]);
    host.voltool(&["docker", "--lose", &cached, "--", "rm", "-fv", "app"]).ok();
    assert!(!host.has_volume(&cached) && host.has_volume("db"));

    let ran = run(&host.sandbox, "VOLTOOL_GUARD=off docker rm -v holder");
    assert!(ran.err.contains("VOLTOOL_GUARD=off: 'docker rm -v holder' runs unguarded"), "{}", ran.err);
    ran.ok();
    assert!(!host.has_volume(&held));
}

#[test]
fn the_engine_that_is_judged_is_the_one_that_is_meant() {
    let mut host = Host::new();
    install(&mut host.sandbox);
    host.volume("db", "orders");
    let engine = host.engine.host();
    host.sandbox.set("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let sandbox = &host.sandbox;
    let refused = |line: &str| {
        run(sandbox, line).fails(4, &["destroys volume db"]);
        assert_eq!(host.read("db", "file"), "orders", "{line}");
    };
    run(sandbox, "docker volume rm db").fails(1, &["/nonexistent/docker.sock"]);
    refused(&format!("docker -H {engine} volume rm db"));
    refused(&format!("docker -H{engine} --log-level error volume rm db"));
    refused(&format!("docker --host={engine} volume rm db"));
    // What voltool itself was told is not what docker will talk to.
    sandbox.run(["-H", &engine, "docker", "--", "volume", "rm", "db"]).fails(2, &["is not handed on"]);

    run(sandbox, &format!("docker context create far --docker host={engine}")).ok();
    refused("docker --context far volume rm db");
    refused("DOCKER_HOST= DOCKER_CONTEXT=far docker volume rm db");
    let elsewhere = sandbox.folder("settings");
    let settings = elsewhere.display();
    run(sandbox, &format!("docker --config {settings} context create near --docker host={engine}")).ok();
    refused(&format!("docker --config {settings} -c near volume rm db"));
    run(sandbox, "docker -c near volume rm db").fails(1, &["near", "does not exist"]);
    run(sandbox, &format!("docker -H {engine} -c far volume rm db")).fails(4, &["more than one engine"]);
    run(sandbox, &format!("docker --tlscacert x -H {engine} volume rm db")).fails(4, &["--tlscacert"]);

    // Filters in Docker's own settings: with this one, what has no label `other` is pruned in spite of the label `keep`.
    host.docker(&["volume", "create", "--label", "keep", "kept"]);
    host.write("kept", "file", "kept");
    host.docker(&["run", "--name", "user", "--network", "none", "-v", "db:/db", BUSYBOX, "true"]);
    let prune = format!("docker --config {settings} -H {engine} volume prune -f --filter label!=keep");
    std::fs::write(elsewhere.join("config.json"), r#"{"pruneFilters":["label!=other"]}"#).expect("written");
    // Since API 1.42 the engine takes only anonymous ones, and all if it is asked to.
    let all = if host.docker(&["version", "--format", "{{.Server.APIVersion}}"]) == "1.41" { "" } else { " -a" };
    run(sandbox, &format!("{prune}{all}")).fails(4, &["destroys volume kept"]);
    assert_eq!(host.read("kept", "file"), "kept");
    // Without it, that label protects.
    std::fs::write(elsewhere.join("config.json"), "{}").expect("written");
    run(sandbox, &format!("{prune}{all}")).ok();
    assert_eq!(host.read("kept", "file"), "kept");
}

/// Whether this process ignores SIGHUP, the first of the signals.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a line of status");
    u64::from_str_radix(ignored.trim(), 16).expect("a mask") & 1 != 0
}

#[test]
fn a_guarded_command_is_still_the_real_docker() {
    let mut host = Host::new();
    let fake = host.sandbox.path("fake-docker");
    host.sandbox.set("VOLTOOL_DOCKER", fake.to_str().expect("UTF-8"));
    host.docker(&["create", "--name", "harmless", BUSYBOX]);
    // It gets the arguments and standard input as they are, and its exit code is ours.
    script(&fake, "#!/bin/sh\nfor word; do echo \"<$word>\"; done\ncat\necho said >&2\nexit 42\n");
    let mut child = host.sandbox.command(["docker", "--", "rm", "harmless", "-f"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool starts");
    child.stdin.take().expect("piped").write_all(b"y\n").expect("written");
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!(
        (ran.code, ran.out.as_slice(), ran.err.as_str()),
        (Some(42), &b"<rm>\n<harmless>\n<-f>\ny\n"[..], "said\n")
    );

    // A signal that is sent to voltool alone reaches it, and it may take its time.
    for (signal, name, code) in [(Signal::TERM, "TERM", 9), (Signal::INT, "INT", 9), (Signal::HUP, "HUP", 9)] {
        // What was ignored when a shell began cannot be caught in it: the tests may have been started by nohup.
        if signal == Signal::HUP && hangups_are_ignored() {
            continue;
        }
        script(
            &fake,
            &format!("#!/bin/sh\ntrap 'echo got {name}; exit 9' {name}\necho up\nwhile :; do sleep 0.1; done\n"),
        );
        let mut child = host.sandbox.command(["docker", "--", "rm", "harmless"]);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("read");
        kill_process(Pid::from_child(&child), signal).expect("sent");
        out.read_to_string(&mut line).expect("read");
        assert_eq!(line, format!("up\ngot {name}\n"));
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{name}");
    }
    // One that a signal ends has a shell's code for it.
    script(&fake, "#!/bin/sh\nkill -KILL $$\n");
    assert_eq!(host.voltool(&["docker", "--", "rm", "harmless"]).code, Some(137));
}

/// A project in a folder of the sandbox, as people write it.
const PROJECT: &str = r#"
version: "2.4"
services:
  db:
    image: voltool-test/busybox
    command: sleep 600
    stop_signal: SIGKILL
    network_mode: none
    volumes: ["data:/data", "made:/made", "given:/given", "/anonymous"]
  web:
    image: voltool-test/busybox
    command: sleep 600
    stop_signal: SIGKILL
    network_mode: none
volumes:
  data:
  made:
    name: made-before
  given:
    external: true
    name: given
"#;

#[test]
fn nothing_is_lost_through_compose() {
    let mut host = Host::new();
    install(&mut host.sandbox);
    let shop = host.sandbox.folder("Shop.1");
    std::fs::write(shop.join("docker-compose.yml"), PROJECT).expect("written");
    // Not made by Compose, which removes it all the same; and one that it never removes.
    host.volume("made-before", "by hand");
    host.volume("given", "external");
    let sandbox = &host.sandbox;
    let here = format!("cd {} && ", shop.display());
    run(sandbox, &format!("{here} docker-compose up -d")).ok();
    let container = host.docker(&["ps", "-q", "--filter", "label=com.docker.compose.service=db"]);
    host.write("shop1_data", "file", "orders");
    let anonymous = host.volume_at(&container, "/anonymous");
    host.write(&anonymous, "file", "anonymous");

    let refused = |line: &str, text: &str| {
        run(sandbox, &format!("{here} {line}")).fails(4, &[text]);
        assert_eq!(host.read("shop1_data", "file"), "orders", "{line}");
        assert_eq!(host.read("made-before", "file"), "by hand", "{line}");
        assert_eq!(host.volume_at(&container, "/anonymous"), anonymous, "{line}");
        assert!(host.is_running(&container), "{line}");
    };
    refused("docker-compose down -v", "destroys 3 volumes");
    refused("cd / && docker-compose -f $OLDPWD/docker-compose.yml down -v", "destroys 3 volumes");
    refused(
        "cd / && docker-compose --project-directory $OLDPWD -f $OLDPWD/docker-compose.yml down -v",
        "destroys 3 volumes",
    );
    refused("mkdir -p below && cd below && docker-compose down -v", "destroys 3 volumes");
    refused("docker-compose down", "without a name");
    refused("docker-compose rm -fsv db", "exists nowhere else");
    refused("docker-compose up -d -V", "without a name");
    refused("docker-compose up -d --renew", "is not a flag");
    refused("docker-compose -f - down -v < docker-compose.yml", "standard input");
    // By the labels, also where there is no Compose that could be asked.
    refused("docker compose -p shop1 down -v", "destroys 2 volumes");
    refused("docker compose down -v", "destroys 2 volumes");
    refused("COMPOSE_PROJECT_NAME=shop1 docker compose down --volumes=true", "destroys 2 volumes");
    // Another project, of which nothing is there.
    run(sandbox, &format!("{here} docker-compose -p other rm -fsv")).ok();

    // What removes nothing passes, and what has no volumes may go.
    run(sandbox, &format!("{here} docker-compose stop web")).ok();
    run(sandbox, &format!("{here} docker-compose rm -fsv web")).ok();
    assert_eq!(host.docker(&["ps", "-aq"]).lines().count(), 1);

    let ran = run(sandbox, &format!("{here} VOLTOOL_GUARD=snapshot docker-compose down -v"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!host.has_volume("shop1_data") && !host.has_volume("made-before") && host.has_volume("given"));
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("shop1_data", "file"), "orders");
    assert_eq!(host.read("made-before", "file"), "by hand");
    assert_eq!(host.read(&anonymous, "file"), "anonymous");
}

#[test]
fn without_settings_or_an_engine_what_removes_is_refused() {
    let mut sandbox = Sandbox::new(Lock::None);
    install(&mut sandbox);
    run(&sandbox, "docker rm -v db").fails(1, &["/nonexistent/docker.sock"]);
    sandbox.file("config.toml", "this is not TOML");
    run(&sandbox, "docker rm -v db").fails_plainly(2, &["config.toml"]);
    // The way out is open: it is the real docker that fails then.
    let ran = run(&sandbox, "VOLTOOL_GUARD=off docker rm -v db");
    assert!(ran.code == Some(1) && ran.err.contains("runs unguarded"), "{}", ran.err);
}
