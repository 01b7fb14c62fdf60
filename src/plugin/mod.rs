//! The Docker plugin: HTTP over a unix socket.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`authz`] | the endpoints of an authorization plugin: harmless, or judged within a time limit |
//! | [`client`] | asks a running plugin, as the engine would |
//! | [`server`] | HTTP/1 on a unix socket |
//! | [`socket`] | the socket: made, taken over, passed in by systemd |
//! | [`volumes`] | the endpoints of a volume driver |
//! | [`wire`] | the messages |
//!
//! Of the plugin protocol this relies on what every engine since 20.10 does: requests carry no `Content-Type`, `Host` may be
//! empty, and a request whose answer got lost is sent again *with an empty body*, which is why an empty body is never taken for
//! permission, nor for a question. Engines ask once what a plugin implements, and remember it until they end: so it always implements both.

pub mod authz;
pub mod client;
pub mod server;
pub mod socket;
pub mod volumes;
pub mod wire;

pub use authz::{Authz, Decide, Ruling};
pub use server::serve;
pub use socket::{Listening, SocketError};
pub use volumes::{Described, Volumes};

use std::fmt;
use std::sync::Arc;

use serde_json::json;

/// Where engines look for the plugin.
pub const DEFAULT_SOCKET: &str = "/run/docker/plugins/voltool.sock";

/// What a plugin answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
}

impl Answer {
    fn ok(value: &serde_json::Value) -> Answer {
        Answer { status: 200, body: value.to_string().into_bytes() }
    }
}

/// All that answers on the socket.
pub struct Plugin {
    authz: Authz,
    volumes: Arc<dyn Volumes>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("authz", &self.authz).finish_non_exhaustive()
    }
}

impl Plugin {
    /// A plugin that authorizes, and keeps volumes.
    pub fn new(authz: Authz, volumes: Arc<dyn Volumes>) -> Plugin {
        Plugin { authz, volumes }
    }

    /// Whether the body of a request to this endpoint has to be read as a whole.
    pub(crate) fn wants_body(&self, path: &str) -> bool {
        // What the engine has answered may be long, and is of interest only while something is under way.
        path == wire::AUTHZ_REQUEST
            || (path == wire::AUTHZ_RESPONSE && self.authz.waits())
            || path.starts_with(volumes::PREFIX)
            || path.starts_with(volumes::OWN_PREFIX)
    }

    /// Answers one request. `body` is `None` if it could not be read, or is too long. `None` closes the connection without an answer.
    pub async fn answer(&self, path: &str, body: Option<&[u8]>) -> Option<Answer> {
        Some(match path {
            wire::ACTIVATE => Answer::ok(&json!({ "Implements": ["VolumeDriver", "authz"] })),
            wire::AUTHZ_REQUEST => self.authz.request(body).await.into_answer(),
            // Too late to refuse: the engine asks this when it has done what was asked for.
            wire::AUTHZ_RESPONSE => {
                self.authz.done(body);
                wire::Reply::allow().into_answer()
            }
            wire::STATUS => Answer::ok(&self.authz.status()),
            _ if path.starts_with(volumes::PREFIX) || path.starts_with(volumes::OWN_PREFIX) => {
                return volumes::answer(&*self.volumes, path, body).await;
            }
            _ => Answer {
                status: 404,
                body: json!({ "Err": format!("no such endpoint: {path}") }).to_string().into_bytes(),
            },
        })
    }
}
