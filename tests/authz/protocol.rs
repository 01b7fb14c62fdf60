//! The protocol on the socket, with a decider of the test's own.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::no_volumes::NoVolumes;
use async_trait::async_trait;
use base64::Engine as _;
use serde_json::{Value, json};
use voltool::guard::Step;
use voltool::guard::authz::Destroying;
use voltool::plugin::{self, Authz, Decide, Listening, Plugin, Ruling, SocketError, client, wire};

/// Decides by the volume's name.
#[derive(Default)]
struct Fake {
    log: Mutex<Vec<String>>,
    release: tokio::sync::Notify,
}

#[async_trait]
impl Decide for Fake {
    async fn decide(&self, destroying: Destroying, _: Vec<Destroying>) -> Ruling {
        let Step::RemoveVolume { volume, .. } = destroying.step else { return Ruling::Allow };
        match volume.as_str() {
            "panics" => panic!("for the test"),
            "hangs" => std::future::pending().await,
            "waits" => {
                self.release.notified().await;
                Ruling::Allow
            }
            "precious" => Ruling::Refuse("it is the last copy\n  really".to_owned()),
            _ => Ruling::Allow,
        }
    }

    fn log(&self, text: &str) {
        self.log.lock().expect("not poisoned").push(text.to_owned());
    }
}

/// A plugin that is served on a socket.
struct Served {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    fake: Arc<Fake>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    runtime: tokio::runtime::Runtime,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Served {
    fn start(timeout: Duration) -> Served {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("plugins/voltool.sock");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let plugin = Arc::new(Plugin::new(Authz::new(fake.clone(), timeout), Arc::new(NoVolumes)));
        let mut listening = runtime.block_on(async { Listening::bind(&socket) }).expect("bound");
        let listener = listening.take().expect("not taken");
        let server = runtime.spawn(async move {
            plugin::serve(listener, plugin, async { drop(stopped.await) }, Duration::from_secs(20)).await;
            drop(listening);
        });
        Served { _dir: dir, socket, fake, stop: Some(stop), runtime, server: Some(server) }
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        let server = self.server.take().expect("runs");
        self.runtime.block_on(server).expect("ended");
    }

    fn ask(&self, question: &Value) -> Value {
        self.post(wire::AUTHZ_REQUEST, question.to_string().as_bytes())
    }

    fn remove(&self, volume: &str) -> Value {
        self.ask(&json!({ "RequestMethod": "DELETE", "RequestUri": format!("/v1.41/volumes/{volume}") }))
    }

    /// As an engine of 20.10 asks: no `Content-Type`, an empty `Host`.
    fn post(&self, path: &str, body: &[u8]) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("listens");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: \r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // One that is too long is answered before it has been read.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        serde_json::from_str(body).expect("JSON")
    }
}

fn allowed() -> Value {
    json!({ "Allow": true, "Msg": "" })
}

#[track_caller]
fn assert_denied(answer: &Value, why: &str) {
    assert_eq!(answer["Allow"], false, "{answer}");
    assert!(answer["Msg"].as_str().is_some_and(|text| text.contains(why)), "{answer}");
    assert!(answer.get("Err").is_none(), "an engine ignores it, or worse");
}

#[test]
fn a_plugin_says_what_it_is_and_decides() {
    let served = Served::start(Duration::from_secs(30));
    client::is_authz(&served.socket, Duration::from_secs(5)).expect("it authorizes");
    assert_eq!(served.post(wire::ACTIVATE, b""), json!({ "Implements": ["VolumeDriver", "authz"] }));
    assert_eq!(
        served.ask(&json!({ "RequestMethod": "GET", "RequestUri": "/v1.41/info", "RequestHeaders": null })),
        allowed()
    );
    assert_eq!(served.remove("other"), allowed());
    assert_denied(&served.remove("precious"), "it is the last copy\n  really");
    assert_denied(&served.ask(&json!({ "RequestMethod": "DELETE", "RequestUri": "/Volumes/x" })), "cannot be judged");
    let create = json!({ "HostConfig": { "AutoRemove": true, "Binds": ["/data"] } }).to_string();
    let create = base64::engine::general_purpose::STANDARD.encode(create);
    let question = json!({ "RequestMethod": "POST", "RequestUri": "/containers/create", "RequestBody": create });
    assert_eq!(served.ask(&question), allowed());
    assert_eq!(served.post(wire::AUTHZ_RESPONSE, b"not even JSON"), allowed());
    let status = served.post(wire::STATUS, b"");
    assert_eq!((&status["requests"], &status["judged"], &status["refused"]), (&json!(5), &json!(2), &json!(2)));
    let log = served.fake.log.lock().expect("not poisoned").clone();
    assert_eq!(log[0], "allowed DELETE /volumes/other");
    assert!(log[1].starts_with("refused DELETE /volumes/precious: it is"), "{log:?}");
    assert!(log[2].starts_with("refused DELETE /Volumes/x: the request cannot"), "{log:?}");
    assert!(log[3].contains("--rm"), "{log:?}");
    assert_eq!(log.len(), 4, "what is harmless is not logged: {log:?}");
}

#[test]
fn a_question_that_did_not_arrive_is_refused() {
    let served = Served::start(Duration::from_secs(30));
    // What an engine sends again after a lost answer.
    assert_denied(&served.post(wire::AUTHZ_REQUEST, b""), "did not arrive");
    for body in ["{", "null", "{\"RequestMethod\":1}", "{\"RequestUri\":\"/a\",\"RequestUri\":\"/b\"}"] {
        assert_denied(&served.post(wire::AUTHZ_REQUEST, body.as_bytes()), "cannot be read");
    }
    for question in [json!({}), json!([]), json!({ "RequestMethod": "DELETE" }), json!({ "RequestUri": "/volumes/x" })]
    {
        assert_denied(&served.ask(&question), "without its method or its target");
    }
    let long = format!("{{\"RequestBody\":\"{}\"", "A".repeat(wire::MAX_BODY));
    assert_denied(&served.post(wire::AUTHZ_REQUEST, long.as_bytes()), "did not arrive");
    assert_eq!(served.post(wire::AUTHZ_RESPONSE, long.as_bytes()), allowed(), "too late to refuse");
}

#[test]
fn one_connection_takes_many_questions() {
    let served = Served::start(Duration::from_secs(30));
    let mut stream = UnixStream::connect(&served.socket).expect("listens");
    for (path, body) in [(wire::AUTHZ_REQUEST, ""), (wire::AUTHZ_RESPONSE, "{}"), (wire::ACTIVATE, "")] {
        write!(stream, "POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).expect("answered");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{path}");
    }
    write!(stream, "POST /GraphDriver.Init HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n").expect("sent");
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).expect("answered");
    assert!(answer[..length].starts_with(b"HTTP/1.1 404"));
}

/// Notes which containers' removals each decision was told of.
#[derive(Default)]
struct Watcher(Mutex<Vec<Vec<String>>>);

#[async_trait]
impl Decide for Watcher {
    async fn decide(&self, destroying: Destroying, others: Vec<Destroying>) -> Ruling {
        let name = |one: &Destroying| match &one.step {
            Step::RemoveContainer { container, .. } => container.clone(),
            other => panic!("{other:?}"),
        };
        self.0.lock().expect("not poisoned").push(others.iter().map(name).collect());
        if name(&destroying) == "refused" { Ruling::Refuse("no".to_owned()) } else { Ruling::Allow }
    }

    fn log(&self, _: &str) {}
}

#[tokio::test]
async fn what_is_allowed_counts_until_the_engine_says_that_it_is_done() {
    let decider = Arc::new(Watcher::default());
    let plugin = Plugin::new(Authz::new(decider.clone(), Duration::from_secs(5)), Arc::new(NoVolumes));
    let tell = async |path: &str, name: &str| {
        let body =
            json!({"RequestMethod": "DELETE", "RequestUri": format!("/v1.41/containers/{name}?v=1")}).to_string();
        plugin.answer(path, Some(body.as_bytes())).await
    };
    for (path, name) in [
        (wire::AUTHZ_REQUEST, "one"),
        (wire::AUTHZ_REQUEST, "refused"),
        (wire::AUTHZ_REQUEST, "two"),
        (wire::AUTHZ_RESPONSE, "one"),
        (wire::AUTHZ_RESPONSE, "never asked"),
        (wire::AUTHZ_REQUEST, "three"),
    ] {
        tell(path, name).await;
    }
    let told = decider.0.lock().expect("not poisoned").clone();
    assert_eq!(told, [vec![], vec!["one".to_owned()], vec!["one".to_owned()], vec!["two".to_owned()]]);
}

#[test]
fn a_panic_is_a_refusal() {
    let served = Served::start(Duration::from_secs(30));
    assert_denied(&served.remove("panics"), "a bug in voltool");
    assert_eq!(served.remove("other"), allowed(), "and nothing else");
}

#[test]
fn a_decision_that_takes_too_long_is_a_refusal_and_holds_up_nothing_harmless() {
    let served = Served::start(Duration::from_millis(300));
    // As many as are judged at once, which never end.
    std::thread::scope(|scope| {
        for _ in 0..plugin::authz::DECISIONS {
            scope.spawn(|| assert_denied(&served.remove("hangs"), "guard.timeout"));
        }
    });
    assert_denied(&served.remove("other"), "guard.timeout");
    assert_eq!(served.ask(&json!({ "RequestMethod": "GET", "RequestUri": "/v1.41/info" })), allowed());
}

#[test]
fn stopping_waits_for_a_decision_and_removes_the_socket() {
    let mut served = Served::start(Duration::from_secs(30));
    assert_eq!(std::fs::metadata(&served.socket).expect("there").permissions().mode() & 0o777, 0o600);
    // An idle connection, which must not hold up the end.
    let _idle = UnixStream::connect(&served.socket).expect("listens");
    let mut stream = UnixStream::connect(&served.socket).expect("listens");
    let body = json!({ "RequestMethod": "DELETE", "RequestUri": "/volumes/waits" }).to_string();
    write!(stream, "POST {} HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\n\r\n{body}", wire::AUTHZ_REQUEST, body.len())
        .expect("sent");
    while served.post(wire::STATUS, b"")["judged"] == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    served.fake.release.notify_one();
    served.stop();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.ends_with(&allowed().to_string()), "{answer}");
    assert!(!served.socket.exists());
}

/// Makes and drops a socket, on a runtime as it needs one.
fn bind(path: &Path) -> Result<Listening, SocketError> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { Listening::bind(path) })
}

#[test]
fn only_a_socket_that_nobody_listens_on_is_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("voltool.sock");
    // Left by a process that was killed.
    drop(UnixListener::bind(&path).expect("bound"));
    let listening = bind(&path).expect("replaced");
    let taken = bind(&path).expect_err("somebody listens");
    assert!(matches!(taken, SocketError::Taken(_)), "{taken}");
    UnixStream::connect(&path).expect("the first still listens");
    // Replaced behind its back: not its own any more.
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "a file").expect("written");
    drop(listening);
    assert_eq!(std::fs::read_to_string(&path).expect("left alone"), "a file");
    assert!(matches!(bind(&path).expect_err("a file"), SocketError::NoSocket(_)));
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing is left beside it");
}
