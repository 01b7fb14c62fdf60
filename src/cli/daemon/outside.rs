//! What the volume driver asks of the engine and the repository, as the settings name them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::cli::error::message;
use crate::cli::{CliError, Context, backup, open, snapshot_ref};
use crate::docker::{Engine, VolumeUser};
use crate::driver::{Outside, Step};
use crate::inventory::is_own_driver;
use crate::repo::{Repository, SnapshotRecord};
use crate::snapshot::{BackupOptions, Excludes};

/// How long the engine may take to answer. It waits for us meanwhile, and not for long.
const ENGINE: Duration = Duration::from_secs(10);
/// How long the repository may take to open.
const REPOSITORY: Duration = Duration::from_secs(20);
/// How long what is known of the repository's packs is good for; what others have added since is looked for then.
const FRESH: Duration = Duration::from_secs(10);

/// The way out.
pub(super) struct Outward {
    ctx: Context,
    engine: Mutex<Option<Engine>>,
    name: Mutex<Option<String>>,
    repository: Mutex<Kept>,
}

/// The repository, or why there is none.
#[derive(Default)]
struct Kept {
    open: Option<(Arc<Repository>, Instant)>,
    failed: Option<(String, Instant)>,
}

impl Kept {
    /// Opens it, or looks for what others have added since.
    async fn answer(&mut self, ctx: &Context) -> Result<Arc<Repository>, String> {
        if let Some((repo, at)) = &mut self.open {
            if at.elapsed() >= FRESH {
                let damaged =
                    within(REPOSITORY, "the repository", async { repo.load_index().await.map_err(|e| e.to_string()) });
                // What an index segment told is found in the packs when it is needed.
                drop(damaged.await?);
                *at = Instant::now();
            }
            return Ok(repo.clone());
        }
        let opening = async { open::repository(ctx).await.map_err(|e| message(&e)) };
        let repo = within(REPOSITORY, "the repository", opening).await?;
        self.open = Some((repo.clone(), Instant::now()));
        Ok(repo)
    }
}

impl Outward {
    pub(super) fn new(ctx: &Context) -> Outward {
        Outward { ctx: ctx.clone(), engine: Mutex::default(), name: Mutex::default(), repository: Mutex::default() }
    }

    async fn engine(&self) -> Result<Engine, String> {
        let mut kept = self.engine.lock().await;
        if let Some(engine) = &*kept {
            return Ok(engine.clone());
        }
        let engine =
            within(ENGINE, "the engine", async { open::engine(&self.ctx).await.map_err(|e| message(&e)) }).await?;
        *kept = Some(engine.clone());
        Ok(engine)
    }

    /// Asks the engine; once more on a new connection if it may have been replaced since.
    async fn ask<T, F: Future<Output = crate::docker::Result<T>>>(
        &self,
        ask: impl Fn(Engine) -> F,
    ) -> Result<T, String> {
        for fresh in [false, true] {
            if fresh {
                *self.engine.lock().await = None;
            }
            let engine = self.engine().await?;
            let answer = within(ENGINE, "the engine", async { ask(engine).await.map_err(|e| e.to_string()) }).await;
            if answer.is_ok() || fresh {
                return answer;
            }
        }
        Err("the engine does not answer".to_owned())
    }
}

async fn within<T>(limit: Duration, who: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| format!("{who} does not answer within {} s", limit.as_secs());
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// What went wrong and what to do, for somebody who gets one line from the engine.
fn in_one_line(error: &CliError) -> String {
    let parts: Vec<&str> = std::iter::once(&error.message).chain(&error.hints).map(String::as_str).collect();
    parts.join("; ")
}

#[async_trait]
impl Outside for Outward {
    async fn users(&self, volume: Option<&str>) -> Result<Vec<VolumeUser>, String> {
        self.ask(|engine| async move { engine.volume_users(volume).await }).await
    }

    async fn engine_name(&self) -> Result<String, String> {
        let mut known = self.name.lock().await;
        if let Some(name) = &*known {
            return Ok(name.clone());
        }
        let name = match &self.ctx.settings.engine_name {
            Some(name) => name.clone(),
            None => open::engine_name(&self.ctx, &self.engine().await?),
        };
        *known = Some(name.clone());
        Ok(name)
    }

    async fn labels(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, String> {
        let listed = self.ask(|engine| async move { engine.volumes().await }).await?;
        let own = listed.volumes.into_iter().filter(|volume| is_own_driver(&volume.driver));
        Ok(own.map(|volume| (volume.name, volume.labels)).collect())
    }

    async fn repository(&self) -> Result<Arc<Repository>, String> {
        if self.ctx.settings.repo.is_none() {
            return Err("no repository is configured ('voltool init' makes one)".to_owned());
        }
        let asked = Instant::now();
        let mut kept = self.repository.lock().await;
        // Who has waited for an attempt that failed need not wait for another one.
        if let Some((why, at)) = &kept.failed
            && *at >= asked
        {
            return Err(why.clone());
        }
        let answer = kept.answer(&self.ctx).await;
        kept.failed = answer.as_ref().err().map(|why| (why.clone(), Instant::now()));
        answer
    }

    async fn find(
        &self,
        volume: &str,
        snapshot: Option<&str>,
        engine: Option<&str>,
    ) -> Result<Arc<SnapshotRecord>, String> {
        let text = snapshot.map_or_else(|| volume.to_owned(), |snapshot| format!("{volume}@{snapshot}"));
        let wanted = snapshot_ref::parse_argument(&text)?;
        let repo = self.repository().await?;
        let listing = async { repo.snapshots().await.map_err(|e| e.to_string()) };
        let records = within(REPOSITORY, "the repository", listing).await?.records;
        // Where several engines have a volume of that name, this one's is meant.
        let own = self.engine_name().await.ok();
        let has = |name: &&str| records.iter().any(|record| record.volume == volume && record.engine == **name);
        let engine = engine.or(own.as_deref().filter(has));
        open::pick(&records, &wanted, engine).map_err(|e| in_one_line(&e))
    }

    fn backup_options(&self) -> BackupOptions {
        backup::options(&self.ctx, Vec::new(), Excludes::default())
    }

    fn log(&self, text: &str) {
        text.lines().for_each(|line| self.ctx.ui.note(line));
    }

    /// In builds for tests, a daemon can be told where to die.
    #[cfg(debug_assertions)]
    fn reached(&self, step: Step) {
        if std::env::var("VOLTOOL_TEST_DIE_AT").is_ok_and(|at| at == step.as_str()) {
            std::process::abort();
        }
    }

    #[cfg(not(debug_assertions))]
    fn reached(&self, _step: Step) {}
}
