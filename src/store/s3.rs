//! A bucket and a prefix on an S3-compatible server as storage.
//!
//! Servers differ. Some refuse checksums or conditional writes, some ignore them, some ignore ranges: what is asked of a server
//! here is what all have, and what comes back is checked.

mod failure;
mod options;
mod retry;

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::{Bytes, BytesMut};

use self::failure::Failure;
use self::options::Connection;
pub use self::options::S3Options;
use self::retry::Attempts;
use super::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store};

/// How often a body is fetched again that broke off on the way. The SDK repeats requests, not bodies that had begun to arrive.
const BODY_ATTEMPTS: u32 = 4;

/// No more than this is allocated on the word of a header alone.
const MAX_PREALLOCATION: u64 = 64 << 20;

/// What is known about the server and the CRC32C that goes with each PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksums {
    /// Nothing was written yet.
    Unknown,
    /// The server repeated the checksum in its answer, so it computed or at least keeps it.
    Confirmed,
    /// The server took it and says nothing about it.
    Silent,
    /// The server refuses requests that carry one.
    Refused,
}

impl Checksums {
    const ALL: [Checksums; 4] = [Checksums::Unknown, Checksums::Confirmed, Checksums::Silent, Checksums::Refused];
}

/// A bucket and a prefix on an S3-compatible server.
pub struct S3Store {
    connection: Connection,
    bucket: String,
    /// What stands before every key: empty, or ending with a slash.
    root: String,
    url: String,
    /// A position in [`Checksums::ALL`].
    checksums: AtomicU8,
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Store").field("url", &self.url).field("endpoint", &self.connection.endpoint).finish()
    }
}

/// A part of an object to fetch.
#[derive(Debug, Clone, Copy)]
enum Part {
    All,
    Range { offset: u64, len: u64 },
    Tail { len: u64 },
}

/// What a GET brought.
struct Fetched {
    data: Bytes,
    /// The size of the whole object.
    size: u64,
}

impl S3Store {
    /// Makes a store of `prefix` (no slash at either end, may be empty) in `bucket`, with credentials, region and endpoint
    /// from `options` and the standard AWS configuration. Sends nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the endpoint is no http or https URL, or holds credentials.
    pub async fn connect(bucket: &str, prefix: &str, options: &S3Options) -> Result<S3Store> {
        let url = display_url(bucket, prefix);
        Ok(S3Store::new(bucket, prefix, Connection::open(options, &url).await?))
    }

    /// Makes a store with fixed credentials, ignoring the environment and the AWS configuration files. For tests, and for
    /// programs that keep credentials elsewhere.
    ///
    /// # Errors
    /// As [`S3Store::connect`].
    pub fn with_credentials(
        bucket: &str,
        prefix: &str,
        options: &S3Options,
        access_key: &str,
        secret_key: &str,
    ) -> Result<S3Store> {
        let url = display_url(bucket, prefix);
        Ok(S3Store::new(bucket, prefix, Connection::with_credentials(options, &url, access_key, secret_key)?))
    }

    fn new(bucket: &str, prefix: &str, connection: Connection) -> S3Store {
        let prefix = prefix.trim_matches('/');
        let root = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let url = display_url(bucket, prefix);
        S3Store { connection, bucket: bucket.to_owned(), root, url, checksums: AtomicU8::new(0) }
    }

    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    fn checksums(&self) -> Checksums {
        let known = usize::from(self.checksums.load(Ordering::Relaxed));
        Checksums::ALL.get(known).copied().unwrap_or(Checksums::Unknown)
    }

    fn set_checksums(&self, found: Checksums) {
        self.checksums.store(found as u8, Ordering::Relaxed);
    }

    /// Sends one PUT, with or without a checksum and the condition that the object is not there.
    async fn send_put(
        &self,
        key: &str,
        data: &Bytes,
        if_absent: bool,
        checksum: bool,
        attempts: &Attempts,
    ) -> std::result::Result<(), Failure> {
        let request = self
            .connection
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.object(key))
            .content_length(i64::try_from(data.len()).unwrap_or(i64::MAX))
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .set_checksum_algorithm(checksum.then_some(ChecksumAlgorithm::Crc32C))
            .body(ByteStream::from(data.clone()));
        let mut request = attempts.limit(request.customize(), data.len() as u64);
        if self.connection.encrypted && checksum {
            // TLS and CRC32C protect the body; a SHA-256 over it for the signature would be most of an upload's CPU time.
            request = request.disable_payload_signing();
        }
        let answer = request.send().await.map_err(|error| Failure::of(&error, &self.connection.endpoint))?;
        let found = match answer.checksum_crc32_c() {
            _ if !checksum => Checksums::Refused,
            Some(_) => Checksums::Confirmed,
            None => Checksums::Silent,
        };
        self.set_checksums(found);
        Ok(())
    }

    /// As [`S3Store::send_put`], with a checksum unless the server turned out to refuse them.
    async fn put_checked(
        &self,
        key: &str,
        data: &Bytes,
        if_absent: bool,
        attempts: &Attempts,
    ) -> std::result::Result<(), Failure> {
        let known = self.checksums();
        let result = self.send_put(key, data, if_absent, known != Checksums::Refused, attempts).await;
        match result {
            Err(failure) if known == Checksums::Unknown && failure.may_be_about_checksums() => {
                // If it fails again without, the second answer is the one about the real problem.
                self.send_put(key, data, if_absent, false, attempts).await
            }
            result => result,
        }
    }

    /// Fetches a part of an object, again if the body breaks off.
    async fn fetch(&self, key: &str, part: Part) -> std::result::Result<Fetched, Failure> {
        let mut wait = Duration::from_millis(200);
        for attempt in 1.. {
            match self.fetch_once(key, part).await {
                Err(Broken::Body(_)) if attempt < BODY_ATTEMPTS => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(Broken::Body(failure) | Broken::Request(failure)) => return Err(failure),
                Ok(fetched) => return Ok(fetched),
            }
        }
        Err(Failure::new(ErrorKind::Other, "no attempt was made"))
    }

    async fn fetch_once(&self, key: &str, part: Part) -> std::result::Result<Fetched, Broken> {
        let (range, expected) = match part {
            Part::All => (None, 0),
            // `last` is inclusive. Callers ask for one byte at least.
            Part::Range { offset, len } => (Some(format!("bytes={offset}-{}", offset.saturating_add(len - 1))), len),
            Part::Tail { len } => (Some(format!("bytes=-{len}")), len),
        };
        let request = self.connection.client.get_object().bucket(&self.bucket).key(self.object(key)).set_range(range);
        let request = Attempts::new().limit(request.customize(), expected);
        let answer = request.send().await;
        let answer = answer.map_err(|error| Broken::Request(Failure::of(&error, &self.connection.endpoint)))?;
        let content_range = content_range(&answer);
        let announced = answer.content_length().and_then(|len| u64::try_from(len).ok());
        let limit = retry::attempt_time(announced.unwrap_or(expected));
        let data = match tokio::time::timeout(limit, collect(answer.body, announced)).await {
            Ok(Ok(data)) => data,
            Ok(Err(reason)) if reason.contains("checksum") => {
                return Err(Broken::Body(Failure::new(ErrorKind::Integrity, reason)));
            }
            Ok(Err(reason)) => {
                let reason = format!("the answer of {} broke off: {reason}", self.connection.endpoint);
                return Err(Broken::Body(Failure::new(ErrorKind::Unreachable, reason)));
            }
            Err(_) => {
                let reason = format!("{} did not finish its answer in {} s", self.connection.endpoint, limit.as_secs());
                return Err(Broken::Body(Failure::new(ErrorKind::Unreachable, reason)));
            }
        };
        let got = data.len() as u64;
        if let Some(announced) = announced.filter(|announced| *announced != got) {
            let reason = format!("{announced} bytes were announced, but {got} came");
            return Err(Broken::Body(Failure::new(ErrorKind::Integrity, reason)));
        }
        cut(part, data, content_range).map_err(|reason| Broken::Request(Failure::new(ErrorKind::Integrity, reason)))
    }

    /// Sends one LIST and returns the objects and the token of the next page.
    async fn list_page(
        &self,
        prefix: &str,
        token: Option<String>,
        max_keys: Option<i32>,
    ) -> std::result::Result<(Vec<ObjectInfo>, Option<String>), Failure> {
        let request = self
            .connection
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.object(prefix))
            .set_continuation_token(token)
            .set_max_keys(max_keys);
        let answer = Attempts::new().limit(request.customize(), 0).send().await.map_err(|error| {
            let mut failure = Failure::of(&error, &self.connection.endpoint);
            if failure.kind == ErrorKind::NotFound {
                // A listing has no object that could be missing.
                failure.kind = ErrorKind::NoContainer;
            }
            failure
        })?;
        let mut objects = Vec::with_capacity(answer.contents().len());
        for object in answer.contents() {
            let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.root)) else { continue };
            // Consoles put an empty object of the prefix's own name there to show a folder.
            if key.is_empty() {
                continue;
            }
            let size = object
                .size()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| Failure::new(ErrorKind::Integrity, format!("the listing gives no size for {key}")))?;
            objects.push(ObjectInfo { key: key.to_owned(), size });
        }
        let more = answer.is_truncated().unwrap_or(false);
        match answer.next_continuation_token() {
            Some(token) if more => Ok((objects, Some(token.to_owned()))),
            // To stop here would hide objects, and what is not listed may be collected.
            None if more => {
                Err(Failure::new(ErrorKind::Integrity, "the listing goes on, but the server does not say where"))
            }
            _ => Ok((objects, None)),
        }
    }

    async fn list_all(&self, prefix: &str) -> std::result::Result<Vec<ObjectInfo>, Failure> {
        let (mut all, mut next) = self.list_page(prefix, None, None).await?;
        while let Some(token) = next {
            let (page, following) = self.list_page(prefix, Some(token.clone()), None).await?;
            if following.as_ref() == Some(&token) {
                return Err(Failure::new(ErrorKind::Integrity, "the listing does not get ahead"));
            }
            all.extend(page);
            next = following;
        }
        all.sort_unstable();
        Ok(all)
    }

    async fn head(&self, key: &str) -> std::result::Result<Option<u64>, Failure> {
        let request = self.connection.client.head_object().bucket(&self.bucket).key(self.object(key));
        match Attempts::new().limit(request.customize(), 0).send().await {
            Ok(answer) => match answer.content_length().and_then(|len| u64::try_from(len).ok()) {
                Some(size) => Ok(Some(size)),
                None => Err(Failure::new(ErrorKind::Integrity, "the server gives no size")),
            },
            Err(error) => match Failure::of(&error, &self.connection.endpoint) {
                // An answer to HEAD has no body, so a missing bucket looks like a missing object. A LIST tells them apart.
                failure if failure.kind == ErrorKind::NotFound => {
                    self.list_page(key, None, Some(1)).await.map(|_| None)
                }
                failure => Err(failure),
            },
        }
    }
}

/// Why a GET failed.
enum Broken {
    /// The request itself: the SDK has tried as often as is worth while.
    Request(Failure),
    /// The body on its way: another request may help.
    Body(Failure),
}

fn display_url(bucket: &str, prefix: &str) -> String {
    super::StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() }.to_string()
}

/// Reads a body to its end.
async fn collect(mut body: ByteStream, announced: Option<u64>) -> std::result::Result<Bytes, String> {
    let capacity = usize::try_from(announced.unwrap_or(0).min(MAX_PREALLOCATION)).unwrap_or(0);
    let mut data = BytesMut::with_capacity(capacity);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| {
            retry::chain(&error).last().map_or_else(|| error.to_string(), |cause| cause.to_string())
        })?;
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

/// The first byte and the object's size from a `Content-Range` header, `bytes 5-9/100`.
fn content_range(answer: &GetObjectOutput) -> Option<(u64, u64)> {
    let (range, size) = answer.content_range()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

/// Checks that what came is what was asked for. A server that ignored the range and sent the whole object is no failure: the
/// part is cut out of it.
fn cut(part: Part, data: Bytes, content_range: Option<(u64, u64)>) -> std::result::Result<Fetched, String> {
    let got = data.len() as u64;
    let (first, size) = content_range.unwrap_or((0, got));
    let (offset, len) = match part {
        Part::All => (0, size),
        Part::Range { offset, len } => (offset, len),
        Part::Tail { len } => (size.saturating_sub(len), len.min(size)),
    };
    let start = offset.checked_sub(first).and_then(|start| usize::try_from(start).ok());
    let end = offset.checked_add(len).and_then(|end| end.checked_sub(first)).and_then(|end| usize::try_from(end).ok());
    match (start, end) {
        (Some(start), Some(end)) if end <= data.len() => Ok(Fetched { data: data.slice(start..end), size }),
        _ => Err(format!(
            "{len} bytes at {offset} were asked for, but {got} bytes at {first} came of an object of {size}"
        )),
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        let result = self.put_checked(key, &data, false, &Attempts::new()).await;
        result.map_err(|failure| failure.on("write", key, &self.url))
    }

    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        let attempts = Attempts::new();
        match self.put_checked(key, &data, true, &attempts).await {
            Ok(()) => Ok(PutIfAbsent::Created),
            Err(failure) if failure.is_precondition_failed() => {
                if !attempts.was_retried() {
                    return Ok(PutIfAbsent::Exists);
                }
                // An earlier attempt may have been stored and its answer lost: then the object in our way is our own.
                match self.get(key).await {
                    Ok(found) if found == data => Ok(PutIfAbsent::Created),
                    Ok(_) => Ok(PutIfAbsent::Exists),
                    Err(error) if error.is_not_found() => Ok(PutIfAbsent::Exists),
                    Err(error) => Err(error),
                }
            }
            Err(failure) if failure.refuses_condition() => Ok(PutIfAbsent::Unsupported),
            Err(failure) => Err(failure.on("write", key, &self.url)),
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        match self.fetch(key, Part::All).await {
            Ok(fetched) => Ok(fetched.data),
            Err(failure) => Err(failure.on("read", key, &self.url)),
        }
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        let too_short = |size: u64| {
            let reason = format!("{len} bytes at {offset} were asked for, but the object has {size} bytes");
            Failure::new(ErrorKind::Integrity, reason).on("read", key, &self.url)
        };
        if len == 0 {
            // HTTP has no empty range; the object has to be there all the same.
            return match self.size_of_existing(key).await? {
                size if offset > size => Err(too_short(size)),
                _ => Ok(Bytes::new()),
            };
        }
        match self.fetch(key, Part::Range { offset, len }).await {
            Ok(fetched) => Ok(fetched.data),
            Err(failure) if failure.is_invalid_range() => Err(too_short(self.size_of_existing(key).await?)),
            Err(failure) => Err(failure.on("read", key, &self.url)),
        }
    }

    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        if len == 0 {
            return Ok((Bytes::new(), self.size_of_existing(key).await?));
        }
        match self.fetch(key, Part::Tail { len }).await {
            Ok(fetched) => Ok((fetched.data, fetched.size)),
            // An empty object has no range at all.
            Err(failure) if failure.is_invalid_range() => match self.size_of_existing(key).await? {
                0 => Ok((Bytes::new(), 0)),
                _ => Err(failure.on("read", key, &self.url)),
            },
            Err(failure) => Err(failure.on("read", key, &self.url)),
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.head(key).await.map_err(|failure| failure.on("look up", key, &self.url))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.list_all(prefix).await.map_err(|failure| failure.on("list", prefix, &self.url))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self.connection.client.delete_object().bucket(&self.bucket).key(self.object(key));
        match Attempts::new().limit(request.customize(), 0).send().await {
            Ok(_) => Ok(()),
            Err(error) => match Failure::of(&error, &self.connection.endpoint) {
                failure if failure.kind == ErrorKind::NotFound => Ok(()),
                failure => Err(failure.on("delete", key, &self.url)),
            },
        }
    }

    async fn prepare(&self) -> Result<()> {
        // A LIST rather than a HEAD of the bucket: its answer has a body that says whether bucket or credentials are wrong.
        match self.list_page("", None, Some(1)).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.on("prepare", "", &self.url)),
        }
    }

    fn checksum_support(&self) -> Option<&'static str> {
        match self.checksums() {
            Checksums::Unknown => None,
            Checksums::Confirmed => Some("crc32c"),
            Checksums::Silent => Some("ignored"),
            Checksums::Refused => Some("refused"),
        }
    }
}

impl S3Store {
    async fn size_of_existing(&self, key: &str) -> Result<u64> {
        match self.head(key).await {
            Ok(Some(size)) => Ok(size),
            Ok(None) => {
                Err(Failure::new(ErrorKind::NotFound, "there is no object of that key").on("read", key, &self.url))
            }
            Err(failure) => Err(failure.on("read", key, &self.url)),
        }
    }
}
