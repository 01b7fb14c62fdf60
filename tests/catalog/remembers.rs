//! On a real engine: what `ls` and `history` tell of volumes whose containers are gone, and of volumes that are gone.

use serde_json::{Value, json};

use super::support::engine::{BUSYBOX, WITH_VOLUME};
use super::support::host::Host;

/// The only use of the newest volume of that name.
fn last_use(history: &Value, incarnation: usize) -> &Value {
    &history["incarnations"][incarnation]["uses"][0]
}

#[test]
fn who_used_a_volume_is_told_when_the_container_and_the_volume_are_gone() {
    let mut host = Host::bare();
    let labels = ["--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=db"];
    host.run_container("pg", &[&labels[..], &["-v", "pgdata:/var/lib/db", "-v", "/scratch"]].concat());
    host.docker(&["create", "--name", "web", "-v", "pgdata:/backup:ro", WITH_VOLUME]);
    let scratch = host.volume_at("pg", "/scratch");
    let image_id = host.docker(&["image", "inspect", "--format", "{{.Id}}", BUSYBOX]);
    let id = host.docker(&["inspect", "--format", "{{.Id}}", "pg"]);

    // In use: there is nothing to remember yet.
    let row = host.row("pgdata");
    assert_eq!((&row["last_used_by"], &row["last_used_at"]), (&Value::Null, &Value::Null));
    host.docker(&["rm", "-f", "pg", "web"]);

    let row = host.row(&scratch);
    assert_eq!(row["last_used_by"], json!(format!("pg ({BUSYBOX}) at /scratch, project shop")));
    assert!(row["last_used_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{row}");
    assert_eq!(row["used_by"], json!([]));
    let table = host.ok(&["ls"]);
    assert!(table.contains(&format!("last: pg ({BUSYBOX}), ")), "{table}");

    let history = host.json(&["history", "pgdata", "--json"]);
    assert_eq!(history["name"], "pgdata");
    assert_eq!(history["engine"]["name"], json!(host.docker(&["info", "--format", "{{.Name}}"])));
    let uses = history["incarnations"][0]["uses"].as_array().expect("an array");
    assert_eq!(uses.len(), 2, "{history}");
    let pg = &uses[0];
    for (field, value) in [
        ("container", json!("pg")),
        ("container_id", json!(id)),
        ("image", json!(BUSYBOX)),
        ("image_id", json!(image_id)),
        ("path", json!("/var/lib/db")),
        ("rw", json!(true)),
        ("project", json!("shop")),
        ("service", json!("db")),
    ] {
        assert_eq!(pg[field], value, "{field}");
    }
    assert!(pg["last_running"].is_string() && uses[1]["last_running"].is_null(), "{history}");
    assert_eq!((&uses[1]["container"], &uses[1]["rw"]), (&json!("web"), &json!(false)));

    // The beginning of a made-up name is enough.
    let history = host.json(&["history", &scratch[..6], "--json"]);
    assert_eq!((&history["name"], &last_use(&history, 0)["path"]), (&json!(scratch), &json!("/scratch")));
    let text = host.ok(&["history", &scratch[..6]]);
    for part in [&scratch, "anonymous", "project shop", "pg", BUSYBOX, "/scratch", "shop/db"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }

    // Gone, and nobody said so.
    host.docker(&["volume", "rm", &scratch, "pgdata"]);
    let history = host.json(&["history", &scratch[..6], "--json"]);
    let removed = &history["incarnations"][0];
    assert!(removed["removed_at"].is_string() && removed["removed_by"].is_null(), "{history}");
    assert_eq!(last_use(&history, 0)["container"], "pg");
    let table = host.ok(&["history"]);
    assert!(table.contains(&scratch) && table.contains("found to be gone"), "{table}");

    // The name comes back, as another volume. Engines write whole seconds, so one that is made in the same second is taken for the same.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    host.volume("pgdata", "new");
    let history = host.json(&["history", "pgdata", "--json"]);
    assert_eq!(history["incarnations"].as_array().map(Vec::len), Some(2), "{history}");
    assert_eq!((last_use(&history, 0), &last_use(&history, 1)["container"]), (&Value::Null, &json!("pg")));
    assert_eq!(host.row("pgdata")["last_used_by"], Value::Null);
    let text = host.ok(&["history", "pgdata"]);
    assert!(text.contains("no container was seen to use it") && text.contains("shop/db"), "{text}");

    // Every verb that looks at the engine feeds it.
    host.sandbox.init(super::support::cli::Lock::None).ok();
    host.docker(&["run", "--name", "job", "--network", "none", "-v", "pgdata:/job", BUSYBOX, "true"]);
    host.ok(&["--repo", &host.sandbox.repo, "backup", "pgdata"]);
    host.docker(&["rm", "job"]);
    assert_eq!(host.row("pgdata")["last_used_by"], json!(format!("job ({BUSYBOX}) at /job")));

    // Names that are not known.
    host.voltool(&["history", "pgdat"]).fails(1, &["no volume pgdat was ever seen", "did you mean pgdata?"]);
    host.voltool(&["history", "quite-another"]).fails(1, &["quite-another", "'voltool history' lists"]);

    // Without the engine, what is remembered of it is still told, and that it is only that.
    host.engine.stop();
    let ran = host.voltool(&["history", "pgdata"]);
    assert!(ran.err.contains("warning") && ran.err.contains("this is what was known of the engine"), "{}", ran.err);
    assert!(ran.ok().contains("job"));
    let listing = host.json(&["history", "--json"]);
    let volumes = listing["volumes"].as_array().expect("an array");
    let place = |name: &str| volumes.iter().position(|one| one["name"] == name).expect("listed");
    assert!(place("pgdata") < place(&scratch), "the one that something happened to last comes first: {listing}");

    // Nothing remembered and no engine.
    std::fs::remove_dir_all(host.sandbox.path("state")).expect("removed");
    host.voltool(&["history"]).fails(1, &["Docker engine"]);
}
