//! Every storage keeps the same promises: one suite, run against each of them, and what each does when things go wrong.

// A test that cannot run here says so.
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod environment;
mod local;
mod probing;
mod s3;
mod suite;
mod wrappers;

use std::sync::Arc;

use suite::Conditions;
use support::mem_s3::{ChecksumHabit, Condition, MemS3};
use voltool::store::fault::{Fault, FaultStore};
use voltool::store::local::LocalStore;
use voltool::store::record::RecordStore;
use voltool::store::s3::S3Store;
use voltool::store::{S3Options, Store};

#[tokio::test(flavor = "multi_thread")]
async fn local_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().join("not/there/yet"));
    suite::run(&store, Conditions::Honoured).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_with_conditions() {
    let server = MemS3::new().page(7).serve().await;
    suite::run(&server.store("hosts/a"), Conditions::Honoured).await;
    assert_eq!(server.s3.keys(), Vec::<String>::new(), "the suite removes what it made");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_ignores_conditions_and_ranges() {
    let server =
        MemS3::new().condition(Condition::Ignored).checksums(ChecksumHabit::Silent).ignores_ranges().serve().await;
    suite::run(&server.store(""), Conditions::Ignored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_refuses_conditions_and_checksums() {
    let server = MemS3::new().condition(Condition::Refused).checksums(ChecksumHabit::Refused).serve().await;
    suite::run(&server.store("p"), Conditions::Refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrappers_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalStore::new(dir.path().join("repository")));
    let store = RecordStore::new(Arc::new(FaultStore::new(local, |_| Fault::None)));
    suite::run(&store, Conditions::Honoured).await;
}

/// Runs against a real server if `VOLTOOL_TEST_S3_ENDPOINT`, `VOLTOOL_TEST_S3_BUCKET` and AWS credentials are set, as
/// `tests/garage.sh run` does.
#[tokio::test(flavor = "multi_thread")]
async fn real_s3_server() {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(endpoint), Some(bucket)) = (variable("VOLTOOL_TEST_S3_ENDPOINT"), variable("VOLTOOL_TEST_S3_BUCKET"))
    else {
        println!("skipped: VOLTOOL_TEST_S3_ENDPOINT and VOLTOOL_TEST_S3_BUCKET are not set");
        return;
    };
    let options = S3Options { endpoint: Some(endpoint), ..S3Options::default() };
    let prefix = format!("conformance/{}", ulid::Ulid::generate());
    let store = S3Store::connect(&bucket, &prefix, &options).await.unwrap();
    store.prepare().await.unwrap();
    let report = voltool::store::probe::probe(&store).await.unwrap();
    println!("{} is {report:?}", store.url());
    assert_eq!(report.problems(), Vec::<String>::new());
    suite::run(&store, report.conditional_put.into()).await;
    assert_eq!(store.list("").await.unwrap(), []);
    s3::real_server_failures(&bucket, &options).await;
}
