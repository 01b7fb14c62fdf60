//! The volume driver's side of the protocol, without an engine: whatever is sent, in whatever order.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use voltool::docker::VolumeUser;

use crate::support::fake_outside::{Access, Served, read_answer};
use crate::support::plugin_host::is_empty;

const NAMED: [&str; 6] = ["Create", "Get", "Path", "Mount", "Unmount", "Remove"];

/// An engine whose request met the end of a daemon sends it again without its body (docker-facts 3). Whatever is answered to that
/// counts: to `Get`, that there is no such volume.
#[test]
fn what_cannot_be_understood_is_not_answered() {
    let served = Served::new();
    served.create("db", &json!(null));
    for question in NAMED {
        for body in ["", "{", "null", "[]", "{}", "\"db\"", "{\"Name\":7}", "{\"Name\":null}", "\0"] {
            let answer = served.post(&format!("VolumeDriver.{question}"), body.as_bytes());
            assert_eq!(answer, None, "{question} {body:?}");
        }
        let long = format!("{{\"Name\":\"db\",\"ID\":\"{}\"}}", "x".repeat(16 << 20));
        assert!(served.post(&format!("VolumeDriver.{question}"), long.as_bytes()).is_none_or(|(s, _)| s == 500));
    }
    assert_eq!(served.ok("List", &json!({}))["Volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(served.mounts("db"), 0);
    served.ok("Get", &json!({"Name": "db"}));
    // What follows is answered on, whatever else is in it.
    served.ok("Get", &json!({"Name": "db", "Unknown": [1, 2, {"a": null}]}));
    assert_eq!(served.refused("Get", &json!({"Name": ""})), "no such volume: ");
    served.refused("Nothing", &json!({"Name": "db"}));
}

/// podman says what type a body has, sends no body with `List`, and mounts with the id of the container; it takes `Err` with status
/// 200 for success.
#[test]
fn podman_is_understood() {
    let served = Served::new();
    let say = |method: &str, body: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(served.socket()).expect("listens");
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\nAccept-Encoding: gzip\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
        read_answer(stream).expect("an answer")
    };
    assert_eq!(say("Plugin.Activate", "").1["Implements"][0], "VolumeDriver");
    assert_eq!(say("VolumeDriver.Create", r#"{"Name":"db","Opts":{}}"#).0, 200);
    let (status, listed) = say("VolumeDriver.List", "");
    assert_eq!((status, &listed["Volumes"][0]["Name"]), (200, &json!("db")));
    let id = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";
    let mount = format!(r#"{{"Name":"db","ID":"{id}"}}"#);
    let (status, mounted) = say("VolumeDriver.Mount", &mount);
    assert_eq!((status, mounted["Mountpoint"].as_str()), (200, served.data("db").to_str()));
    let (status, refused) = say("VolumeDriver.Remove", r#"{"Name":"db"}"#);
    assert!(status == 500 && refused["Err"].as_str().is_some_and(|why| why.contains("db")), "{status} {refused}");
    assert_eq!(say("VolumeDriver.Path", r#"{"Name":"db"}"#).1["Mountpoint"], mounted["Mountpoint"]);
    assert_eq!(say("VolumeDriver.Unmount", &mount).0, 200);
    assert_eq!(say("VolumeDriver.Remove", r#"{"Name":"db"}"#).0, 200);
}

/// docker-facts 2, 13 and 14.
#[test]
fn answers_are_as_engines_need_them() {
    let served = Served::new();
    served.create("db", &json!({"uid": "1000", "mode": "2770"}));
    let got = served.ok("Get", &json!({"Name": "db"}));
    let volume = &got["Volume"];
    let created: jiff::Timestamp = volume["CreatedAt"].as_str().expect("text").parse().expect("RFC 3339");
    assert!(jiff::Timestamp::now().duration_since(created).abs().as_secs() < 600);
    assert_eq!(volume["CreatedAt"].as_str().map(str::len), Some("2026-01-02T03:04:05Z".len()));
    assert_eq!(volume["Mountpoint"].as_str(), served.data("db").to_str());
    assert_eq!(served.ok("Path", &json!({"Name": "db"}))["Mountpoint"], volume["Mountpoint"]);
    assert_eq!(std::fs::metadata(served.data("db")).expect("there").permissions().mode() & 0o7777, 0o2770);
    // Idempotent, whatever the options are this time.
    served.create("db", &json!({"mode": "700"}));
    assert_eq!(served.ok("Get", &json!({"Name": "db"}))["Volume"]["CreatedAt"], volume["CreatedAt"]);
    assert_eq!(std::fs::metadata(served.data("db")).expect("there").permissions().mode() & 0o7777, 0o2770);

    // An engine gives an empty volume the owner and mode of the folder that the image has in the place, before it mounts it again.
    std::fs::set_permissions(served.data("db"), std::fs::Permissions::from_mode(0o755)).expect("set");
    served.ok("Mount", &json!({"Name": "db", "ID": "1"}));
    assert_eq!(std::fs::metadata(served.data("db")).expect("there").permissions().mode() & 0o7777, 0o2770);
    std::fs::write(served.data("db").join("file"), "content").expect("written");
    std::fs::set_permissions(served.data("db"), std::fs::Permissions::from_mode(0o711)).expect("set");
    served.ok("Mount", &json!({"Name": "db", "ID": "1"}));
    assert_eq!(std::fs::metadata(served.data("db")).expect("there").permissions().mode() & 0o7777, 0o711);

    let (status, capabilities) = served.ask("Capabilities", &json!({}));
    assert_eq!((status, capabilities), (200, json!({"Capabilities": {"Scope": "local"}})));
    // A use that nobody knows of ends without ado; a volume that nobody knows does not.
    served.ok("Unmount", &json!({"Name": "db", "ID": "unknown"}));
    for question in ["Get", "Path", "Mount", "Unmount", "Remove"] {
        served.refused(question, &json!({"Name": "none", "ID": "1"}));
    }
}

#[test]
fn names_are_those_of_the_engines_own_driver() {
    let served = Served::new();
    for name in ["ab", "A0", "0_", "shop_db-data.v2", &"x".repeat(255)] {
        served.create(name, &json!({}));
        served.ok("Mount", &json!({"Name": name, "ID": "1"}));
    }
    let before = std::fs::read_dir(served.state().join("volumes")).expect("read").count();
    for name in
        ["", "a", ".", "..", "a/../b", "../b", "/etc", "a b", "ä1", "aß", "-a", "_a", ".a", "a\n", &"x".repeat(256)]
    {
        let why = served.refused("Create", &json!({"Name": name, "Opts": {}}));
        assert!(why.starts_with("volume name "), "{why}");
        for question in ["Get", "Mount", "Unmount", "Remove"] {
            served.refused(question, &json!({"Name": name, "ID": "1"}));
        }
    }
    assert_eq!(std::fs::read_dir(served.state().join("volumes")).expect("read").count(), before);
    let why = served.refused("Create", &json!({"Name": "other", "Opts": {"form": "db"}}));
    assert!(why.contains("form"), "{why}");
    served.refused("Get", &json!({"Name": "other"}));
}

/// Damage costs the engine nothing that it knows, and us nothing that is there.
#[test]
fn a_volume_whose_file_is_damaged_stays() {
    let mut served = Served::new();
    let names = ["cut", "empty", "gone", "newer", "other", "text"];
    for name in names {
        served.create(name, &json!({}));
        std::fs::write(served.data(name).join("file"), name).expect("written");
    }
    let file = |name: &str| served.data(name).with_file_name("volume.json");
    let whole = std::fs::read_to_string(file("cut")).expect("there");
    std::fs::write(file("cut"), &whole[..whole.len() / 2]).expect("written");
    std::fs::write(file("empty"), "").expect("written");
    std::fs::remove_file(file("gone")).expect("removed");
    std::fs::write(file("newer"), whole.replace("\"version\": 1", "\"version\": 2")).expect("written");
    std::fs::write(file("other"), &whole).expect("written");
    std::fs::write(file("text"), "this is not JSON").expect("written");
    let contents =
        |served: &Served| names.map(|name| std::fs::read(served.data(name).with_file_name("volume.json")).ok());
    let damaged = contents(&served);
    served.restart();
    let listed = served.ok("List", &json!({}));
    assert_eq!(listed["Volumes"].as_array().map(Vec::len), Some(names.len()), "{listed}");
    for name in names {
        let got = served.ok("Get", &json!({"Name": name}));
        let volume = &got["Volume"];
        assert!(volume["Status"]["last_error"].as_str().is_some_and(|why| !why.is_empty()), "{name}: {volume}");
        assert!(volume["CreatedAt"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{volume}");
        assert_eq!(volume["Mountpoint"].as_str(), served.data(name).to_str());
        served.refused("Mount", &json!({"Name": name, "ID": "1"}));
        served.refused("Remove", &json!({"Name": name}));
        served.ok("Unmount", &json!({"Name": name, "ID": "1"}));
        // The engine asks again for what it believes to be lost.
        served.create(name, &json!({}));
        assert_eq!(std::fs::read_to_string(served.data(name).join("file")).expect("there"), name);
    }
    served.restart();
    assert_eq!(contents(&served), damaged, "what is not understood is not written over");
}

/// docker-facts 2 and 11: engines ask for volumes at moments at which nobody may wait.
#[test]
fn a_repository_that_hangs_keeps_nobody_waiting() {
    let (served, repo) = Served::with_repository();
    served.snapshot(&repo, "origin", "file", b"content");
    served.create("copy", &json!({"from": "origin"}));
    served.create("plain", &json!({}));
    std::fs::write(served.data("plain").join("file"), "new").expect("written");
    served.ok("Mount", &json!({"Name": "copy", "ID": "1"}));
    served.outside.access(Access::Hangs);
    served.create("lost", &json!({"on-empty": "restore"}));
    let create = served.send("VolumeDriver.Create", br#"{"Name":"second","Opts":{"from":"origin"}}"#);
    let mount = served.send("VolumeDriver.Mount", br#"{"Name":"lost","ID":"2"}"#);
    let remove = served.send("VolumeDriver.Remove", br#"{"Name":"plain"}"#);
    served.wait("all three wait", || served.outside.waiting() == 3);

    for _ in 0..3 {
        assert_eq!(served.ok("List", &json!({}))["Volumes"].as_array().map(Vec::len), Some(3));
        served.ok("Get", &json!({"Name": "lost"}));
        served.ok("Get", &json!({"Name": "plain"}));
        served.refused("Get", &json!({"Name": "second"}));
    }
    // Neither do those that need nothing of it.
    served.create("third", &json!({}));
    served.ok("Mount", &json!({"Name": "third", "ID": "3"}));
    served.ok("Mount", &json!({"Name": "copy", "ID": "2"}));
    served.ok("Unmount", &json!({"Name": "third", "ID": "3"}));
    served.ok("Remove", &json!({"Name": "third"}));
    assert!(served.refused("Mount", &json!({"Name": "plain", "ID": "1"})).contains("being removed"));

    // An engine that does not wait any more leaves nothing behind that stays for ever.
    drop((create, mount, remove));
    served.wait("those that have gone are noticed", || served.outside.waiting() <= 1);
    served.wait("nobody uses it", || served.mounts("lost") == 0);
    served.wait("it can be used", || served.ask("Mount", &json!({"Name": "plain", "ID": "1"})).0 == 200);
    served.refused("Get", &json!({"Name": "second"}));
    assert_eq!(std::fs::read_to_string(served.data("plain").join("file")).expect("there"), "new");
}

/// docker-facts 10: an engine that has given up never says that a mount has ended.
#[test]
fn a_mount_waits_for_all_of_the_data() {
    let (served, repo) = Served::with_repository();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    served.snapshot(&repo, "origin", "file", &content);
    served.create("copy", &json!({"on-empty": "restore", "from": "origin"}));
    served.outside.access(Access::Hangs);
    // Some wait with ids of their own, two with the same, and one goes.
    let mounts: Vec<_> = ["a", "b", "c", "c", "goes"]
        .map(|id| served.send("VolumeDriver.Mount", json!({"Name": "copy", "ID": id}).to_string().as_bytes()))
        .into();
    served.wait("they are counted", || served.mounts("copy") == 5);
    let mut mounts = mounts;
    drop(mounts.pop());
    served.wait("it is not counted any more", || served.mounts("copy") == 4);
    assert!(served.refused("Remove", &json!({"Name": "copy"})).contains("copy"));
    assert!(!served.data("copy").exists(), "nothing is there before all of it is");

    served.outside.access(Access::Open(repo));
    for mount in mounts {
        let (status, answer) = read_answer(mount).expect("an answer");
        assert_eq!((status, answer["Mountpoint"].as_str()), (200, served.data("copy").to_str()), "{answer}");
        assert!(std::fs::read(served.data("copy").join("file")).expect("there") == content);
    }
    assert_eq!(served.mounts("copy"), 4);
    for id in ["a", "c", "b", "c"] {
        assert!(served.refused("Remove", &json!({"Name": "copy"})).contains("mounted"));
        served.ok("Unmount", &json!({"Name": "copy", "ID": id}));
    }
    assert_eq!(served.mounts("copy"), 0);
    let status = served.ok("Get", &json!({"Name": "copy"}))["Volume"]["Status"].clone();
    assert_eq!((&status["state"], status["last_error"].clone()), (&json!("ready"), Value::Null), "{status}");
    served.ok("Remove", &json!({"Name": "copy"}));
}

/// Mounting is not serialised by engines.
#[test]
fn many_mount_at_once() {
    let served = Served::new();
    served.create("db", &json!({}));
    std::thread::scope(|scope| {
        for asker in 0..8 {
            let served = &served;
            scope.spawn(move || {
                for round in 0..50 {
                    let body = json!({"Name": "db", "ID": format!("{}", (asker + round) % 3)});
                    served.ok("Mount", &body);
                    assert!(served.refused("Remove", &json!({"Name": "db"})).contains("mounted"));
                    served.ok("Unmount", &body);
                }
            });
        }
    });
    assert_eq!(served.mounts("db"), 0);
    served.ok("Remove", &json!({"Name": "db"}));
}

/// A database must not begin on half of its data.
#[test]
fn a_damaged_snapshot_is_no_volume() {
    let (mut served, repo) = Served::with_repository();
    served.snapshot(&repo, "origin", "one", &[7; 300_000]);
    served.snapshot(&repo, "origin", "two", &(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let mut packs = Vec::new();
    let mut folders = vec![served.dir.path().join("repository/packs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("read") {
            let path = entry.expect("read").path();
            if path.is_dir() { folders.push(path) } else { packs.push(path) }
        }
    }
    assert!(!packs.is_empty());
    let largest = packs.iter().max_by_key(|path| path.metadata().expect("there").len()).expect("some");
    let whole = std::fs::read(largest).expect("read");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 100].fill(0xAA);
    std::fs::write(largest, &damaged).expect("written");
    served.create("copy", &json!({"from": "origin"}));
    for _ in 0..2 {
        let why = served.refused("Mount", &json!({"Name": "copy", "ID": "1"}));
        assert!(why.contains("cannot be restored"), "{why}");
        assert!(!served.data("copy").exists() && served.mounts("copy") == 0);
        served.restart();
    }
    // Where the repository is mended, the next mount has it.
    std::fs::write(largest, &whole).expect("written");
    served.ok("Mount", &json!({"Name": "copy", "ID": "1"}));
    assert_eq!(std::fs::read(served.data("copy").join("one")).expect("there"), [7; 300_000]);
    let status = served.ok("Get", &json!({"Name": "copy"}))["Volume"]["Status"].clone();
    assert_eq!(status["last_error"], Value::Null, "{status}");

    // What was to be in a volume, and never was, keeps nobody from removing it.
    std::fs::write(largest, &damaged).expect("written");
    served.create("other", &json!({"from": "origin"}));
    served.refused("Mount", &json!({"Name": "other", "ID": "1"}));
    // The restore that began with it may still be under way.
    served.wait("it is removed", || served.ask("Remove", &json!({"Name": "other"})).0 == 200);
}

#[test]
fn what_comes_back_on_an_empty_host() {
    let (served, repo) = Served::with_repository();
    served.snapshot(&repo, "db", "file", b"orders");
    served.outside.access(Access::Fails("the bucket does not answer".to_owned()));
    served.create("db", &json!({"on-empty": "restore"}));
    served.create("new", &json!({"on-empty": "restore", "mode": "0750"}));
    for name in ["db", "new"] {
        let why = served.refused("Mount", &json!({"Name": name, "ID": "1"}));
        assert!(why.contains("the bucket does not answer"), "{why}");
        assert!(!served.data(name).exists(), "an empty one would be worse than none");
        let status = served.ok("Get", &json!({"Name": name}))["Volume"]["Status"].clone();
        assert!(status["last_error"].as_str().is_some_and(|why| why.contains("does not answer")), "{status}");
    }
    served.outside.access(Access::Open(repo));
    for name in ["db", "new"] {
        served.ok("Mount", &json!({"Name": name, "ID": "1"}));
    }
    assert_eq!(std::fs::read(served.data("db").join("file")).expect("there"), b"orders");
    assert!(is_empty(&served.data("new")), "there never was one");
    assert_eq!(std::fs::metadata(served.data("new")).expect("there").permissions().mode() & 0o7777, 0o750);
}

/// What there is in a volume that is removed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Empty,
    Safe,
    AtRisk,
    Unreachable,
    Unreadable,
}

#[test]
fn what_may_be_removed_and_what_becomes_of_it() {
    use Content::*;
    let (served, repo) = Served::with_repository();
    for on_remove in ["refuse", "snapshot", "trash"] {
        for content in [Empty, Safe, AtRisk, Unreachable, Unreadable] {
            let what = format!("{on_remove} {content:?}");
            let name = format!("{on_remove}-{content:?}").to_lowercase();
            served.outside.access(Access::Open(repo.clone()));
            // A safe one is one that was restored and not changed since.
            if content == Safe {
                served.snapshot(&repo, &name, "file", what.as_bytes());
                served.create(&name, &json!({"on-remove": on_remove, "on-empty": "restore"}));
                served.ok("Mount", &json!({"Name": name, "ID": "1"}));
                served.ok("Unmount", &json!({"Name": name, "ID": "1"}));
            } else {
                served.create(&name, &json!({"on-remove": on_remove}));
            }
            if matches!(content, AtRisk | Unreachable) {
                std::fs::write(served.data(&name).join("file"), &what).expect("written");
            }
            if content == Unreadable {
                std::fs::remove_dir(served.data(&name)).expect("removed");
                std::fs::write(served.data(&name), "a folder no more").expect("written");
            }
            if content == Unreachable {
                served.outside.access(Access::Fails("the bucket does not answer".to_owned()));
            }
            let before = snapshots(&served, &repo);
            let trash = trash(&served);
            let (status, answer) = served.ask("Remove", &json!({"Name": name}));
            let goes =
                matches!(content, Empty | Safe) || on_remove == "trash" || (on_remove, content) == ("snapshot", AtRisk);
            assert_eq!(status == 200, goes, "{what}: {answer}");
            served.outside.access(Access::Open(repo.clone()));
            let new = &snapshots(&served, &repo) - &before;
            if goes {
                served.refused("Get", &json!({"Name": name}));
                assert!(!served.state().join("volumes").join(&name).exists(), "{what}");
                let taken: Vec<&str> = new.iter().map(|(volume, _)| volume.as_str()).collect();
                let expected = if content == AtRisk && on_remove == "snapshot" { vec![name.as_str()] } else { vec![] };
                assert_eq!(taken, expected, "{what}");
                let keeps = on_remove == "trash" && !matches!(content, Empty | Safe);
                served
                    .wait("what need not be kept is deleted", || trash_of(&served, &name).len() == usize::from(keeps));
                let kept: Vec<String> = trash_of(&served, &name).into_iter().collect();
                if let [kept] = kept.as_slice() {
                    let data = served.state().join("trash").join(kept).join("_data");
                    let file = if content == Unreadable { data } else { data.join("file") };
                    let text = std::fs::read_to_string(file).expect("there");
                    assert!(text == what || content == Unreadable, "{what}: {text}");
                }
                note_says(&served, &name, kept.first().map(String::as_str), content != Empty && !keeps);
            } else {
                let why = answer["Err"].as_str().expect("a reason");
                assert!(why.contains(&name) && why.contains("kept") && !why.contains('\n'), "{what}: {why}");
                assert!(content != Unreachable || why.contains("the bucket does not answer"), "{what}: {why}");
                let file = if content == Unreadable { served.data(&name) } else { served.data(&name).join("file") };
                assert!(file.exists() && new.is_empty() && self::trash(&served) == trash, "{what}");
                // It is as it was: who wants to use it may.
                let (status, _) = served.ask("Mount", &json!({"Name": name, "ID": "1"}));
                assert_eq!(status == 200, content != Unreadable, "{what}");
            }
        }
    }
    // In use, as the engine says, or may be, because it says nothing.
    served.create("used", &json!({}));
    let user = |running| VolumeUser {
        id: "c1".to_owned(),
        name: "app".to_owned(),
        running,
        volumes: vec![("used".to_owned(), "local".to_owned())],
    };
    for (users, reason) in [
        (Ok(vec![user(true)]), "container app"),
        (Ok(vec![user(false)]), "container app"),
        (Err("the engine does not answer".to_owned()), "the engine does not answer"),
    ] {
        served.outside.users(users);
        let why = served.refused("Remove", &json!({"Name": "used"}));
        assert!(why.contains(reason) && why.contains("used"), "{why}");
    }
    served.outside.users(Ok(Vec::new()));
    served.ok("Remove", &json!({"Name": "used"}));
    // The same name can be used again, and is another volume.
    served.create("used", &json!({}));
    served.ok("Mount", &json!({"Name": "used", "ID": "1"}));
}

/// A volume can be removed in the moment in which the end of its last use is looked into.
#[test]
fn who_removes_a_moment_after_the_last_use_is_not_sent_away() {
    let served = Served::new();
    for pause in [0, 1_990, 2_000, 2_010] {
        served.create("db", &json!({}));
        served.ok("Mount", &json!({"Name": "db", "ID": "1"}));
        served.ok("Unmount", &json!({"Name": "db", "ID": "1"}));
        std::thread::sleep(Duration::from_millis(pause));
        served.ok("Remove", &json!({"Name": "db"}));
    }
}

fn snapshots(served: &Served, repo: &std::sync::Arc<voltool::repo::Repository>) -> BTreeSet<(String, String)> {
    let found = served.block_on(repo.snapshots()).expect("listed");
    found.records.iter().map(|record| (record.volume.clone(), record.id.clone())).collect()
}

fn trash(served: &Served) -> BTreeSet<String> {
    let entries = std::fs::read_dir(served.state().join("trash")).expect("read");
    entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect()
}

fn trash_of(served: &Served, name: &str) -> BTreeSet<String> {
    trash(served).into_iter().filter(|found| found.ends_with(&format!("-{name}"))).collect()
}

/// The note for `voltool undo` says where the volume is.
#[track_caller]
fn note_says(served: &Served, name: &str, trash: Option<&str>, in_snapshot: bool) {
    let (notes, damaged) = voltool::guard::undo::Notes::of(&served.state()).list().expect("listed");
    assert!(damaged.is_empty());
    let of = |note: &&voltool::guard::undo::Removal| note.volumes.iter().any(|v| v.definition.name == name);
    let notes: Vec<_> = notes.iter().filter(of).collect();
    let [note] = notes.as_slice() else { panic!("{} notes of {name}", notes.len()) };
    assert!(note.done && note.volumes.len() == 1 && note.engine == crate::support::fake_outside::ENGINE);
    assert_eq!(note.volumes[0].trash.as_deref(), trash);
    assert_eq!(note.volumes[0].snapshot.is_some(), in_snapshot, "{name}");
}
