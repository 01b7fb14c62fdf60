//! What engines wait for when they ask for volumes, with a thousand of them there.
//!
//! ```sh
//! cargo bench --bench plugin
//! ```
//!
//! The aim is under 1 ms for `Get`, which engines ask before nearly everything. What is printed includes the time of the asking side, which
//! shares the machine. How much later an engine starts can be measured by hand, where nothing else runs:
//!
//! ```sh
//! time systemctl restart docker                                             # without volumes of the driver
//! for n in $(seq 1000); do docker volume create -d voltool v$n; done >/dev/null
//! time systemctl restart docker                                             # one Get for each of them
//! ```

#[path = "../tests/support/fake_outside.rs"]
#[allow(dead_code)]
mod fake_outside;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use fake_outside::Served;
use serde_json::json;

const VOLUMES: usize = 1_000;
/// How many ask at once.
const ASKERS: usize = 4;
/// How many questions each of them asks.
const EACH: usize = 2_000;

fn main() {
    let served = Served::new();
    let begin = Instant::now();
    for n in 0..VOLUMES {
        served.create(&format!("volume-{n}"), &json!({}));
    }
    print("Create", vec![begin.elapsed() / u32::try_from(VOLUMES).expect("few")], begin.elapsed());
    report(&served, "Get", EACH);
    report(&served, "Mount", EACH);
    report(&served, "Unmount", EACH);
    // A thousand volumes in each answer.
    report(&served, "List", EACH / 20);
}

fn report(served: &Served, question: &str, each: usize) {
    let begin = Instant::now();
    let ask = &|asker: usize| -> Vec<Duration> {
        let mut stream = UnixStream::connect(served.socket()).expect("listens");
        let name = |n: usize| format!("volume-{}", (asker * each + n) % VOLUMES);
        (0..each)
            .map(|n| {
                let body = json!({ "Name": name(n), "ID": format!("{asker}-{n}") }).to_string();
                let begin = Instant::now();
                exchange(&mut stream, question, &body);
                begin.elapsed()
            })
            .collect()
    };
    let times = std::thread::scope(|scope| {
        let all: Vec<_> = (0..ASKERS).map(|asker| scope.spawn(move || ask(asker))).collect();
        all.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    });
    print(question, times, begin.elapsed());
}

/// One question and its answer, as an engine asks: on a connection that is kept.
fn exchange(stream: &mut UnixStream, question: &str, body: &str) {
    let length = body.len();
    let request = format!("POST /VolumeDriver.{question} HTTP/1.1\r\nHost: \r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut answer, mut part) = (Vec::new(), [0; 65_536]);
    loop {
        let read = stream.read(&mut part).expect("answered");
        assert!(read > 0, "answered");
        answer.extend_from_slice(&part[..read]);
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if answer.len() >= head + 4 + length.expect("a length") {
            assert!(text.starts_with("http/1.1 200"), "{text}");
            return;
        }
    }
}

#[allow(clippy::print_stdout)]
fn print(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{what}, {VOLUMES} volumes: {:.1} s; µs: p50 {}, p99 {}, max {}",
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
