//! What the S3 client makes of servers that fail.

use std::time::{Duration, Instant};

use bytes::Bytes;
use s3s::{S3Error, S3ErrorCode, s3_error};
use voltool::store::s3::S3Store;
use voltool::store::{ErrorKind, PutIfAbsent, S3Options, Store, StoreError};

use crate::support::mem_s3::{ACCESS_KEY, BUCKET, ChecksumHabit, Condition, Fault, MemS3, SECRET_KEY};

const DATA: Bytes = Bytes::from_static(b"0123456789");

fn status(code: u16) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom("".into()), "");
    error.set_status_code(code.to_string().parse().unwrap());
    error
}

/// Every call that can fail, on a store where it must.
async fn all_errors(store: &S3Store) -> Vec<StoreError> {
    vec![
        store.prepare().await.unwrap_err(),
        store.put("a", DATA).await.unwrap_err(),
        store.put_if_absent("a", DATA).await.unwrap_err(),
        store.get("a").await.unwrap_err(),
        store.get_range("a", 0, 1).await.unwrap_err(),
        store.get_tail("a", 1).await.unwrap_err(),
        store.size("a").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ]
}

fn check_all(errors: Vec<StoreError>, kind: ErrorKind, words: &str) {
    for error in errors {
        assert_eq!(error.kind, kind, "{error}");
        let text = error.to_string();
        // The answer to a HEAD has no body to take words from.
        assert!(error.action == "look up" || text.contains(words), "{text}");
        assert!(
            !text.contains('\n') && !text.contains(SECRET_KEY) && !format!("{error:?}").contains(SECRET_KEY),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let server = MemS3::new().serve().await;
    let store = S3Store::with_credentials("typo", "p", &server.options(), ACCESS_KEY, SECRET_KEY).unwrap();
    let errors = all_errors(&store).await;
    assert_eq!(
        errors[0].to_string(),
        "cannot prepare s3://typo/p: NoSuchBucket: The specified bucket does not exist: typo (HTTP 404)"
    );
    check_all(errors, ErrorKind::NoContainer, "NoSuchBucket");
}

#[tokio::test]
async fn wrong_credentials() {
    let server = MemS3::new().serve().await;
    for (access, secret, words) in
        [(ACCESS_KEY, "another secret", "SignatureDoesNotMatch"), ("GKother", SECRET_KEY, "InvalidAccessKeyId")]
    {
        let store = S3Store::with_credentials(BUCKET, "p", &server.options(), access, secret).unwrap();
        check_all(all_errors(&store).await, ErrorKind::Denied, words);
        assert!(!format!("{store:?}").contains("secret"));
    }
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = S3Options { endpoint: Some(format!("http://127.0.0.1:{port}")), ..S3Options::default() };
    let store = S3Store::with_credentials(BUCKET, "p", &options, ACCESS_KEY, SECRET_KEY).unwrap();
    let begun = Instant::now();
    let error = store.prepare().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    let expected =
        format!("cannot prepare s3://backup/p: cannot connect to http://127.0.0.1:{port}: Connection refused");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let options = S3Options { endpoint: Some("http://no-such-host.invalid:1".to_owned()), ..S3Options::default() };
    let store = S3Store::with_credentials(BUCKET, "p", &options, ACCESS_KEY, SECRET_KEY).unwrap();
    let error = store.get("a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("cannot connect to http://no-such-host.invalid:1"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url() {
    for endpoint in ["localhost:9000", "ftp://host", "http://key:secret@host"] {
        let options = S3Options { endpoint: Some(endpoint.to_owned()), ..S3Options::default() };
        let error = S3Store::with_credentials(BUCKET, "p", &options, ACCESS_KEY, SECRET_KEY).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(S3Store::connect(BUCKET, "p", &options).await.unwrap_err(), error);
    }
}

#[tokio::test]
async fn a_storm_of_503_is_waited_out() {
    let server = MemS3::new().serve().await;
    let store = server.store("p");
    store.put("a", DATA).await.unwrap();
    // Each request fails three times, in turn as a busy server, a proxy and a throttle would.
    server.s3.on_request(|_, _, number| match number % 4 {
        0 => Some(Fault::Before(s3_error!(SlowDown, "Please reduce your request rate."))),
        1 => Some(Fault::Before(status(502))),
        2 => Some(Fault::Before(status(429))),
        _ => None,
    });
    // Enough at once to use up the SDK's own quota of retries.
    let puts = (0..80).map(|n| {
        let store = &store;
        async move { store.put(&format!("many/{n}"), DATA).await }
    });
    for result in futures_util::future::join_all(puts).await {
        result.unwrap();
    }
    assert_eq!(store.list("many/").await.unwrap().len(), 80);
    assert_eq!(store.get("many/0").await.unwrap(), DATA);
    assert_eq!(store.put_if_absent("b", DATA).await.unwrap(), PutIfAbsent::Created);
    store.delete("b").await.unwrap();
    assert_eq!(store.size("b").await.unwrap(), None);
}

#[tokio::test]
async fn a_storm_without_end_is_reported() {
    let server = MemS3::new().serve().await;
    server.s3.on_request(|_, _, _| Some(Fault::Before(s3_error!(SlowDown, "Please reduce your request rate."))));
    let begun = Instant::now();
    let error = server.store("p").put("a", DATA).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    let expected = "cannot write a in s3://backup/p: SlowDown: Please reduce your request rate (HTTP 503)";
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.s3.requests("PutObject"), 8);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lost_acknowledgement() {
    let server = MemS3::new().serve().await;
    let store = server.store("p");
    server.s3.on_request(|operation, _, number| {
        (operation == "PutObject" && number == 0).then(|| Fault::After(s3_error!(ServiceUnavailable)))
    });
    store.put("plain", DATA).await.unwrap();
    assert_eq!(server.s3.content("p/plain").unwrap(), DATA);
    assert_eq!(server.s3.requests("PutObject"), 2);
    // The first attempt was stored, the second finds it there: it is still ours.
    assert_eq!(store.put_if_absent("ours", DATA).await.unwrap(), PutIfAbsent::Created);
    assert_eq!(server.s3.content("p/ours").unwrap(), DATA);
    // Somebody else's object stays somebody else's, however often the request was sent.
    server.s3.on_request(|operation, key, number| {
        (operation == "PutObject" && key == "p/theirs" && number == 1)
            .then(|| Fault::Before(s3_error!(ServiceUnavailable)))
    });
    store.put("theirs", Bytes::from_static(b"theirs")).await.unwrap();
    assert_eq!(store.put_if_absent("theirs", DATA).await.unwrap(), PutIfAbsent::Exists);
    assert_eq!(server.s3.requests("PutObject"), 2 + 2 + 3);
}

#[tokio::test]
async fn two_conditional_writes_that_meet() {
    let server = MemS3::new().serve().await;
    server.s3.on_request(|operation, _, number| {
        let mut conflict = S3Error::new(S3ErrorCode::Custom("ConditionalRequestConflict".into()));
        conflict.set_status_code("409".parse().unwrap());
        (operation == "PutObject" && number == 0).then_some(Fault::Before(conflict))
    });
    assert_eq!(server.store("").put_if_absent("a", DATA).await.unwrap(), PutIfAbsent::Created);
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let server = MemS3::new().serve().await;
    let store = server.store("p");
    let data = Bytes::from(vec![7; 1_000_000]);
    store.put("a", data.clone()).await.unwrap();
    server.s3.on_request(|operation, _, number| (operation == "GetObject" && number < 2).then_some(Fault::BreakBody));
    assert!(store.get("a").await.unwrap() == data);
    assert_eq!(server.s3.requests("GetObject"), 3);
    server.s3.on_request(|operation, _, _| (operation == "GetObject").then_some(Fault::BreakBody));
    for error in [store.get("a").await.unwrap_err(), store.get_range("a", 5, 900_000).await.unwrap_err()] {
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("broke off"), "{error}");
    }
}

#[tokio::test]
async fn damage_is_seen_where_the_server_keeps_checksums() {
    let server = MemS3::new().serve().await;
    let store = server.store("p");
    store.put("a", DATA).await.unwrap();
    server.s3.corrupt("p/a", 3);
    let error = store.get("a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test]
async fn a_damaged_upload_is_refused() {
    let server = MemS3::new().serve().await;
    server.s3.on_request(|operation, _, _| {
        (operation == "PutObject").then(|| Fault::Before(s3_error!(BadDigest, "The CRC32C did not match.")))
    });
    let error = server.store("").put("a", DATA).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test]
async fn a_refused_checksum_is_asked_for_once() {
    let server = MemS3::new().checksums(ChecksumHabit::Refused).serve().await;
    let store = server.store("");
    assert_eq!(store.checksum_support(), None);
    for key in ["a", "b", "c"] {
        store.put(key, DATA).await.unwrap();
    }
    assert_eq!(server.s3.requests("PutObject"), 4);
    assert_eq!(store.checksum_support(), Some("refused"));
}

#[tokio::test]
async fn a_missing_feature_is_no_reason_to_drop_checksums() {
    let server = MemS3::new().condition(Condition::Refused).serve().await;
    let store = server.store("");
    assert_eq!(store.put_if_absent("a", DATA).await.unwrap(), PutIfAbsent::Unsupported);
    assert_eq!(store.checksum_support(), None, "nothing was stored, so nothing was learnt");
    store.put("a", DATA).await.unwrap();
    assert_eq!(store.checksum_support(), Some("crc32c"));
    assert_eq!(store.put_if_absent("b", DATA).await.unwrap(), PutIfAbsent::Unsupported);
    assert_eq!(server.s3.requests("PutObject"), 4, "with checksums known to work, the refusal is believed at once");
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = MemS3::new().serve().await;
    let store = server.store("");
    for n in 0..50 {
        // The time limits differ with the size, which must not open a connection for each.
        store.put(&format!("{n}"), Bytes::from(vec![0; n * 20_000])).await.unwrap();
        store.get(&format!("{n}")).await.unwrap();
    }
    assert!(server.s3.connections() <= 3, "{} connections for 100 requests", server.s3.connections());
}

#[tokio::test]
async fn answers_that_are_not_s3() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 65536];
            let _ = socket.read(&mut request).await;
            let page = "<html><body>Please log in to the Wi-Fi</body></html>";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
            let _ = socket.write_all(format!("{head}{page}").as_bytes()).await;
        }
    });
    let options = S3Options { endpoint: Some(endpoint), ..S3Options::default() };
    let store = S3Store::with_credentials(BUCKET, "p", &options, ACCESS_KEY, SECRET_KEY).unwrap();
    // An empty listing would be a lie: what is not listed counts as gone.
    let error = store.list("").await.unwrap_err();
    assert!(error.to_string().contains("not S3"), "{error}");
}

/// What a real server says to a wrong bucket, a wrong secret and a wrong region.
pub async fn real_server_failures(bucket: &str, options: &S3Options) {
    let store = S3Store::connect("no-such-bucket-here", "p", options).await.unwrap();
    let error = store.prepare().await.unwrap_err();
    println!("{error}");
    assert!(matches!(error.kind, ErrorKind::NoContainer | ErrorKind::Denied), "{error}");
    let region = std::env::var("AWS_REGION").ok();
    let options = S3Options { region, ..options.clone() };
    let access = std::env::var("AWS_ACCESS_KEY_ID").unwrap();
    let store = S3Store::with_credentials(bucket, "p", &options, &access, "not the secret").unwrap();
    let error = store.prepare().await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let options = S3Options { region: Some("somewhere-else".to_owned()), ..options };
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap();
    match S3Store::with_credentials(bucket, "p", &options, &access, &secret).unwrap().prepare().await {
        Ok(()) => println!("the server takes any region"),
        Err(error) => {
            println!("{error}");
            assert!(error.to_string().to_lowercase().contains("region") || error.kind == ErrorKind::Invalid, "{error}");
        }
    }
}
