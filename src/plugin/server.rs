//! HTTP/1 on a unix socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Plugin, wire};

/// How long to wait when a connection cannot be accepted, which is when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is ready, then finishes the requests that have begun, for no longer than `grace`.
///
/// There is no limit on how long a connection may be idle: the engine keeps its own open, and a request that meets the closing
/// of one would be sent again without its body.
pub async fn serve(listener: UnixListener, plugin: Arc<Plugin>, stop: impl Future<Output = ()>, grace: Duration) {
    let (stopping, watched) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, plugin.clone(), watched.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            // So that those that have ended do not pile up.
            Some(_) = connections.join_next() => {}
        }
    }
    // From here on whoever connects is refused, rather than left without an answer.
    drop(listener);
    stopping.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    // What has not ended by then is dropped: the engine takes that for a refusal.
    let _ = tokio::time::timeout(grace, all).await;
}

/// Answers the requests of one connection.
async fn converse(stream: UnixStream, plugin: Arc<Plugin>, mut stopping: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let plugin = plugin.clone();
        async move { respond(&plugin, request).await.ok_or(Unanswered) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    // How a connection ends is of no interest: whoever was refused an answer knows.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// A request that is not answered: the connection is closed, which engines take for a failure of the plugin, and for nothing else.
#[derive(Debug, thiserror::Error)]
#[error("the request is not answered")]
struct Unanswered;

async fn respond(plugin: &Plugin, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body();
    let answer = if plugin.wants_body(&path) {
        let whole = Limited::new(body, wire::MAX_BODY).collect().await.map(|body| body.to_bytes());
        plugin.answer(&path, whole.as_deref().ok()).await?
    } else {
        discard(body).await;
        plugin.answer(&path, None).await?
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json"));
    Some(response)
}

/// Reads a body to its end, so that the connection can be used again, and keeps nothing of it.
async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}
