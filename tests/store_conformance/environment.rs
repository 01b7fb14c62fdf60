//! Credentials, endpoint and path style from the environment.
//!
//! A process cannot change its own environment safely while it has threads, so each case runs this test binary again with the
//! environment that it wants; the child runs only [`child`].

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use bytes::Bytes;
use voltool::store::{S3Options, StoreUrl};

use crate::support::mem_s3::{ACCESS_KEY, BUCKET, MemS3, SECRET_KEY};

/// Stores and reads an object with what the environment says. Does nothing unless a parent asked for it.
#[tokio::test]
async fn child() {
    let Ok(url) = std::env::var("VOLTOOL_TEST_CHILD_URL") else { return };
    let store = voltool::store::open(&StoreUrl::parse(&url).unwrap(), &S3Options::default()).await.unwrap();
    match store.put("from/the/environment", Bytes::from_static(b"x")).await {
        Ok(()) => println!("stored in {}", store.url()),
        Err(error) => println!("{:?}: {error}", error.kind),
    }
}

async fn run_child(home: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::child", "--nocapture"]).env_clear().env("HOME", home);
    command.env("VOLTOOL_TEST_CHILD_URL", format!("s3://{BUCKET}/env")).env("AWS_EC2_METADATA_DISABLED", "true");
    let Output { status, stdout, stderr } = command.envs(variables.iter().copied()).output().await.unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
    assert!(!text.contains(SECRET_KEY), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_and_credentials_come_from_the_environment_or_a_profile() {
    let home = tempfile::tempdir().unwrap();
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let server = MemS3::new().serve().await;
        let endpoint = server.endpoint();
        let text = run_child(home.path(), &[keys[0], keys[1], (name, &endpoint)]).await;
        assert!(text.contains("stored in s3://backup/env"), "{text}");
        // A bucket in the host name would not have got here: the address is a number.
        assert_eq!(server.s3.keys(), ["env/from/the/environment"]);
    }
    let server = MemS3::new().serve().await;
    let text = run_child(
        home.path(),
        &[keys[0], keys[1], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ENDPOINT_URL_S3", &server.endpoint())],
    )
    .await;
    assert!(text.contains("stored in"), "the one for S3 goes first: {text}");

    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let profile = format!(
        "[profile backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\nendpoint_url = {}\n",
        server.endpoint()
    );
    std::fs::write(home.path().join(".aws/config"), profile).unwrap();
    let text = run_child(home.path(), &[("AWS_PROFILE", "backup")]).await;
    assert!(text.contains("stored in"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_at_all() {
    let home = tempfile::tempdir().unwrap();
    let server = MemS3::new().serve().await;
    let begun = Instant::now();
    let text = run_child(home.path(), &[("AWS_ENDPOINT_URL", &server.endpoint())]).await;
    assert!(
        text.contains("Denied: cannot write from/the/environment in s3://backup/env: no usable S3 credentials"),
        "{text}"
    );
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
