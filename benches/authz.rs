//! How long an engine waits for the answer to a harmless request: the plugin is served on a socket as the daemon serves it, and asked as
//! engines ask, over connections that are kept and over new ones.
//!
//! ```text
//! cargo bench --bench authz
//! ```
//!
//! The aim is under 1 ms for 99 of 100 questions, at 2,000 requests (4,000 questions: before and after each) a second. What is
//! printed includes the time of the asking side, which shares the machine.

#[path = "../tests/support/no_volumes.rs"]
mod no_volumes;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use no_volumes::NoVolumes;
use voltool::guard::authz::Destroying;
use voltool::plugin::{self, Authz, Decide, Listening, Plugin, Ruling, wire};

/// What an engine asks about, as `docker ps` and `docker create` have it ask.
const QUESTIONS: [&str; 3] = [
    r#"{"RequestMethod":"GET","RequestUri":"/v1.45/containers/json","RequestHeaders":{"Accept-Encoding":"gzip","User-Agent":"Docker-Client/26.1.5 (linux)"}}"#,
    r#"{"RequestMethod":"HEAD","RequestUri":"/_ping","RequestHeaders":{"User-Agent":"Docker-Client/26.1.5 (linux)"}}"#,
    r#"{"RequestMethod":"POST","RequestUri":"/v1.45/containers/create?name=db","RequestBody":"eyJJbWFnZSI6InBvc3RncmVzIiwiSG9zdENvbmZpZyI6eyJCaW5kcyI6WyJkYjovZGF0YSJdfX0=","RequestHeaders":{"Content-Type":"application/json","Content-Length":"56"}}"#,
];

/// How many ask at once.
const ASKERS: usize = 4;
/// How many questions each of them asks.
const EACH: usize = 5_000;

struct Never;

#[async_trait]
impl Decide for Never {
    async fn decide(&self, _: Destroying, _: Vec<Destroying>) -> Ruling {
        Ruling::Allow
    }

    fn log(&self, _: &str) {}
}

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("voltool.sock");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut listening = runtime.block_on(async { Listening::bind(&socket) }).expect("bound");
    let listener = listening.take().expect("not taken");
    let plugin = Arc::new(Plugin::new(Authz::new(Arc::new(Never), Duration::from_secs(30)), Arc::new(NoVolumes)));
    runtime.spawn(plugin::serve(listener, plugin, std::future::pending(), Duration::ZERO));

    report("kept connections", || {
        let mut stream = UnixStream::connect(&socket).expect("listens");
        move |question| exchange(&mut stream, question)
    });
    report("new connections", || {
        |question: &str| {
            let mut stream = UnixStream::connect(&socket).expect("listens");
            exchange(&mut stream, question);
        }
    });
    paced(&socket);
}

/// As fast as the askers can.
fn report<A: FnMut(&str)>(what: &str, asker: impl Fn() -> A + Sync) {
    let begin = Instant::now();
    let times = in_parallel(|| {
        let mut ask = asker();
        (0..EACH).map(|n| timed(|| ask(QUESTIONS[n % QUESTIONS.len()]))).collect()
    });
    print(what, times, begin.elapsed());
}

/// At the rate that is aimed for, on new connections, half of the questions being the ones after a request.
fn paced(socket: &Path) {
    const RATE: f64 = 4_000.0;
    let begin = Instant::now();
    let times = in_parallel(|| {
        let pause = Duration::from_secs_f64(ASKERS as f64 / RATE);
        let start = Instant::now();
        (0..EACH)
            .map(|n| {
                let due = pause * u32::try_from(n).expect("few");
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                timed(|| {
                    let mut stream = UnixStream::connect(socket).expect("listens");
                    exchange(&mut stream, QUESTIONS[n % QUESTIONS.len()]);
                })
            })
            .collect()
    });
    print("new connections, 4,000 a second", times, begin.elapsed());
}

fn in_parallel(work: impl Fn() -> Vec<Duration> + Sync) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..ASKERS).map(|_| scope.spawn(&work)).collect();
        all.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// One question and its answer.
fn exchange(stream: &mut UnixStream, question: &str) {
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: \r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\n\r\n{question}",
        wire::AUTHZ_REQUEST,
        question.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"}") {
        length += stream.read(&mut answer[length..]).expect("answered");
    }
    assert!(answer[..length].ends_with(br#"{"Allow":true,"Msg":""}"#));
}

#[allow(clippy::print_stdout)]
fn print(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{what}: {:.0} questions a second; µs: p50 {}, p99 {}, p99.9 {}, max {}",
        times.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
