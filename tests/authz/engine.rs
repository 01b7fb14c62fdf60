//! Engines that ask the guard: what works, what is refused, and what nobody gets past it.

use crate::guarded::Guarded;
use crate::support::engine::{BUSYBOX, SCRATCH, WITH_VOLUME};

/// Makes a container that holds an anonymous volume with a file in it, and returns the volume's name.
fn with_anonymous(guarded: &Guarded, name: &str) -> String {
    let host = &guarded.host;
    host.docker(&["create", "--name", name, "--network", "none", "-v", "/data", BUSYBOX, "true"]);
    let volume = host.volume_at(name, "/data");
    host.write(&volume, "file", name);
    volume
}

#[test]
fn what_removes_nothing_works_as_ever() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.docker(&["volume", "create", "--label", "a=b", "data"]);
    host.docker(&[
        "run",
        "--name",
        "one",
        "--network",
        "none",
        "-v",
        "data:/data",
        BUSYBOX,
        "sh",
        "-c",
        "echo hello >/data/file",
    ]);
    host.run_container("two", &["-v", "data:/data:ro"]);
    assert_eq!(host.docker(&["exec", "two", "cat", "/data/file"]), "hello");
    host.docker(&["cp", "two:/data/file", host.sandbox.path("copy").to_str().expect("UTF-8")]);
    host.docker(&["logs", "two"]);
    host.docker(&["rename", "two", "prune"]);
    host.docker(&["restart", "prune"]);
    host.docker(&["stop", "prune"]);
    host.docker(&["start", "prune"]);
    host.docker(&["commit", "prune", "some/image"]);
    host.docker(&["image", "rm", "some/image"]);
    host.docker(&["image", "prune", "-f"]);
    host.docker(&["network", "prune", "-f"]);
    host.docker(&["inspect", "prune"]);
    host.docker(&["system", "df"]);
    // No volume goes with these, and none loses its name.
    host.docker(&["rm", "one"]);
    host.docker(&["rm", "-f", "prune"]);
    host.docker(&["run", "--rm", "--network", "none", WITH_VOLUME, "true"]);
    assert!(host.has_volume("data"));
    // Empty, and of no interest to anybody.
    host.docker(&["volume", "create", "empty"]);
    host.docker(&["volume", "rm", "empty"]);
    let log = guarded.daemon_log();
    assert!(log.contains("--rm"), "the engine hides that removal: {log}");
    assert!(log.contains("allowed DELETE /volumes/empty"), "{log}");
}

#[test]
fn every_command_that_would_lose_data_is_refused_until_it_is_backed_up() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.volume("named", "content");
    let anonymous = with_anonymous(&guarded, "holder");
    host.docker(&["create", "--name", "data-only", "-v", "named:/data", SCRATCH, "none"]);
    host.docker(&["rm", "data-only"]);

    let said = guarded.refused(&["volume", "rm", "named"]);
    for text in [
        "named: no snapshot",
        "1 file",
        "voltool backup named",
        "voltool volume rm --snapshot named",
        "voltool.ephemeral",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    guarded.refused(&["volume", "rm", "-f", "named"]);
    let said = guarded.refused(&["rm", "-v", "holder"]);
    assert!(said.contains(&format!("{anonymous}: ")) && said.contains("voltool rm --snapshot -v holder"), "{said}");
    guarded.refused(&["rm", "-fv", "holder"]);
    guarded.refused(&["rm", "holder"]);
    let said = guarded.refused(&["container", "prune", "-f"]);
    assert!(said.contains("without a name"), "{said}");
    guarded.refused(&["system", "prune", "-f", "--volumes"]);
    let prune = guarded.call("POST", "/v1.41/volumes/prune");
    assert_eq!(prune.status, 403, "{}", prune.body);
    let sdk = guarded.call("DELETE", "/v1.41/volumes/named?force=true");
    assert!(sdk.status == 403 && sdk.body.contains("voltool backup named"), "{}", sdk.body);
    assert_eq!(
        (host.read("named", "file"), host.read(&anonymous, "file")),
        ("content".to_owned(), "holder".to_owned())
    );
    assert_eq!(host.docker(&["ps", "-aq", "--filter", "name=holder"]).lines().count(), 1);

    host.ok(&["backup", "--quiet", "named"]);
    host.ok(&["backup", "--quiet", &anonymous]);
    host.docker(&["rm", "-v", "holder"]);
    host.docker(&["volume", "rm", "named"]);
    assert!(!host.has_volume("named") && !host.has_volume(&anonymous));
    host.ok(&["restore", "named"]);
    assert_eq!(host.read("named", "file"), "content");
    // A change after the backup is at risk again.
    host.write("named", "file", "changed");
    guarded.refused(&["volume", "rm", "named"]);
    let log = guarded.daemon_log();
    assert!(
        log.contains("refused DELETE /volumes/named: ") && log.contains("allowed DELETE /containers/holder?v=1"),
        "{log}"
    );
}

#[test]
fn own_verbs_clear_the_way_through_it() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.volume("one", "content");
    host.volume("two", "content");
    let anonymous = with_anonymous(&guarded, "holder");
    host.voltool(&["volume", "rm", "one"]).fails(4, &["one"]);
    host.ok(&["volume", "rm", "--snapshot", "one"]);
    // Given up in a command of voltool's own, and nowhere else.
    host.ok(&["volume", "rm", "--lose", "two", "two"]);
    assert!(!host.has_volume("one") && !host.has_volume("two"));
    host.volume("two", "again");
    guarded.refused(&["volume", "rm", "two"]);
    host.ok(&["rm", "-v", "--lose", &anonymous, "holder"]);
    assert!(!host.has_volume(&anonymous));
    // Only forgotten: the volume stays, and nobody knows whose it was.
    let anonymous = with_anonymous(&guarded, "holder");
    guarded.refused(&["rm", "holder"]);
    host.ok(&["rm", "--lose", &anonymous, "holder"]);
    assert_eq!(host.read(&anonymous, "file"), "holder");
    guarded.refused(&["volume", "rm", &anonymous]);
    host.ok(&["undo"]);
}

#[test]
fn a_container_that_runs_has_to_be_stopped_first() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.run_container("busy", &["-v", "/data"]);
    let volume = host.volume_at("busy", "/data");
    host.write(&volume, "file", "x");
    host.ok(&["backup", "--quiet", &volume]);
    let said = guarded.refused(&["rm", "-fv", "busy"]);
    assert!(said.contains("docker stop busy"), "{said}");
    assert!(host.is_running("busy") && host.has_volume(&volume));
    host.docker(&["stop", "busy"]);
    host.docker(&["rm", "-fv", "busy"]);
    assert!(!host.has_volume(&volume));
}

#[test]
fn nobody_gets_past_it() {
    let guarded = Guarded::new();
    let host = &guarded.host;
    host.volume("victim", "content");
    let anonymous = with_anonymous(&guarded, "holder");
    let id = host.docker(&["inspect", "--format", "{{.Id}}", "holder"]);
    let is_there = |what: &str| {
        assert!(host.has_volume("victim") && host.has_volume(&anonymous), "{what}\n{}", guarded.daemon_log());
        assert_eq!(host.docker(&["ps", "-aq", "--no-trunc", "--filter", "name=holder"]), id, "{what}");
    };

    // Ways to write one removal: those that the engine executes, and those that it would answer with a redirect or "not found".
    let executed = [
        "/volumes/victim",
        "/v1.30/volumes/victim",
        "/v1.41.0/volumes/victim",
        "/v1.41/volumes/%76ictim",
        "/v1.41/%76olumes/victim",
        "/v1.41%2fvolumes/victim",
        "/v1.41%2Fvolumes%2Fvictim",
        "/v1.41/volumes/victim?force=0",
        "/v1.41/volumes/victim?force=1",
        "http://evil/v1.41/volumes/victim",
        "http:///v1.41/volumes/victim",
        "http:/v1.41/volumes/victim",
        "/v1.41/containers/holder?v=1",
        "/v1.41/containers/holder?v=True&force=1",
        "/v1.41/containers/holder?v=banana",
        "/v1.41/containers/holder?%76=1",
        "/v1.41/containers/holder?v=1&v=0",
        "/v1.41/containers/holder?v=0&v=1",
        "/v1.41/containers/holder?force=1",
        "/v1.41/containers/holder",
        "/containers/%68older?v=1",
    ];
    for target in executed {
        let answer = guarded.call("DELETE", target);
        assert_eq!(answer.status, 403, "{target}: {}", answer.body);
        is_there(target);
    }
    let by_id = [format!("/v1.41/containers/{id}?v=1"), format!("/v1.41/containers/{}?v=1", &id[..6])];
    for target in &by_id {
        assert_eq!(guarded.call("DELETE", target).status, 403, "{target}");
        is_there(target);
    }
    for target in [
        "//v1.41/volumes/victim",
        "/v1.41//volumes/victim",
        "/x/../volumes/victim",
        "/v1.41/x/%2e%2e/volumes/victim",
        "/v1.41/./volumes/victim",
        "/Volumes/victim",
        "/V1.41/volumes/victim",
        "/v1.41/volumes/victim/",
        "/v1.41/volumes/victim%00",
        "/v1.41/volumes/victim%20",
        "/v1.41/volumes/victim#x",
        "/v1.41/volumes/%2576ictim",
        "/v1.41/containers/%2Fholder?v=1",
        "/v1.41/containers//holder?v=1",
        "/v1.41/containers/holder?v=1;force=1",
        "/v1.41/volumes/victim?%zz",
        "/v1.41/volumes/victim%",
        "volumes/victim",
        "http:volumes/victim",
    ] {
        let answer = guarded.call("DELETE", target);
        assert!(!(200..300).contains(&answer.status), "{target}: {} {}", answer.status, answer.body);
        is_there(target);
    }
    for method in ["delete", "Delete"] {
        assert!(guarded.call(method, "/v1.41/volumes/victim").status >= 400);
        is_there(method);
    }

    // Framing: HTTP/1.0, chunked, bodies that are missing, too long, or a form.
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let close = "Host: docker\r\nConnection: close\r\n";
    let all = "filters=%7B%22all%22%3A%5B%22true%22%5D%7D";
    let narrow = "/v1.41/volumes/prune?filters=%7B%22label%22%3A%5B%22nobody-has-this%22%5D%7D";
    let long = "x".repeat(2 << 20);
    let chunked = |body: &str| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let sized = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    for request in [
        "DELETE /v1.41/volumes/victim HTTP/1.0\r\n\r\n".to_owned(),
        format!("DELETE /v1.41/volumes/victim HTTP/1.1\r\n{close}{json}{}", chunked("{}")),
        format!("DELETE /v1.41/volumes/victim HTTP/1.1\r\n{close}{json}{}", sized(&long)),
        format!("DELETE /v1.41/volumes/victim HTTP/1.1\r\n{close}{form}{}", sized("force=1")),
        format!("DELETE /v1.41/containers/holder?v=0 HTTP/1.1\r\n{close}{form}{}", sized("v=1")),
        format!("GET /v1.41/volumes/victim HTTP/1.1\r\n{close}X-HTTP-Method-Override: DELETE\r\n\r\n"),
        format!("POST /v1.41/volumes/prune HTTP/1.1\r\n{close}\r\n"),
        "POST /v1.41/volumes/prune HTTP/1.0\r\n\r\n".to_owned(),
        format!("POST /v1.41/volumes/prune HTTP/1.1\r\n{close}{json}{}", sized("{}")),
        format!("POST /v1.41/volumes/prune HTTP/1.1\r\n{close}{json}{}", sized(&long)),
        format!("POST {narrow} HTTP/1.1\r\n{close}{form}{}", sized("filters=%7B%7D")),
        format!("POST {narrow} HTTP/1.1\r\n{close}{form}{}", chunked("filters=%7B%7D")),
        format!("POST {narrow} HTTP/1.1\r\n{close}{form}{json}{}", sized("filters=%7B%7D")),
        format!("POST {narrow} HTTP/1.1\r\n{close}{form}{json}{}", chunked("filters=%7B%7D")),
        format!("POST /volumes/prune?filters=%7B%7D HTTP/1.1\r\n{close}{form}{json}{}", chunked(all)),
        format!("POST /v1.41/containers/prune HTTP/1.1\r\n{close}{}", sized("")),
        format!(
            "POST /v1.41/containers/prune?filters=%7B%22label%21%22%3A%7B%22x%22%3Afalse%7D%7D HTTP/1.1\r\n{close}{}",
            sized("")
        ),
    ] {
        let shown = &request[..request.len().min(300)];
        let status = guarded.send(request.as_bytes());
        assert_eq!(status, if shown.starts_with("GET") { 200 } else { 403 }, "{shown}");
        is_there(shown);
    }
    // A prune whose filters leave them out is none of the guard's business.
    let fine = guarded.call("POST", narrow);
    assert_eq!(fine.status, 200, "{}", fine.body);
    is_there("narrow");
    // Nor is anything broken by all of this.
    host.docker(&["ps"]);
}
