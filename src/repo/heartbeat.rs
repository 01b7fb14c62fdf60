//! Whether a host is alive, as far as others can tell: it changes one small object again and again, and they watch whether that changes.
//!
//! This is a guess, for deciding whether to take a lease over. Nothing that must be safe rests on it. No clock of another
//! host counts: how long something has been unchanged is measured by the observer's own monotonic clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use ulid::Ulid;

use super::{Repository, Result};

#[derive(Serialize)]
struct BeatObject {
    host: String,
    run: String,
    beat: u64,
}

fn key(host: Ulid) -> String {
    format!("hosts/{host}.json")
}

/// The heartbeat of this host, for as long as its process runs.
#[derive(Debug)]
pub struct Heartbeat {
    host: Ulid,
    /// So that a process that begins to count again never repeats what was there.
    run: Ulid,
    beat: u64,
}

impl Heartbeat {
    /// The heartbeat of the host with that id.
    pub fn new(host: Ulid) -> Heartbeat {
        Heartbeat { host, run: Ulid::generate(), beat: 0 }
    }

    /// Shows that the host is alive. One PUT, of the same object each time.
    ///
    /// # Errors
    /// If the storage fails. The next beat makes up for it.
    pub async fn beat(&mut self, repo: &Repository) -> Result<()> {
        self.beat += 1;
        let object = BeatObject { host: self.host.to_string(), run: self.run.to_string(), beat: self.beat };
        let json = serde_json::to_vec(&object).map_err(|e| super::RepoError::Codec(e.to_string()))?;
        Ok(repo.store().put(&key(self.host), json.into()).await?)
    }
}

/// What was seen of one host.
#[derive(Debug)]
struct Seen {
    object: Option<Bytes>,
    since: Instant,
}

/// Watches the heartbeats of other hosts.
#[derive(Debug, Default)]
pub struct Observer {
    hosts: BTreeMap<Ulid, Seen>,
}

impl Observer {
    /// An observer that has seen nothing yet.
    pub fn new() -> Observer {
        Observer::default()
    }

    /// Looks at a host, and says for how long it has shown no sign of life while it was watched: zero at the first look. One GET.
    ///
    /// It has to be looked at again and again, more often than hosts beat: that an object was the same twice says nothing about whether
    /// a host could have changed it in between. A look that fails begins anew, because a storage that did not answer here may not have
    /// answered there.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn look(&mut self, repo: &Repository, host: Ulid) -> Result<Duration> {
        match repo.store().get(&key(host)).await {
            Ok(object) => Ok(self.saw(host, Some(object), Instant::now())),
            // A host that never showed a sign of life, or whose object somebody removed.
            Err(e) if e.is_not_found() => Ok(self.saw(host, None, Instant::now())),
            Err(e) => {
                self.hosts.remove(&host);
                Err(e.into())
            }
        }
    }

    fn saw(&mut self, host: Ulid, object: Option<Bytes>, now: Instant) -> Duration {
        match self.hosts.get(&host) {
            Some(seen) if seen.object == object => now.saturating_duration_since(seen.since),
            _ => {
                self.hosts.insert(host, Seen { object, since: now });
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_change_grows_old() {
        let mut observer = Observer::new();
        let (host, other, begin) = (Ulid::generate(), Ulid::generate(), Instant::now());
        let mut saw = |host, object: Option<&'static str>, second| {
            let at = begin + Duration::from_secs(second);
            observer.saw(host, object.map(|text| Bytes::from_static(text.as_bytes())), at).as_secs()
        };
        assert_eq!(saw(host, Some("1"), 100), 0);
        assert_eq!(saw(host, Some("1"), 130), 30);
        assert_eq!(saw(other, None, 140), 0);
        assert_eq!(saw(host, Some("2"), 160), 0);
        assert_eq!(saw(host, Some("2"), 161), 1);
        assert_eq!(saw(host, None, 170), 0);
        assert_eq!(saw(other, None, 240), 100);
        assert_eq!(saw(host, Some("2"), 250), 0);
    }
}
