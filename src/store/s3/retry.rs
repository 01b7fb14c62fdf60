//! When to try again, and for how long: one [`Attempts`] for each request.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::client::customize::CustomizableOperation;
use aws_sdk_s3::config::Config;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_s3::config::timeout::TimeoutConfig;

/// How often a request is sent before its failure is reported.
pub(super) const MAX_ATTEMPTS: u32 = 8;

/// The upper bound of the first wait; each further one is twice as long. All eight attempts wait about 13 s on average.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// No wait is longer.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a server that cannot even be connected to is tried. A name that does not resolve or a port that nobody listens on
/// rarely mends itself within seconds, and a person who mistyped it wants to know.
const MAX_CONNECT_ATTEMPTS: u32 = 4;

/// After this time no further connection is tried, so that an address that swallows packets is reported in about 20 s.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(15);

/// What one attempt of a request without a body may take. Servers that are busy do take their time for a LIST.
const ATTEMPT_TIME: Duration = Duration::from_secs(60);

/// The slowest line, in bytes a second and request, that is still worth waiting for. Below the share that one of several
/// uploads gets on a slow home line; transfers that stand still are ended much earlier by the stalled stream protection.
const SLOWEST_RATE: u64 = 16 * 1024;

/// What one attempt may take that transfers `bytes`.
pub(super) fn attempt_time(bytes: u64) -> Duration {
    ATTEMPT_TIME + Duration::from_secs(bytes / SLOWEST_RATE)
}

/// The limits of one request that transfers `bytes`: for the connection, for each attempt, and for all of them together.
pub(super) fn timeouts(bytes: u64) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt_time(bytes))
        .operation_timeout(attempt_time(bytes) * 3)
        .build()
}

/// What becomes of the attempts of one request. Clones share their count.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    finished: Arc<AtomicU32>,
    started: Instant,
}

impl Attempts {
    pub fn new() -> Attempts {
        Attempts { finished: Arc::default(), started: Instant::now() }
    }

    /// Returns whether the request was sent more than once, so that an earlier attempt may have taken effect unseen.
    pub fn was_retried(&self) -> bool {
        self.finished.load(Ordering::Relaxed) > 1
    }

    /// Puts these limits on a request that transfers `bytes`.
    pub fn limit<T, E, B>(
        &self,
        request: CustomizableOperation<T, E, B>,
        bytes: u64,
    ) -> CustomizableOperation<T, E, B> {
        let limits = Config::builder().retry_classifier(self.clone()).timeout_config(timeouts(bytes));
        request.config_override(limits)
    }
}

/// The SDK asks its own classifiers first, and this one after each attempt.
impl ClassifyRetry for Attempts {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let finished = self.finished.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(Err(error)) = context.output_or_error() else { return RetryAction::NoActionIndicated };
        if let Some(error) = error.as_connector_error() {
            let hopeless = finished >= MAX_CONNECT_ATTEMPTS || self.started.elapsed() >= MAX_CONNECT_TIME;
            if hopeless && is_connect_failure(error) {
                return RetryAction::RetryForbidden;
            }
        }
        match context.response().map(|response| response.status().as_u16()) {
            // Too many requests: the SDK knows the codes that come with it on AWS, not the bare status.
            Some(429) => RetryAction::throttling_error(),
            // Two conditional writes met; AWS asks to send the request again. S3 has no other 409 that a PUT or DELETE can get.
            Some(408 | 409) => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "voltool"
    }
}

/// Whether the failure happened before there was a connection. The error types involved are private, so their texts have to do.
pub(super) fn is_connect_failure(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| {
        let text = cause.to_string();
        text.contains("client error (Connect)") || text.contains("HTTP connect timeout")
    })
}

/// An error, what caused it, and so on.
pub(super) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}
