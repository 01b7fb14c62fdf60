//! What the commands ask of the daemon that keeps volumes, over its socket.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CliError, Context};
use crate::plugin::client;
use crate::plugin::volumes::OWN_PREFIX;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks one of voltool's own questions. What the daemon refuses, and that it does not answer, is the error.
pub(super) async fn ask(ctx: &Context, question: &str, body: Value) -> Result<Value, CliError> {
    let (socket, endpoint) = (ctx.settings.plugin.socket().to_owned(), format!("{OWN_PREFIX}{question}"));
    let told = tokio::task::spawn_blocking(move || client::tell(&socket, &endpoint, &body, LIMIT)).await;
    let answer = told.map_err(|e| CliError::failed(format!("the question to the daemon ended unexpectedly: {e}")))?;
    answer.map_err(|e| {
        let socket = ctx.settings.plugin.socket().display();
        CliError::failed(format!("the daemon that keeps the volumes says no, or nothing, on {socket}: {e}"))
            .hint("'voltool plugin status' says whether it runs")
    })
}

/// Brings a volume back from the trash.
pub(super) async fn bring_back(ctx: &Context, discarded: &str) -> Result<(), CliError> {
    ask(ctx, "BringBack", json!({ "Name": discarded })).await.map(drop)
}

/// Lets a volume begin empty that was to begin with a snapshot.
pub(super) async fn begin_empty(ctx: &Context, volume: &str) -> Result<(), CliError> {
    ask(ctx, "BeginEmpty", json!({ "Name": volume })).await.map(drop)
}
