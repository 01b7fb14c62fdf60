//! What happens on an engine, as it happens: `GET /events`.
//!
//! It is a hint and no record: the engine keeps the last 256 events in memory, drops what a slow listener does not take, and forgets
//! all of it when it is restarted. Who needs to know what is there has to look.

use std::collections::BTreeMap;

use bytes::BytesMut;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use super::transport::{Call, encode};
use super::{Engine, EngineError, EngineErrorKind, Result, failure};

/// The most that one event may take up, in bytes. Labels are among its attributes, so it can be large, but not without end.
const LONGEST: usize = 4 << 20;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A container; [`Event::id`] is its full id.
    Container,
    /// A volume; [`Event::id`] is its name.
    Volume,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It was made. Of a volume this is also said if it was there already.
    Create,
    /// A container was started.
    Start,
    /// A container's process ended.
    Die,
    /// It was removed. Engines before 23.0 do not say this of volumes that `prune` takes.
    Destroy,
    /// A volume was mounted for a container.
    Mount,
    /// A volume is no longer mounted for a container.
    Unmount,
    /// Unused ones were removed; there is no [`Event::id`].
    Prune,
    /// Anything else.
    Other(String),
}

/// Something that happened on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// What happened.
    pub action: Action,
    /// The container's id or the volume's name.
    pub id: String,
    /// More about it: of a container the image, the name and all labels, of a volume the driver and who mounts it.
    pub attributes: BTreeMap<String, String>,
    /// When it happened, by the engine's clock.
    pub time: Timestamp,
}

/// An event as engines write it.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Option<Actor>,
    #[serde(rename = "time", default)]
    seconds: i64,
    #[serde(rename = "timeNano", default)]
    nanoseconds: i64,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: Option<BTreeMap<String, String>>,
}

/// The part of `/info` that tells the time.
#[derive(Deserialize)]
struct Clock {
    #[serde(rename = "SystemTime", default)]
    time: Option<String>,
}

impl Engine {
    /// The engine's clock.
    ///
    /// # Errors
    /// If the engine cannot answer, or does not tell the time.
    pub async fn time(&self) -> Result<Timestamp> {
        let action = "ask the time of";
        let clock: Clock = self.get("/info", action).await?;
        let text = clock.time.unwrap_or_default();
        text.parse().map_err(|_| self.nonsense(action, format!("{text:?} is not a time")))
    }

    /// What happens to volumes and containers from `since` on, by the engine's clock; what is past comes first, as far as the engine
    /// remembers it. Ends with an error when the connection does; it is not made anew.
    ///
    /// # Errors
    /// Those of the items: if the engine cannot be reached or refuses, the connection ends, or an event makes no sense.
    pub fn events(&self, since: Timestamp) -> impl Stream<Item = Result<Event>> + Send + use<> {
        let action = "listen to";
        let filters = encode(r#"{"type":["container","volume"]}"#);
        let nanoseconds = since.as_nanosecond();
        let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
        let path = format!("/events?since={seconds}.{rest:09}&filters={filters}");
        let engine = self.clone();
        let parts = self.transport.stream(Call::get(&path));
        events_of(parts, move |error| match error {
            Trouble::Transport(error) => failure(&error, action, &engine.endpoint),
            Trouble::Nonsense(reason) => engine.nonsense(action, reason),
        })
    }

    fn nonsense(&self, action: &str, reason: String) -> EngineError {
        EngineError {
            kind: EngineErrorKind::Protocol,
            action: action.to_owned(),
            endpoint: self.endpoint.to_string(),
            reason,
            hint: None,
        }
    }
}

/// What can be wrong with the stream.
enum Trouble {
    Transport(bollard::errors::Error),
    Nonsense(String),
}

/// Where the reading stands.
struct Reader<P, F> {
    parts: Option<std::pin::Pin<Box<P>>>,
    buffer: BytesMut,
    explain: F,
}

/// Cuts the parts into lines, each of which is an event. After an error there is nothing more.
fn events_of<P, F>(
    parts: std::result::Result<P, bollard::errors::Error>,
    explain: F,
) -> impl Stream<Item = Result<Event>> + Send + use<P, F>
where
    P: Stream<Item = std::result::Result<bytes::Bytes, bollard::errors::Error>> + Send,
    F: Fn(Trouble) -> EngineError + Send,
{
    let (parts, failed) = match parts {
        Ok(parts) => (Some(Box::pin(parts)), None),
        Err(error) => (None, Some(error)),
    };
    let first = failed.map(|error| Err(explain(Trouble::Transport(error))));
    let reader = Reader { parts, buffer: BytesMut::new(), explain };
    let rest = futures_util::stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        let item = item.map_err(|trouble| {
            reader.parts = None;
            (reader.explain)(trouble)
        });
        Some((item, reader))
    });
    futures_util::stream::iter(first).chain(rest)
}

impl<P, F> Reader<P, F>
where
    P: Stream<Item = std::result::Result<bytes::Bytes, bollard::errors::Error>>,
{
    async fn next(&mut self) -> Option<std::result::Result<Event, Trouble>> {
        // How much of the buffer is known to have no end of line in it.
        let mut searched = 0;
        loop {
            let parts = self.parts.as_mut()?;
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end + 1);
                searched = 0;
                match read(&line) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => continue,
                    Err(reason) => return Some(Err(Trouble::Nonsense(reason))),
                }
            }
            searched = self.buffer.len();
            if searched > LONGEST {
                return Some(Err(Trouble::Nonsense("it sends an event without end".to_owned())));
            }
            match parts.next().await {
                Some(Ok(part)) => self.buffer.extend_from_slice(&part),
                Some(Err(error)) => return Some(Err(Trouble::Transport(error))),
                None => return Some(Err(Trouble::Nonsense("it ended the connection".to_owned()))),
            }
        }
    }
}

/// Reads a line; `None` if it holds nothing that was asked for.
fn read(line: &[u8]) -> std::result::Result<Option<Event>, String> {
    // The separator of `application/json-seq`, should an engine choose that form.
    let line = line.strip_prefix(b"\x1e").unwrap_or(line);
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let raw: Raw = serde_json::from_slice(line).map_err(|error| format!("an event makes no sense: {error}"))?;
    let subject = match raw.kind.as_str() {
        "container" => Subject::Container,
        "volume" => Subject::Volume,
        _ => return Ok(None),
    };
    let action = match raw.action.as_str() {
        "create" => Action::Create,
        "start" => Action::Start,
        "die" => Action::Die,
        "destroy" => Action::Destroy,
        "mount" => Action::Mount,
        "unmount" => Action::Unmount,
        "prune" => Action::Prune,
        other => Action::Other(other.to_owned()),
    };
    let time = match raw.nanoseconds {
        0 => Timestamp::from_second(raw.seconds),
        nanoseconds => Timestamp::from_nanosecond(nanoseconds.into()),
    };
    let time = time.map_err(|error| format!("an event makes no sense: {error}"))?;
    let actor = raw.actor.unwrap_or(Actor { id: String::new(), attributes: None });
    Ok(Some(Event { subject, action, id: actor.id, attributes: actor.attributes.unwrap_or_default(), time }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// What comes of an answer that arrives in these parts.
    async fn events(parts: &[&str]) -> Vec<std::result::Result<(Subject, Action, String), String>> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from((*part).to_owned()))).collect();
        let explain = |trouble| EngineError {
            kind: EngineErrorKind::Protocol,
            action: "listen to".to_owned(),
            endpoint: String::new(),
            reason: match trouble {
                Trouble::Transport(error) => error.to_string(),
                Trouble::Nonsense(reason) => reason,
            },
            hint: None,
        };
        let stream = events_of(Ok(futures_util::stream::iter(parts)), explain);
        stream
            .map(|item| item.map(|event| (event.subject, event.action, event.id)).map_err(|error| error.reason))
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_are_events_however_they_are_cut() {
        let text = "{\"Type\":\"volume\",\"Action\":\"destroy\",\"Actor\":{\"ID\":\"db\"},\"time\":1}\n\n\
                    {\"Type\":\"network\",\"Action\":\"create\"}\n\
                    \u{1e}{\"Type\":\"container\",\"Action\":\"exec_create: sh\",\"Actor\":{\"ID\":\"c\",\"Attributes\":null},\"timeNano\":2}\n";
        let wanted = [
            Ok((Subject::Volume, Action::Destroy, "db".to_owned())),
            Ok((Subject::Container, Action::Other("exec_create: sh".to_owned()), "c".to_owned())),
            Err("it ended the connection".to_owned()),
        ];
        assert_eq!(events(&[text]).await, wanted);
        for at in 1..text.len() {
            assert_eq!(events(&[&text[..at], &text[at..]]).await, wanted, "cut at {at}");
        }
    }

    #[tokio::test]
    async fn nonsense_ends_it() {
        let found = events(&["{\"Type\":\"volume\"\n", "{\"Type\":\"volume\",\"Action\":\"create\"}\n"]).await;
        assert!(matches!(&found[..], [Err(reason)] if reason.contains("makes no sense")), "{found:?}");
        let endless = "x".repeat(LONGEST + 1);
        let found = events(&[&endless, "\n"]).await;
        assert_eq!(found, [Err("it sends an event without end".to_owned())]);
        // Timestamps out of range, too.
        let found = events(&["{\"Type\":\"volume\",\"time\":9223372036854775807}\n"]).await;
        assert!(found[0].is_err());
    }
}
