//! The daemon is killed: at every step that it takes, and at random. Afterwards everything is as `driver::Step` says.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use voltool::driver::Step;

use crate::support::engine::BUSYBOX;
use crate::support::plugin_host::PluginHost;

/// The notes for `voltool undo` in which that volume is.
fn notes(host: &PluginHost, volume: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(&host.voltool(&["undo", "--json"]).ok()).expect("JSON");
    all.into_iter().filter(|note| note["volumes"][0]["definition"]["name"] == volume).collect()
}

/// Whether the driver has the volume, and in what state.
fn state(host: &PluginHost, volume: &str) -> Option<String> {
    let answer = host.ask("VolumeDriver.Get", &json!({"Name": volume}));
    let state = answer.json()["Volume"]["Status"]["state"].as_str().map(str::to_owned);
    assert_eq!(answer.status == 200, state.is_some(), "{answer:?}");
    state
}

/// Asserts that nothing is left over that belongs to no volume.
#[track_caller]
fn is_tidy(host: &PluginHost, what: &str) {
    for name in host.folders() {
        assert!(!name.starts_with('.'), "{what}: {name}");
        assert!(!host.folder(&name).join("_filling").exists(), "{what}: {name}");
    }
}

fn content_of(host: &PluginHost, volume: &str) -> String {
    host.docker(&["run", "--rm", "--network", "none", "-v", &format!("{volume}:/d"), BUSYBOX, "cat", "/d/file"])
}

#[test]
fn a_crash_at_every_step_is_made_good() {
    let mut host = PluginHost::new();
    host.create("origin", &[]);
    host.write("origin", "file", "orders");
    host.voltool(&["backup", "origin"]).ok();
    for step in Step::ALL {
        for on_remove in ["snapshot", "trash"] {
            let what = format!("{}-{on_remove}", step.as_str());
            let volume = what.as_str();
            let creates = matches!(step, Step::CreateBegun | Step::CreateWritten | Step::CreateNamed);
            let fills = matches!(step, Step::FillBegun | Step::FillWritten | Step::FillNamed);
            let own = format!("on-remove={on_remove}");
            if !creates && !fills {
                host.create(volume, &[&own]);
                host.write(volume, "file", "precious");
            }
            host.kill_daemon();
            host.start_doomed_daemon(step.as_str());
            // Half of those that are to be restored wait for their first mount with that.
            let later = fills && on_remove == "trash";
            let mut options = json!({"from": "origin", "on-remove": on_remove});
            if later {
                options["on-empty"] = json!("restore");
            }
            if creates || fills {
                host.ask("VolumeDriver.Create", &json!({"Name": volume, "Opts": options}));
                if later {
                    host.ask("VolumeDriver.Mount", &json!({"Name": volume, "ID": "1"}));
                }
            } else {
                host.ask("VolumeDriver.Remove", &json!({"Name": volume}));
            }
            let kept = on_remove == "trash" && !creates && !fills;
            if step == Step::TrashBegun && kept {
                // Nothing may be deleted, so nothing is begun.
                assert!(host.is_alive());
                host.kill_daemon();
            } else {
                host.wait_for_death();
            }
            host.start_daemon();

            let found = state(&host, volume);
            match step {
                Step::CreateBegun | Step::CreateWritten => assert_eq!(found, None, "{what}"),
                Step::FillBegun | Step::FillWritten if later => {
                    assert_eq!(found.as_deref(), Some("to be restored when it is mounted"), "{what}");
                    host.wait("what had arrived goes", || !host.folder(volume).join("_filling").exists());
                }
                Step::CreateNamed | Step::FillBegun | Step::FillWritten => {
                    host.wait("it is restored", || state(&host, volume).as_deref() == Some("ready"));
                    assert_eq!(host.read(volume, "file"), "orders");
                }
                Step::FillNamed => {
                    assert_eq!(found.as_deref(), Some("ready"), "{what}");
                    assert_eq!(host.read(volume, "file"), "orders");
                }
                Step::RemoveJudged | Step::RemoveNoted | Step::RemoveMarked => {
                    assert_eq!(found.as_deref(), Some("ready"), "{what}");
                    assert_eq!(host.read(volume, "file"), "precious", "{what}");
                    assert!(notes(&host, volume).is_empty(), "{what}");
                    assert!(host.trash().is_empty(), "{what}");
                }
                Step::RemoveMoved | Step::RemoveDone | Step::TrashBegun => {
                    assert_eq!(found, None, "{what}");
                    let notes = notes(&host, volume);
                    assert!(notes.len() == 1 && notes[0]["done"] == true, "{what}: {notes:?}");
                    assert_eq!(notes[0]["volumes"][0]["trash"].is_string(), kept, "{what}: {notes:?}");
                    host.wait("what may go is deleted", || host.trash().len() == usize::from(kept));
                    host.voltool(&["undo", "latest"]).ok();
                    assert_eq!(host.read(volume, "file"), "precious", "{what}");
                }
            }
            is_tidy(&host, volume);
            // Whoever asked, asks again.
            if creates || fills {
                host.create(volume, &["from=origin", &own]);
                assert_eq!(content_of(&host, volume), "orders", "{what}");
                is_tidy(&host, volume);
            }
            host.docker(&["volume", "rm", volume]);
            assert_eq!(state(&host, volume), None);
            host.voltool(&["undo", "latest"]).ok();
            let content = if creates || fills { "orders" } else { "precious" };
            assert_eq!(content_of(&host, volume), content, "{what}");
            host.docker(&["volume", "rm", volume]);
            // What is kept is in nobody's way here.
            host.wait("what may go is deleted", || host.trash().len() <= usize::from(on_remove == "trash"));
            host.kill_daemon();
            for name in host.trash() {
                std::fs::remove_dir_all(host.path("state/trash").join(name)).expect("removed");
            }
            host.start_daemon();
            is_tidy(&host, volume);
        }
    }
    assert_eq!(host.folders(), ["origin"]);

    // What has been kept for long enough goes; nobody gets half of it back.
    host.create("old", &["on-remove=trash"]);
    host.write("old", "file", "precious");
    host.docker(&["volume", "rm", "old"]);
    host.kill_daemon();
    let trash = host.path("state/trash").join(&host.trash()[0]);
    let file = trash.join("volume.json");
    let mut old: Value = serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    old["removed"]["keep_until"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&file, old.to_string()).expect("written");
    host.start_doomed_daemon(Step::TrashBegun.as_str());
    host.wait_for_death();
    assert!(!trash.join("_data").exists() && trash.join("_gone/file").exists());
    host.start_daemon();
    host.wait("it is deleted", || host.trash().is_empty());
    host.voltool(&["undo", "latest"]).fails_plainly(1, &["not in the trash any more"]);
}

/// Volumes of one round: two are being made, two written to, two removed when the daemon is killed.
struct Round {
    made: Vec<(String, Child)>,
    written: Vec<(String, Child)>,
    removed: Vec<(String, Child)>,
}

fn begin(host: &PluginHost, args: &[&str]) -> Child {
    let mut command = host.host.engine.docker_command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("docker starts")
}

fn succeeds(mut child: Child) -> bool {
    child.wait().expect("it ends").success()
}

#[test]
fn a_crash_at_any_moment_loses_nothing() {
    let rounds = if std::env::var_os("VOLTOOL_TEST_LONG").is_some() { 20 } else { 3 };
    let mut host = PluginHost::new();
    host.host.sandbox.set("VOLTOOL_TEST_QUIET", "1");
    host.kill_daemon();
    host.start_daemon();
    let write = |volume: &str| format!("echo {volume} > /d/file && sync");
    let mount = |volume: &str| format!("{volume}:/d");
    let (mut there, mut gone, mut either) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..rounds {
        let names = |what: &str| [0, 1].map(|n| format!("{what}-{number}-{n}"));
        for volume in names("write").iter().chain(&names("remove")) {
            host.create(volume, &[]);
        }
        for volume in &names("remove") {
            host.write(volume, "file", &format!("{volume}\n"));
        }
        let round = Round {
            made: names("make").map(|v| (v.clone(), begin(&host, &["volume", "create", "-d", "voltool", &v]))).into(),
            written: names("write")
                .map(|v| {
                    let run = ["run", "--rm", "--network", "none", "-v", &mount(&v), BUSYBOX, "sh", "-c", &write(&v)];
                    (v.clone(), begin(&host, &run))
                })
                .into(),
            removed: names("remove").map(|v| (v.clone(), begin(&host, &["volume", "rm", &v]))).into(),
        };
        let pause = Duration::from_millis(u64::from(rand::random::<u16>() % 600));
        std::thread::sleep(pause);
        host.kill_daemon();
        host.start_daemon();
        for (volume, child) in round.made {
            if succeeds(child) {
                assert!(state(&host, &volume).is_some(), "{volume}, killed after {pause:?}");
            }
        }
        for (volume, child) in round.written {
            if succeeds(child) {
                there.push(volume);
            } else {
                assert!(state(&host, &volume).is_some(), "{volume}, killed after {pause:?}");
            }
        }
        for (volume, child) in round.removed {
            if succeeds(child) { gone.push(volume) } else { either.push(volume) }
        }
        is_tidy(&host, &format!("killed after {pause:?}"));
    }
    for volume in &there {
        assert_eq!(host.read(volume, "file"), format!("{volume}\n"));
    }
    for volume in gone.iter().chain(&either) {
        if either.contains(volume) && state(&host, volume).is_some() {
            assert_eq!(host.read(volume, "file"), format!("{volume}\n"));
        } else {
            assert_eq!(state(&host, volume), None);
            let back = host.host.sandbox.restore(volume, &format!("restored-{volume}"));
            assert_eq!(std::fs::read_to_string(back.join("file")).expect("restored"), format!("{volume}\n"));
        }
    }
    // And all goes on: nothing is held by what was killed.
    host.docker(&["container", "prune", "-f"]);
    for volume in host.folders() {
        host.wait(&format!("{volume} can be removed"), || {
            state(&host, &volume).is_none() || host.host.engine.try_docker(&["volume", "rm", &volume]).status.success()
        });
    }
    host.wait("the trash is empty", || host.trash().is_empty());
}
