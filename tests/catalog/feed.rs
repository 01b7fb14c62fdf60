//! The feed from a real engine's events.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use voltool::daemon::events::feed;
use voltool::docker::connect::resolve;
use voltool::docker::{Engine, Surroundings};
use voltool::inventory::Catalog;
use voltool::inventory::catalog::VolumeSummary;

use super::support::engine::{BUSYBOX, TestEngine};

/// Waits for what another task brings about.
#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(90), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_engines_events_reach_the_catalog() {
    let mut engine = TestEngine::start();
    engine.docker(&["volume", "create", "before"]);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("catalog.db");
    let surroundings = Surroundings::current().expect("surroundings");
    let endpoint = resolve(Some(&engine.host()), &surroundings).expect("an address");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = {
        let (warnings, endpoint, path) = (warnings.clone(), endpoint.clone(), path.clone());
        runtime.spawn(async move {
            let warn = move |text: &str| warnings.lock().expect("not poisoned").push(text.to_owned());
            feed(&endpoint, &path, warn, async { drop(stopped.await) }).await;
        })
    };
    let connected = runtime.block_on(Engine::connect_to(endpoint, Duration::from_secs(60))).expect("connected");
    let key = connected.info().key();

    // What was there before is seen without any event.
    let catalog = wait_for("the first look", || path.exists().then(|| Catalog::open(&path).expect("opened")));
    let find = |wanted: &dyn Fn(&VolumeSummary) -> bool| catalog.volumes(&key).expect("told").into_iter().find(wanted);
    wait_for("the first look", || find(&|volume| volume.name == "before"));

    // Containers that are gone within a second, and their volumes with them.
    let brief = |name: &str| {
        engine.docker(&["run", "--rm", "--network", "none", "--name", name, "-v", "/data", BUSYBOX, "sleep", "1"]);
    };
    brief("brief");
    let of = |container: &str| {
        find(&|volume| {
            volume.last_use.as_ref().is_some_and(|last| last.container == container && volume.removed_at.is_some())
        })
    };
    let seen = wait_for("the brief container's volume", || of("brief"));
    assert_eq!(seen.removed_by.as_deref(), Some("engine event"));
    let last = seen.last_use.expect("used");
    assert_eq!((last.image.as_str(), last.path.as_str()), (BUSYBOX, "/data"));
    assert!(last.image_id.starts_with("sha256:"), "{last:?}");

    // A removal has its time and its witness; who knows more is believed.
    engine.docker(&["volume", "rm", "before"]);
    let removed = |name: &'static str| find(&|volume| volume.name == name && volume.removed_at.is_some());
    assert_eq!(wait_for("the removal", || removed("before")).removed_by.as_deref(), Some("engine event"));
    catalog.note_removal(&key, "before", "voltool volume rm", jiff::Timestamp::now()).expect("noted");
    assert_eq!(removed("before").and_then(|volume| volume.removed_by).as_deref(), Some("voltool volume rm"));

    // A volume that nothing uses is found by the look that follows its event, also after a prune, of which old engines say no more.
    engine.docker(&["volume", "create", "idle"]);
    wait_for("the new volume", || find(&|volume| volume.name == "idle"));
    let all: &[&str] =
        if engine.docker(&["version", "--format", "{{.Server.APIVersion}}"]) == "1.41" { &[] } else { &["-a"] };
    if all.is_empty() {
        engine.docker(&["volume", "prune", "-f"]);
    } else {
        engine.docker(&["volume", "rm", "idle"]);
    }
    wait_for("the prune", || removed("idle"));
    assert_eq!(warnings.lock().expect("not poisoned").as_slice(), [""; 0]);

    // The engine goes away, something happens when it is back, and the feed has followed.
    engine.stop();
    wait_for("the loss of the engine", || {
        warnings.lock().expect("not poisoned").iter().any(|text| text.contains("not fed")).then_some(())
    });
    engine.restart();
    let brief = |name: &str| {
        engine.docker(&["run", "--rm", "--network", "none", "--name", name, "-v", "/data", BUSYBOX, "sleep", "1"]);
    };
    engine.docker(&["volume", "create", "after"]);
    wait_for("the connection made anew", || find(&|volume| volume.name == "after"));
    brief("brief-again");
    wait_for("the second brief container", || of("brief-again"));
    let said = warnings.lock().expect("not poisoned").clone();
    let mut different = said.clone();
    different.dedup();
    assert_eq!(said, different, "no failure is told twice in a row");

    // A catalog that is damaged under its hands is told of once, and left; put back, it is fed again.
    let good = std::fs::read(&path).expect("read");
    drop(catalog);
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.path().join(format!("catalog.db{end}")));
    }
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "damaged").expect("written");
    engine.docker(&["volume", "create", "unseen"]);
    wait_for("the warning", || {
        warnings
            .lock()
            .expect("not poisoned")
            .iter()
            .any(|text| text.contains("is not an SQLite database"))
            .then_some(())
    });
    assert_eq!(std::fs::read(&path).expect("read"), b"damaged");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, good).expect("written");
    engine.docker(&["volume", "create", "seen"]);
    wait_for("the catalog put back", || {
        let volumes = Catalog::open(&path).ok()?.volumes(&key).ok()?;
        volumes.iter().any(|volume| volume.name == "seen").then_some(())
    });

    stop.send(()).expect("it runs");
    runtime.block_on(running).expect("it ended");
}
