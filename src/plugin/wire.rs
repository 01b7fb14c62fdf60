//! The messages of the plugin protocol.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::guard::authz::AuthzRequest;

/// The engine asks what a plugin implements: once, when it first needs it.
pub const ACTIVATE: &str = "/Plugin.Activate";
/// The engine asks whether a request may be done.
pub const AUTHZ_REQUEST: &str = "/AuthZPlugin.AuthZReq";
/// The engine asks whether the answer may be sent.
pub const AUTHZ_RESPONSE: &str = "/AuthZPlugin.AuthZRes";
/// Not the engine's: `voltool guard status` asks how it goes.
pub const STATUS: &str = "/voltool.Status";

/// The most of a request about a request that is read, in bytes: engines pass on bodies of up to 4 MiB, in base64.
pub const MAX_BODY: usize = 16 << 20;

/// A question of the engine. Fields that are empty are left out by it; what is not used here is not read.
#[derive(Debug, Deserialize)]
pub struct Question<'a> {
    #[serde(rename = "RequestMethod", borrow, default)]
    method: Cow<'a, str>,
    #[serde(rename = "RequestUri", borrow, default)]
    target: Cow<'a, str>,
    #[serde(rename = "RequestBody", borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(rename = "RequestHeaders", borrow, default)]
    headers: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl<'a> Question<'a> {
    /// Reads a question.
    ///
    /// # Errors
    /// If it is not JSON of that shape; an empty body is not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The method of the request that it is about.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The target of the request that it is about, as it was sent.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The request that it is about, handed to `use_it` with its body decoded.
    pub fn with_request<T>(&self, use_it: impl FnOnce(&AuthzRequest<'_>) -> T) -> T {
        // Only these two have bodies that matter.
        let wanted = self.method.eq_ignore_ascii_case("POST") || self.method.eq_ignore_ascii_case("DELETE");
        let body = self.body.as_ref().filter(|_| wanted);
        let body = body.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).ok());
        use_it(&AuthzRequest {
            method: &self.method,
            target: &self.target,
            content_type: self.header("content-type"),
            content_length: self.header("content-length"),
            body: body.as_deref(),
        })
    }

    /// The request in a few words, for a log.
    pub fn describe(&self) -> String {
        format!("{} {}", self.method, self.target.chars().take(200).collect::<String>())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().flatten();
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// An answer to the engine.
///
/// There is an `Err` in the protocol too. It is never used: an engine that is told `Allow` and `Err` at once allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Whether it may be done.
    #[serde(rename = "Allow")]
    pub allow: bool,
    /// Why not; reaches whoever asked the engine.
    #[serde(rename = "Msg")]
    pub message: String,
}

impl Reply {
    /// It may be done.
    pub fn allow() -> Reply {
        Reply { allow: true, message: String::new() }
    }

    /// It must not be done.
    pub fn deny(message: impl Into<String>) -> Reply {
        Reply { allow: false, message: message.into() }
    }

    /// As HTTP. A refusal has status 200 too: any other would be told as a failure of the plugin.
    pub fn into_answer(self) -> Answer {
        // A struct of a flag and a text is always JSON; should it not be, the engine takes an empty answer for a refusal.
        Answer { status: 200, body: serde_json::to_vec(&self).unwrap_or_default() }
    }
}
