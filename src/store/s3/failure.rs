//! From the SDK's errors to ours: what kind of failure it was, and why, in the server's own words.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::retry::{chain, is_connect_failure};
use crate::store::{ErrorKind, StoreError};

/// A failed request, before it is known which object it was about.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: ErrorKind,
    /// The server's code, such as `NoSuchKey`. Empty if it gave none.
    pub code: String,
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// Why, in one line and without secrets.
    pub reason: String,
}

impl Failure {
    /// Makes a failure that the server did not report itself.
    pub fn new(kind: ErrorKind, reason: impl Into<String>) -> Failure {
        Failure { kind, code: String::new(), status: 0, reason: reason.into() }
    }

    /// Makes a failure of the SDK's error; `endpoint` is how the server is named to people.
    pub fn of<E>(error: &SdkError<E, HttpResponse>, endpoint: &str) -> Failure
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        match error {
            SdkError::ServiceError(_) => Failure::answered(error),
            SdkError::ResponseError(context) => {
                let status = context.raw().status().as_u16();
                let kind = if status >= 500 { ErrorKind::Unreachable } else { ErrorKind::Other };
                let reason = format!("{endpoint} sent an answer that is not S3 (HTTP {status}): {}", root_cause(error));
                Failure { kind, code: String::new(), status, reason }
            }
            SdkError::TimeoutError(_) => {
                let reason = format!("{endpoint} did not answer in time: {}", root_cause(error));
                Failure::new(ErrorKind::Unreachable, reason)
            }
            SdkError::DispatchFailure(context) if context.is_other() || context.is_user() => {
                if chain(error).any(|cause| cause.to_string().contains("credential")) {
                    let reason = format!("no usable S3 credentials were found: {}", root_cause(error));
                    Failure::new(ErrorKind::Denied, reason)
                } else {
                    Failure::new(ErrorKind::Invalid, format!("the request could not be sent: {}", root_cause(error)))
                }
            }
            SdkError::DispatchFailure(_) if is_connect_failure(error) => {
                Failure::new(ErrorKind::Unreachable, format!("cannot connect to {endpoint}: {}", root_cause(error)))
            }
            SdkError::DispatchFailure(_) => {
                let reason = format!("the connection to {endpoint} broke: {}", root_cause(error));
                Failure::new(ErrorKind::Unreachable, reason)
            }
            _ => Failure::new(ErrorKind::Invalid, format!("the request could not be made: {}", root_cause(error))),
        }
    }

    /// The server answered with an error.
    fn answered<E>(error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        let response = error.raw_response();
        let status = response.map_or(0, |response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let message = error.message().unwrap_or_default().trim().trim_end_matches('.');
        let mut reason = match (code.as_str(), message) {
            // An answer to HEAD has no body, and some proxies send none either.
            ("" | "NotFound", "") => format!("HTTP {status} without an explanation"),
            (code, "") => format!("{code} (HTTP {status})"),
            ("", message) => format!("{message} (HTTP {status})"),
            (code, message) => format!("{code}: {message} (HTTP {status})"),
        };
        if let Some(region) = response.and_then(|response| response.headers().get("x-amz-bucket-region"))
            && matches!(status, 301 | 307 | 400)
        {
            reason.push_str(&format!("; the bucket is in region {region}"));
        }
        // One line: messages end up in logs and tables.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        Failure { kind: kind_of(&code, status), code, status, reason }
    }

    /// Returns whether the server says that it does not know what was asked for.
    pub fn is_not_implemented(&self) -> bool {
        self.status == 501 || self.code == "NotImplemented"
    }

    /// Returns whether a condition of the request did not hold.
    pub fn is_precondition_failed(&self) -> bool {
        self.status == 412 || self.code == "PreconditionFailed"
    }

    /// Returns whether the server has no such range.
    pub fn is_invalid_range(&self) -> bool {
        self.status == 416 || self.code == "InvalidRange"
    }

    /// Returns whether sending the request without a checksum may help.
    pub fn may_be_about_checksums(&self) -> bool {
        self.is_not_implemented()
            || (self.status == 400
                && matches!(
                    self.code.as_str(),
                    "InvalidRequest" | "InvalidArgument" | "NotSupported" | "UnsupportedHeader"
                ))
    }

    /// Returns whether the server refuses conditional writes.
    pub fn refuses_condition(&self) -> bool {
        self.is_not_implemented()
            || (self.status == 400 && self.reason.to_ascii_lowercase().replace('_', "-").contains("if-none-match"))
    }

    /// Names the object that it was about.
    pub fn on(self, action: &'static str, key: &str, url: &str) -> StoreError {
        StoreError::new(self.kind, action, key, url, self.reason)
    }
}

/// What kind of failure a server means. Codes say more than the status, so they come first.
fn kind_of(code: &str, status: u16) -> ErrorKind {
    match code {
        "NoSuchBucket" => ErrorKind::NoContainer,
        "NoSuchKey" | "NotFound" => ErrorKind::NotFound,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "ExpiredToken"
        | "Forbidden"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "Unauthorized" => ErrorKind::Denied,
        "BadDigest"
        | "IncompleteBody"
        | "InvalidDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch" => ErrorKind::Integrity,
        "InsufficientStorage" | "QuotaExceeded" | "XMinioStorageFull" => ErrorKind::Full,
        "ConditionalRequestConflict"
        | "InternalError"
        | "OperationAborted"
        | "RequestTimeout"
        | "ServiceUnavailable"
        | "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "TooManyRequests" => ErrorKind::Unreachable,
        _ => match status {
            401 | 403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            408 | 409 | 429 => ErrorKind::Unreachable,
            501 => ErrorKind::Invalid,
            507 => ErrorKind::Full,
            300..=499 => ErrorKind::Invalid,
            500.. => ErrorKind::Unreachable,
            _ => ErrorKind::Other,
        },
    }
}

/// What is at the bottom of an error: "Connection refused", not the five layers above it.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (code, status, expected) in [
            ("NoSuchBucket", 404, ErrorKind::NoContainer),
            ("NoSuchKey", 404, ErrorKind::NotFound),
            ("", 404, ErrorKind::NotFound),
            ("InvalidAccessKeyId", 403, ErrorKind::Denied),
            ("", 403, ErrorKind::Denied),
            ("InvalidDigest", 400, ErrorKind::Integrity),
            ("XMinioStorageFull", 507, ErrorKind::Full),
            ("", 502, ErrorKind::Unreachable),
            ("SlowDown", 503, ErrorKind::Unreachable),
            ("NotImplemented", 501, ErrorKind::Invalid),
            ("PermanentRedirect", 301, ErrorKind::Invalid),
        ] {
            assert_eq!(kind_of(code, status), expected, "{code} {status}");
        }
    }
}
