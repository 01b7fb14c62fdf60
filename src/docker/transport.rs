//! Requests to an engine: bollard's connections, our paths and bodies.
//!
//! bollard carries the bytes (sockets, TLS, HTTP, error answers). Its typed calls are not used, for three reasons, each seen
//! with version 0.21: the paths that it sends have no version in them, so what it negotiates has no effect; it cannot read a
//! volume whose driver reports a status that is an object, as most plugins do; and it drops what its types do not know, which
//! would make the container definitions that a snapshot keeps incomplete. [`Transport::call`] therefore sends its own request
//! through the one public method of bollard that hands out an answer's bytes as they are.

use std::time::Duration;

use bollard::errors::Error;
use bollard::{BollardRequest, Docker};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt};
use serde_json::Value;

use super::connect::Endpoint;
use super::error::{EngineError, EngineErrorKind};

/// An engine's connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    docker: Docker,
    /// The path in front of everything, for an engine behind a proxy; empty, or begins with `/`.
    base: String,
    /// `/v1.41`, or empty before a version was agreed on.
    version: String,
    timeout: Duration,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// `GET`, `POST` …
    pub method: &'static str,
    /// The path after the version; every part that is not a literal has gone through [`encode`].
    pub path: &'a str,
    /// The body, which is sent as JSON.
    pub body: Option<&'a Value>,
    /// How long the whole exchange may take, on top of the connection's own limit.
    pub extra_time: Duration,
}

impl<'a> Call<'a> {
    /// A plain GET.
    pub fn get(path: &'a str) -> Self {
        Call { method: "GET", path, body: None, extra_time: Duration::ZERO }
    }
}

impl Transport {
    /// Prepares a connection; nothing is sent yet.
    pub fn new(endpoint: &Endpoint, timeout: Duration) -> Result<Self, Error> {
        // bollard counts whole seconds, and would take less than one as none.
        let seconds = timeout.as_secs().max(1);
        let version = bollard::API_DEFAULT_VERSION;
        let docker = match &endpoint.tls {
            None if endpoint.socket().is_some() => Docker::connect_with_unix(&endpoint.host, seconds, version)?,
            None => Docker::connect_with_http(&endpoint.host, seconds, version)?,
            Some(tls) => {
                // An error says that one is installed already, which is as good.
                let _ = rustls::crypto::ring::default_provider().install_default();
                Docker::connect_with_ssl(&endpoint.host, &tls.key, &tls.cert, &tls.ca, seconds, version)?
            }
        };
        let base = match endpoint.host.strip_prefix("tcp://").and_then(|rest| rest.split_once('/')) {
            Some((_, path)) => format!("/{path}"),
            None => String::new(),
        };
        Ok(Transport { docker, base, version: String::new(), timeout })
    }

    /// Puts the API version into the path of every later call.
    pub fn set_version(&mut self, (major, minor): (u32, u32)) {
        self.version = format!("/v{major}.{minor}");
    }

    /// Sends one request and returns the whole answer.
    ///
    /// # Errors
    /// bollard's; an answer that does not arrive completely in time is [`Error::RequestTimeoutError`].
    pub async fn call(&self, call: Call<'_>) -> Result<Bytes, Error> {
        let limit = self.timeout.saturating_add(call.extra_time);
        let whole = async {
            let mut answer = BytesMut::new();
            let mut parts = std::pin::pin!(self.stream(call)?);
            while let Some(part) = parts.next().await {
                answer.extend_from_slice(&part?);
            }
            Ok(answer.freeze())
        };
        tokio::time::timeout(limit, whole).await.unwrap_or(Err(Error::RequestTimeoutError))
    }

    /// Sends one request, when it is polled first, and returns the parts of the answer as they come. Only its beginning has a time
    /// limit.
    ///
    /// # Errors
    /// If the body cannot be written as JSON; the parts' errors are bollard's.
    pub fn stream(&self, call: Call<'_>) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let target = format!("{}{}{}", self.base, self.version, call.path);
        let body = match call.body {
            Some(value) => Bytes::from(serde_json::to_vec(value)?),
            None => Bytes::new(),
        };
        let limit = self.timeout.saturating_add(call.extra_time);
        let method = call.method;
        let docker = self.docker.clone().with_timeout(limit.max(Duration::from_secs(1))).with_request_modifier(
            move |mut request: BollardRequest| {
                let (scheme, authority) = (request.uri().scheme_str(), request.uri().authority());
                let uri = match (scheme, authority) {
                    (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{target}").parse(),
                    _ => target.parse(),
                };
                // Neither can fail: targets are encoded, methods are literals.
                if let (Ok(uri), Ok(method)) = (uri, method.parse()) {
                    *request.uri_mut() = uri;
                    *request.method_mut() = method;
                    *request.body_mut() = bollard::body_full(body.clone());
                }
                request
            },
        );
        // The name is a placeholder: the modifier above replaces path, method and body.
        let begin = async move { docker.export_container("voltool") };
        Ok(begin.into_stream().flatten())
    }
}

/// Encodes one part of a path, or a value of a query, so that it means itself: volume names of plugins hold anything.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    out
}

/// Reads an answer as JSON of a known shape.
pub(super) fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    action: &str,
    endpoint: &Endpoint,
) -> Result<T, EngineError> {
    serde_json::from_slice(bytes).map_err(|error| EngineError {
        kind: EngineErrorKind::Protocol,
        action: action.to_owned(),
        endpoint: endpoint.to_string(),
        reason: format!("its answer makes no sense: {error}"),
        hint: Some("check that a Docker engine answers there: `docker version`".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths_mean_themselves() {
        assert_eq!(encode("db_data-1.x~"), "db_data-1.x~");
        assert_eq!(encode("a/b c?#%ü"), "a%2Fb%20c%3F%23%25%C3%BC");
    }
}
