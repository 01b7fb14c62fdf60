//! From an engine's events to the catalog.
//!
//! Events only say when to look: the engine forgets them, and drops them when nobody listens. So the feed takes stock of the whole
//! engine when it begins, whenever it had to connect anew, a few seconds after something has happened, and once in a while. Three
//! things would be missed like that, and are noted at once: a container that lives for a second (`docker run --rm`) is inspected when
//! it is made and when it starts; a volume's removal has its time; and a container's end is when it last used its volumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::docker::{Action, ConnectOptions, Endpoint, Engine, EngineError, Event, Subject};
use crate::inventory::catalog::{self, BY_ENGINE_EVENT, Catalog, CatalogError};
use crate::inventory::{Inventory, MissingVolume};

/// How long after an event the engine is looked at: what belongs together (`docker compose up`) is looked at once.
const SETTLE: Duration = Duration::from_secs(3);

/// How often the engine is looked at even if nothing happens.
const ROUTINE: Duration = Duration::from_secs(15 * 60);

/// When a look that failed, or could not be noted, is followed by the next one.
const RETRY: Duration = Duration::from_secs(30);

/// How long to wait before connecting anew: doubled each time, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many containers are inspected at once because something happened to them. In a greater storm the next look at the whole has
/// to do.
const INSPECTIONS: usize = 32;

/// Keeps the catalog in step with an engine until `cancel` is done. Never ends by itself: if the engine goes away, it is waited for; if
/// the catalog cannot be used, that is tried again.
///
/// `warn` is told of every failure once, not of each repetition.
pub async fn feed(
    endpoint: &Endpoint,
    catalog: &Path,
    warn: impl Fn(&str) + Send + Sync,
    cancel: impl Future<Output = ()>,
) {
    let feed = Feed { endpoint, notes: Notes { path: catalog.to_owned(), open: None }, warn, said: BTreeMap::new() };
    tokio::select! {
        () = cancel => {}
        () = feed.run() => {}
    }
}

struct Feed<'a, W> {
    endpoint: &'a Endpoint,
    notes: Notes,
    warn: W,
    /// What was warned of last, until it works again.
    said: BTreeMap<Topic, String>,
}

/// What may work or not, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Connection,
    Scan,
    Catalog,
}

/// What one connection to the engine has to carry.
struct Listening {
    engine: Engine,
    key: String,
    /// What to add to the engine's clock to get ours.
    offset: SignedDuration,
}

impl<W: Fn(&str)> Feed<'_, W> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // The last event by the engine's clock, so that none is missed while the connection is made anew.
        let mut seen = None;
        loop {
            let begin = Instant::now();
            // Comes back only with an error.
            let Err(error) = self.listen(&mut seen).await;
            self.say(Topic::Connection, &format!("the catalog is not fed from the engine's events now: {error}"));
            if begin.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, takes stock, and follows the events until that fails.
    async fn listen(&mut self, seen: &mut Option<Timestamp>) -> Result<std::convert::Infallible, EngineError> {
        // Anew each time: after an update it speaks another version, and it may be another engine.
        let engine = Engine::connect_to(self.endpoint.clone(), ConnectOptions::default().timeout).await?;
        let clock = engine.time().await?;
        // On this machine it is the same clock, and what is measured would only be how long the answer took.
        let offset = if engine.is_local() { SignedDuration::ZERO } else { Timestamp::now().duration_since(clock) };
        let listening = Listening { key: engine.info().key(), offset, engine };
        // From before the first look on, so that nothing falls between the two.
        let since = seen.filter(|seen| *seen < clock).unwrap_or(clock);
        let mut events = std::pin::pin!(listening.engine.events(since).fuse());
        let mut inspections = FuturesUnordered::new();
        let mut scan = std::pin::pin!(listening.scan().fuse());
        let (mut scanning, mut begin) = (true, Instant::now());
        let mut due = begin + ROUTINE;
        let mut settle = SETTLE;
        loop {
            tokio::select! {
                // It only ever ends with an error.
                Some(event) = events.next() => {
                    let event = event?;
                    *seen = Some(event.time);
                    if self.note(&listening, &event).await {
                        due = due.min(Instant::now() + settle);
                    }
                    if is_birth(&event) && inspections.len() < INSPECTIONS {
                        inspections.push(listening.inspect(event.id));
                    }
                }
                Some(part) = inspections.next(), if !inspections.is_empty() => {
                    // One that could not be inspected is left to the next look at the whole.
                    if let Ok(Some((part, at))) = part {
                        let key = listening.key.clone();
                        let noted = self.notes.write(move |catalog| catalog.observe_part(&key, &part, at)).await;
                        self.noted(noted);
                    }
                }
                scanned = &mut scan, if scanning => {
                    scanning = false;
                    // Where that takes long, it is done less often.
                    settle = SETTLE.max(begin.elapsed() * 4);
                    if !self.look(&listening, scanned).await {
                        due = due.min(Instant::now() + RETRY);
                    }
                }
                () = tokio::time::sleep_until(due), if !scanning => {
                    scan.set(listening.scan().fuse());
                    (scanning, begin) = (true, Instant::now());
                    due = begin + ROUTINE;
                }
            }
        }
    }

    /// Notes what a look at the whole has found; returns whether that worked. If it did not because the engine is gone, the events
    /// end, too; but one container that cannot be inspected is no reason to stop listening.
    async fn look(&mut self, listening: &Listening, scanned: Result<(Inventory, Timestamp), EngineError>) -> bool {
        let (inventory, at) = match scanned {
            Ok(found) => found,
            Err(error) => {
                self.say(Topic::Scan, &format!("the catalog does not know what is on the engine now: {error}"));
                return false;
            }
        };
        self.works(Topic::Scan);
        // The engine answers: from here on its loss is news.
        self.works(Topic::Connection);
        let (key, info) = (listening.key.clone(), listening.engine.info().clone());
        let noted = self.notes.anew(move |catalog| {
            catalog.note_engine(&info, at)?;
            catalog.observe(&key, &inventory, at)
        });
        let noted = noted.await;
        self.noted(noted)
    }

    /// Notes what an event says by itself, and returns whether it asks for a look at the whole.
    async fn note(&mut self, listening: &Listening, event: &Event) -> bool {
        let at = listening.our_time(event.time);
        let (key, id) = (listening.key.clone(), event.id.clone());
        match (event.subject, &event.action) {
            (Subject::Volume, Action::Destroy) => {
                let noted = self.notes.write(move |catalog| catalog.note_removal(&key, &id, BY_ENGINE_EVENT, at)).await;
                self.noted(noted);
                true
            }
            (Subject::Container, Action::Die | Action::Destroy) => {
                let noted = self.notes.write(move |catalog| catalog.note_container(&key, &id, at)).await;
                self.noted(noted);
                true
            }
            (Subject::Volume, Action::Unmount) => {
                if let Some(container) = event.attributes.get("container").cloned() {
                    let noted = self.notes.write(move |catalog| catalog.note_container(&key, &container, at)).await;
                    self.noted(noted);
                }
                false
            }
            (_, Action::Create | Action::Start | Action::Prune) => true,
            _ => false,
        }
    }

    /// Warns of a failure of the catalog; returns whether there was none.
    fn noted(&mut self, result: catalog::Result<()>) -> bool {
        match &result {
            Ok(()) => self.works(Topic::Catalog),
            Err(error) => self.say(Topic::Catalog, &error.in_one_line()),
        }
        result.is_ok()
    }

    fn works(&mut self, topic: Topic) {
        self.said.remove(&topic);
    }

    fn say(&mut self, topic: Topic, text: &str) {
        if self.said.get(&topic).is_none_or(|said| said != text) {
            (self.warn)(text);
            self.said.insert(topic, text.to_owned());
        }
    }
}

/// Whether a container begins to use its volumes here.
fn is_birth(event: &Event) -> bool {
    event.subject == Subject::Container && matches!(event.action, Action::Create | Action::Start)
}

impl Listening {
    /// A time of the engine's clock by ours; never one that is still to come.
    fn our_time(&self, time: Timestamp) -> Timestamp {
        let now = Timestamp::now();
        time.checked_add(self.offset).map_or(now, |time| time.min(now))
    }

    async fn scan(&self) -> Result<(Inventory, Timestamp), EngineError> {
        let at = Timestamp::now();
        Ok((Inventory::scan(&self.engine).await?, at))
    }

    /// One container with its volumes, as a part of an inventory; `None` if it is gone already.
    async fn inspect(&self, id: String) -> Result<Option<(Inventory, Timestamp)>, EngineError> {
        let at = Timestamp::now();
        let Some(container) = self.engine.container(&id).await? else { return Ok(None) };
        let mut part = Inventory::from_parts(Vec::new(), vec![container]);
        let mut volumes = Vec::new();
        for MissingVolume { name, .. } in &part.missing {
            volumes.extend(self.engine.volume(name).await?);
        }
        part = Inventory::from_parts(volumes, part.containers);
        Ok(Some((part, at)))
    }
}

/// The catalog as the feed uses it: on threads that may wait for the disk.
struct Notes {
    path: PathBuf,
    open: Option<Catalog>,
}

impl Notes {
    /// Writes into a catalog that is opened anew: somebody may have moved the file away.
    async fn anew(
        &mut self,
        work: impl FnOnce(&Catalog) -> catalog::Result<()> + Send + 'static,
    ) -> catalog::Result<()> {
        self.open = None;
        self.write(work).await
    }

    async fn write(
        &mut self,
        work: impl FnOnce(&Catalog) -> catalog::Result<()> + Send + 'static,
    ) -> catalog::Result<()> {
        let (path, open) = (self.path.clone(), self.open.take());
        let done = tokio::task::spawn_blocking(move || {
            let catalog = match open {
                Some(catalog) => catalog,
                None => Catalog::open(&path)?,
            };
            work(&catalog)?;
            Ok(catalog)
        });
        match done.await {
            Ok(Ok(catalog)) => {
                self.open = Some(catalog);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(stopped) => Err(CatalogError {
                path: self.path.display().to_string(),
                reason: format!("could not be written: {stopped}"),
                hint: None,
            }),
        }
    }
}
