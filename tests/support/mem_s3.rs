//! An S3 server in memory and in process, with the habits of real servers and faults on demand.
//!
//! Signatures, XML and routing are `s3s`'s job; this is the storage below. Everything that a request changes is changed under one
//! lock, so that conditional writes are atomic, as they are not in every server that claims to have them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::{S3Auth, SecretKey};
use s3s::checksum::ChecksumHasher;
use s3s::dto::{
    Checksum, DeleteObjectInput, DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, Range,
    StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use voltool::store::S3Options;
use voltool::store::s3::S3Store;

/// The access key that the server knows.
pub const ACCESS_KEY: &str = "GKtest";
/// Its secret.
pub const SECRET_KEY: &str = "a secret that no message may repeat";
/// The bucket that exists.
pub const BUCKET: &str = "backup";

/// What the server does with `If-None-Match: *` on a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// 412 if the object is there.
    Honoured,
    /// Nothing, and stores the object (Garage).
    Ignored,
    /// 501.
    Refused,
}

/// What the server does with `x-amz-checksum-*` on a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumHabit {
    /// Checks and returns it.
    Confirmed,
    /// Ignores it.
    Silent,
    /// 400 InvalidRequest.
    Refused,
}

/// What a hook does to a request.
pub enum Fault {
    /// It fails and has no effect.
    Before(S3Error),
    /// It takes effect, but the answer is this error.
    After(S3Error),
    /// The body of a GET breaks off half-way.
    BreakBody,
    /// It is answered later.
    Delay(Duration),
}

/// Called with the operation (`"PutObject"`), the key or prefix, and which call of that operation on that key this is, from 0.
type Hook = dyn Fn(&str, &str, u64) -> Option<Fault> + Send + Sync;

#[derive(Clone)]
struct Stored {
    data: Bytes,
    etag: String,
    modified: SystemTime,
    checksum: Checksum,
}

struct State {
    objects: BTreeMap<String, Stored>,
    /// Objects that a stale listing does not show yet, or still shows.
    listing: Option<BTreeMap<String, Stored>>,
    requests: BTreeMap<(&'static str, String), u64>,
}

/// The server's storage and habits. Clones share everything.
#[derive(Clone)]
pub struct MemS3 {
    state: Arc<Mutex<State>>,
    hook: Arc<Mutex<Option<Arc<Hook>>>>,
    connections: Arc<AtomicU64>,
    condition: Condition,
    checksums: ChecksumHabit,
    page: usize,
    ignores_ranges: bool,
}

/// A server that runs until its runtime ends.
#[derive(Clone)]
pub struct Server {
    /// Its storage.
    pub s3: MemS3,
    address: SocketAddr,
}

impl MemS3 {
    /// A server with the one empty bucket [`BUCKET`] that does everything as AWS does.
    pub fn new() -> MemS3 {
        let state = State { objects: BTreeMap::new(), listing: None, requests: BTreeMap::new() };
        MemS3 {
            state: Arc::new(Mutex::new(state)),
            hook: Arc::default(),
            connections: Arc::default(),
            condition: Condition::Honoured,
            checksums: ChecksumHabit::Confirmed,
            page: 1000,
            ignores_ranges: false,
        }
    }

    pub fn condition(mut self, condition: Condition) -> MemS3 {
        self.condition = condition;
        self
    }

    pub fn checksums(mut self, checksums: ChecksumHabit) -> MemS3 {
        self.checksums = checksums;
        self
    }

    /// Sets how many keys a page of a listing has at most.
    pub fn page(mut self, page: usize) -> MemS3 {
        self.page = page;
        self
    }

    pub fn ignores_ranges(mut self) -> MemS3 {
        self.ignores_ranges = true;
        self
    }

    /// From now on, listings show what is there now.
    pub fn freeze_listings(&self) {
        let mut state = self.lock();
        state.listing = Some(state.objects.clone());
    }

    /// Sets what happens to each request.
    pub fn on_request(&self, hook: impl Fn(&str, &str, u64) -> Option<Fault> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// All keys of the bucket.
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// What is stored under a key, past all hooks.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        self.lock().objects.get(key).map(|stored| stored.data.clone())
    }

    /// Flips a bit of a stored object, past all checks.
    pub fn corrupt(&self, key: &str, at: usize) {
        let mut state = self.lock();
        let stored = state.objects.get_mut(key).unwrap();
        let mut data = stored.data.to_vec();
        data[at] ^= 1;
        stored.data = data.into();
    }

    /// How many requests of that operation came, including those that failed.
    pub fn requests(&self, operation: &str) -> u64 {
        self.lock().requests.iter().filter(|((name, _), _)| *name == operation).map(|(_, count)| count).sum()
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves this storage on a free loopback port.
    pub async fn serve(self) -> Server {
        let mut builder = S3ServiceBuilder::new(self.clone());
        builder.set_auth(OneKey);
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::clone(&self.connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let _ = socket.set_nodelay(true);
                let service = service.clone();
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is not the server's problem.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Server { s3: self, address }
    }

    /// Counts the request, asks the hook, and checks the bucket. Returns what is to happen after the effect.
    async fn begin(&self, operation: &'static str, bucket: &str, key: &str) -> S3Result<After> {
        let number = {
            let mut state = self.lock();
            let count = state.requests.entry((operation, key.to_owned())).or_insert(0);
            *count += 1;
            *count - 1
        };
        let hook = self.hook.lock().unwrap().clone();
        let after = match hook.and_then(|hook| hook(operation, key, number)) {
            Some(Fault::Before(error)) => return Err(error),
            Some(Fault::After(error)) => After { error: Some(error), break_body: false },
            Some(Fault::BreakBody) => After { error: None, break_body: true },
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                After::default()
            }
            None => After::default(),
        };
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist: {bucket}"));
        }
        Ok(after)
    }

    fn stored(&self, key: &str) -> S3Result<Stored> {
        self.lock().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }
}

/// Knows one key, and says what AWS says to any other.
struct OneKey;

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == ACCESS_KEY {
            return Ok(SecretKey::from(SECRET_KEY));
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}

#[derive(Default)]
struct After {
    error: Option<S3Error>,
    break_body: bool,
}

impl After {
    fn end<T>(self, output: T) -> S3Result<S3Response<T>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(S3Response::new(output)),
        }
    }
}

impl Server {
    /// The server's URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Options that reach this server.
    pub fn options(&self) -> S3Options {
        S3Options { endpoint: Some(self.endpoint()), ..S3Options::default() }
    }

    /// A store of `prefix` in the bucket.
    pub fn store(&self, prefix: &str) -> S3Store {
        S3Store::with_credentials(BUCKET, prefix, &self.options(), ACCESS_KEY, SECRET_KEY).unwrap()
    }
}

/// Reads a whole body, and checks its length.
async fn read_body(body: Option<StreamingBlob>, announced: Option<i64>) -> S3Result<Bytes> {
    let mut data = Vec::new();
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            data.extend_from_slice(&piece.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
        }
    }
    if announced.is_some_and(|announced| usize::try_from(announced).ok() != Some(data.len())) {
        return Err(s3_error!(IncompleteBody));
    }
    Ok(data.into())
}

/// Checks the CRC32C that came with a PUT, if one did.
fn check_crc32c(data: &[u8], wanted: Option<&str>) -> S3Result<Checksum> {
    let Some(wanted) = wanted else { return Ok(Checksum::default()) };
    let mut hasher = ChecksumHasher { crc32c: Some(Default::default()), ..ChecksumHasher::default() };
    hasher.update(data);
    let found = hasher.finalize();
    if found.checksum_crc32c.as_deref() != Some(wanted) {
        return Err(s3_error!(BadDigest, "The CRC32C you specified did not match what we received."));
    }
    Ok(found)
}

fn length(data: &Bytes) -> Option<i64> {
    i64::try_from(data.len()).ok()
}

#[async_trait::async_trait]
impl S3 for MemS3 {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let trailer = request.trailing_headers.is_some();
        let summed = request.headers.keys().any(|name| name.as_str().starts_with("x-amz-checksum-"));
        let input = request.input;
        let after = self.begin("PutObject", &input.bucket, &input.key).await?;
        if trailer {
            return Err(s3_error!(InvalidRequest, "a checksum as trailer, which servers refuse over plain http"));
        }
        let wanted = input.checksum_crc32c.as_deref();
        if self.checksums == ChecksumHabit::Refused && summed {
            return Err(s3_error!(InvalidRequest, "x-amz-checksum-* is not supported"));
        }
        let conditional = input.if_none_match.is_some();
        if self.condition == Condition::Refused && conditional {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        let data = read_body(input.body, input.content_length).await?;
        let checksum = match self.checksums {
            ChecksumHabit::Confirmed => check_crc32c(&data, wanted)?,
            _ => Checksum::default(),
        };
        let etag = blake3::hash(&data).to_hex()[..32].to_owned();
        {
            let mut state = self.lock();
            if conditional && self.condition == Condition::Honoured && state.objects.contains_key(&input.key) {
                return Err(s3_error!(
                    PreconditionFailed,
                    "At least one of the pre-conditions you specified did not hold"
                ));
            }
            let modified = SystemTime::now();
            let stored = Stored { data, etag: etag.clone(), modified, checksum: checksum.clone() };
            state.objects.insert(input.key, stored);
        }
        after.end(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc32c: checksum.checksum_crc32c,
            ..PutObjectOutput::default()
        })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let after = self.begin("GetObject", &input.bucket, &input.key).await?;
        let stored = self.stored(&input.key)?;
        let size = stored.data.len() as u64;
        let range = match input.range.filter(|_| !self.ignores_ranges) {
            None => None,
            Some(Range::Suffix { length }) if length == 0 || size == 0 => return Err(s3_error!(InvalidRange)),
            Some(Range::Suffix { length }) => Some((size.saturating_sub(length), size)),
            Some(Range::Int { first, .. }) if first >= size => return Err(s3_error!(InvalidRange)),
            Some(Range::Int { first, last }) => Some((first, last.map_or(size, |last| (last + 1).min(size)))),
        };
        let (start, end) = range.unwrap_or((0, size));
        let data = stored.data.slice(usize::try_from(start).unwrap()..usize::try_from(end).unwrap());
        let with_checksum = range.is_none() && input.checksum_mode.is_some();
        let output = GetObjectOutput {
            content_length: length(&data),
            content_range: range.map(|(start, end)| format!("bytes {start}-{}/{size}", end - 1)),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            checksum_crc32c: stored.checksum.checksum_crc32c.filter(|_| with_checksum),
            body: Some(if after.break_body { broken_body(data) } else { StreamingBlob::from(s3s::Body::from(data)) }),
            ..GetObjectOutput::default()
        };
        after.end(output)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let after = self.begin("HeadObject", &input.bucket, &input.key).await?;
        let stored = self.stored(&input.key)?;
        after.end(HeadObjectOutput {
            content_length: length(&stored.data),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            ..HeadObjectOutput::default()
        })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let after = self.begin("DeleteObject", &input.bucket, &input.key).await?;
        self.lock().objects.remove(&input.key);
        after.end(DeleteObjectOutput::default())
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = self.begin("ListObjectsV2", &input.bucket, &prefix).await?;
        let wanted = input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(self.page).min(self.page);
        let start = input.continuation_token.clone().unwrap_or_default();
        let mut contents: Vec<Object> = {
            let state = self.lock();
            let shown = state.listing.as_ref().unwrap_or(&state.objects);
            let found = shown.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > start).take(wanted + 1);
            found
                .map(|(key, stored)| Object {
                    key: Some(key.clone()),
                    size: length(&stored.data),
                    e_tag: Some(ETag::Strong(stored.etag.clone())),
                    last_modified: Some(Timestamp::from(stored.modified)),
                    ..Object::default()
                })
                .collect()
        };
        let truncated = contents.len() > wanted;
        contents.truncate(wanted);
        after.end(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(truncated),
            next_continuation_token: contents.last().and_then(|last| last.key.clone()).filter(|_| truncated),
            continuation_token: input.continuation_token,
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        })
    }
}

/// A body that ends with an error after its first half, so that the connection is cut.
fn broken_body(data: Bytes) -> StreamingBlob {
    let half = data.slice(..data.len() / 2);
    StreamingBlob::wrap(stream::iter([Ok(half), Err(std::io::Error::other("cut"))]))
}
