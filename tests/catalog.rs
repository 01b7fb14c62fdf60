#![allow(missing_docs)]
mod support;
use support::host::Host;
#[test]
fn probe() {
    let host = Host::bare();
    let at = |w: &str| eprintln!("{w}: {}", host.docker(&["volume", "inspect", "--format", "{{.CreatedAt}}", "vol"]));
    host.docker(&["volume", "create", "vol"]);
    at("created");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    host.write("vol", "file", "x");
    at("written");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    host.run_container("c", &["-v", "vol:/image-volume"]);
    at("mounted");
    host.docker(&["rm", "-f", "cc"]);
    let _ = std::process::Command::new("timeout").arg("5").arg("docker").args(["-H", &host.engine.host(), "events", "--since", "0", "--format", "{{json .}}"]).status();
}
