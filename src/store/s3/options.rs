//! How to reach a bucket: what is configured, and the client made from it.

use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use serde::{Deserialize, Serialize};

use super::retry;
use crate::store::{ErrorKind, Result, StoreError};

/// What is used where neither the options nor the AWS configuration name a region. Most servers other than AWS accept it.
const DEFAULT_REGION: &str = "us-east-1";

/// A body that stands still for this long is given up and tried again. The SDK's own 5 s are too short for a server that
/// flushes 16 MiB to a slow disk while others wait.
const STALL_GRACE: Duration = Duration::from_secs(30);

/// How to reach an S3-compatible server. What is left out comes from the standard AWS configuration: environment, profiles,
/// container and instance metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    /// The server's URL, `http://…` or `https://…`. Without it: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile, AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region's name. Without it: the AWS configuration, then `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket stands in the path (`http://server/bucket/key`) or in the host name. Without it: in the path unless the
    /// server is AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
}

/// A client, and what error messages and requests need to know about it.
pub(super) struct Connection {
    pub client: Client,
    /// The server as error messages name it.
    pub endpoint: String,
    /// Whether requests travel through TLS.
    pub encrypted: bool,
}

impl Connection {
    /// Makes a client from the options and the standard AWS configuration. Sends nothing to the bucket; may ask the instance
    /// metadata service for a region if AWS is meant and none is configured.
    pub async fn open(options: &S3Options, url: &str) -> Result<Connection> {
        let endpoint = match &options.endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None => endpoint_from_environment(),
        };
        check_endpoint(endpoint.as_deref(), url)?;

        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        loader = match &options.region {
            Some(region) => loader.region(Region::new(region.clone())),
            // A server of one's own has no use for the instance metadata service, and off EC2 asking costs seconds.
            None if is_own_server(endpoint.as_deref()) => loader.region(
                RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                    .or_else(ProfileFileRegionProvider::new())
                    .or_else(Region::from_static(DEFAULT_REGION)),
            ),
            None => loader.region(RegionProviderChain::default_provider().or_else(Region::from_static(DEFAULT_REGION))),
        };
        if let Some(endpoint) = &endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let shared = loader.load().await;
        // The profile may name one where options and environment did not.
        let endpoint = shared.endpoint_url().map(str::to_owned);
        check_endpoint(endpoint.as_deref(), url)?;
        Ok(Connection::build(&shared, None, endpoint, options))
    }

    /// Makes a client with fixed credentials that ignores the environment and the AWS configuration files.
    pub fn with_credentials(options: &S3Options, url: &str, access_key: &str, secret_key: &str) -> Result<Connection> {
        check_endpoint(options.endpoint.as_deref(), url)?;
        let region = options.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let mut shared = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new(region));
        shared.set_endpoint_url(options.endpoint.clone());
        let credentials = Credentials::new(access_key, secret_key, None, None, "voltool");
        Ok(Connection::build(&shared.build(), Some(credentials), options.endpoint.clone(), options))
    }

    fn build(
        shared: &SdkConfig,
        credentials: Option<Credentials>,
        endpoint: Option<String>,
        options: &S3Options,
    ) -> Connection {
        let path_style = options.path_style.unwrap_or_else(|| is_own_server(endpoint.as_deref()));
        let mut config = aws_sdk_s3::config::Builder::from(shared)
            .force_path_style(path_style)
            // Set per PUT instead (see `S3Store`), and never as a trailer, which some servers refuse over plain http.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(retry::MAX_ATTEMPTS)
                    .with_initial_backoff(retry::FIRST_BACKOFF)
                    .with_max_backoff(retry::MAX_BACKOFF),
            )
            // The SDK's quota of retries is shared by all requests of the process: a server that answers 503 for a few seconds to
            // a hundred parallel uploads would use it up, and the backup would fail although attempts are left.
            .retry_partition(RetryPartition::custom("voltool").token_bucket(TokenBucket::unlimited()).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build())
            .timeout_config(retry::timeouts(0));
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        let encrypted = endpoint.as_deref().is_none_or(|endpoint| has_scheme(endpoint, "https"));
        let endpoint = endpoint.unwrap_or_else(|| "Amazon S3".to_owned());
        Connection { client: Client::from_conf(config.build()), endpoint, encrypted }
    }
}

/// What the SDK would take from the environment, in its order. It has to be known here, because path style depends on it.
fn endpoint_from_environment() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    set("AWS_ENDPOINT_URL_S3").or_else(|| set("AWS_ENDPOINT_URL"))
}

fn has_scheme(endpoint: &str, scheme: &str) -> bool {
    endpoint.split_once("://").is_some_and(|(found, _)| found.eq_ignore_ascii_case(scheme))
}

/// The part of an endpoint between the scheme and the path.
fn authority(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether the endpoint is something else than AWS.
fn is_own_server(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| {
        let host = authority(endpoint).split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        !(host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
    })
}

fn check_endpoint(endpoint: Option<&str>, url: &str) -> Result<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let invalid = |reason: String| Err(StoreError::new(ErrorKind::Invalid, "use", "", url, reason));
    // First, so that no other message repeats the secret.
    if authority(endpoint).contains('@') {
        return invalid("the S3 endpoint holds credentials; give them through the environment or a profile".to_owned());
    }
    if !has_scheme(endpoint, "http") && !has_scheme(endpoint, "https") {
        return invalid(format!("the S3 endpoint {endpoint:?} begins with neither http:// nor https://"));
    }
    if authority(endpoint).is_empty() {
        return invalid(format!("the S3 endpoint {endpoint:?} names no host"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aws_gets_virtual_hosts() {
        for (endpoint, own) in [
            ("http://127.0.0.1:3900", true),
            ("https://s3.example.org", true),
            ("https://amazonaws.com.example.org", true),
            ("https://notamazonaws.com", true),
            ("https://s3.eu-central-1.amazonaws.com", false),
            ("https://S3.EU-central-1.AmazonAWS.com:443/", false),
            ("https://s3.cn-north-1.amazonaws.com.cn", false),
        ] {
            assert_eq!(is_own_server(Some(endpoint)), own, "{endpoint}");
        }
        assert!(!is_own_server(None));
    }

    #[test]
    fn endpoints_are_checked_and_secrets_not_repeated() {
        for (endpoint, expected) in [
            ("localhost:9000", "neither http:// nor https://"),
            ("s3://bucket", "neither http:// nor https://"),
            ("http://", "names no host"),
            ("http://key:secret@host", "holds credentials"),
            ("key:secret@host", "holds credentials"),
        ] {
            let error = check_endpoint(Some(endpoint), "s3://bucket").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(check_endpoint(Some("HTTPS://host"), "s3://bucket").is_ok());
    }
}
