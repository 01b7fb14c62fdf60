//! Tests that mount things: in a mount namespace that is gone with the process, so that nothing stays behind, however a test ends.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Tells the inner test that it is in a namespace of its own.
const INSIDE: &str = "VOLTOOL_TEST_INSIDE";

/// Runs the ignored test of that name in a mount namespace of its own, and asserts that it passes.
pub fn in_own_namespace(test: &str) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().expect("a path"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    let output = command.env(INSIDE, "1").output().expect("unshare runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    // What could not be tried here is said where the test is watched.
    let _ = std::io::stderr().write_all(err.as_bytes());
}

/// Whether this is the inner test.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Serves SFTP on a loopback port, for as long as the process runs: the distribution's `sftp-server` behind a socket, to which sshfs speaks
/// without ssh.
pub fn sftp() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let output = OwnedFd::from(stream.try_clone().expect("a copy"));
            let child = Command::new("/usr/lib/openssh/sftp-server")
                .stdin(Stdio::from(OwnedFd::from(stream)))
                .stdout(Stdio::from(output))
                .spawn();
            let mut child = child.expect("sftp-server runs");
            std::thread::spawn(move || child.wait());
        }
    });
    port
}
