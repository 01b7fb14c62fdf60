//! What most verbs begin with: the repository, the engine, and the snapshot that somebody means.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::snapshot_ref::{SelectError, SnapshotRef};
use super::{CliError, Context};
use crate::docker::{ConnectOptions, Engine};
use crate::driver;
use crate::inventory::{Catalog, Inventory, catalog, is_own_driver};
use crate::repo::{Repository, SnapshotRecord};
use crate::store::Store;

/// The storage that the settings name.
pub async fn store(ctx: &Context) -> anyhow::Result<Arc<dyn Store>> {
    Ok(crate::store::open(&ctx.settings.repository()?, &ctx.settings.s3).await?)
}

/// Opens the repository that the settings name, with its index. What is wrong with the index is said; it is found again in the packs.
pub async fn repository(ctx: &Context) -> anyhow::Result<Arc<Repository>> {
    let repo = repository_without_index(ctx).await?;
    for damaged in repo.load_index().await? {
        ctx.ui.warn(&format!("{damaged}; what it told is found in the packs when it is needed"));
    }
    Ok(repo)
}

/// Opens the repository that the settings name.
pub async fn repository_without_index(ctx: &Context) -> anyhow::Result<Arc<Repository>> {
    let store = store(ctx).await?;
    let unlock = ctx.secrets()?.unlock();
    let repo = Repository::open(store, &unlock, &ctx.settings.cache_dir).await?;
    Ok(Arc::new(repo.with_memory(ctx.settings.memory)))
}

/// Connects to the engine that the settings or the environment name.
pub async fn engine(ctx: &Context) -> anyhow::Result<Engine> {
    let options = ConnectOptions { host: ctx.settings.engine_host.clone(), ..ConnectOptions::default() };
    Ok(Engine::connect(&options).await?)
}

/// The catalog; `None`, and a warning, if it cannot be used.
pub fn catalog(ctx: &Context) -> Option<Catalog> {
    let opened = Catalog::open(&catalog_path(ctx));
    opened.map_err(|error| ctx.ui.warn(&error.in_one_line())).ok()
}

/// Where the catalog is.
pub fn catalog_path(ctx: &Context) -> PathBuf {
    ctx.settings.state_dir.join(catalog::FILE_NAME)
}

/// Takes stock of the engine, and tells the catalog. That the catalog cannot be used is a warning, and nothing more.
pub async fn inventory(ctx: &Context, engine: &Engine) -> anyhow::Result<Inventory> {
    inventory_noted(ctx, engine, catalog(ctx).as_ref()).await
}

/// As [`inventory`], with a catalog that is open already, if it could be opened.
pub async fn inventory_noted(ctx: &Context, engine: &Engine, catalog: Option<&Catalog>) -> anyhow::Result<Inventory> {
    // From before the scan: whatever is noted while it lasts is newer.
    let at = Timestamp::now();
    let mut inventory = Inventory::scan(engine).await?;
    for volume in inventory.volumes.iter_mut().filter(|v| is_own_driver(&v.driver) && v.mountpoint.is_empty()) {
        // podman tells of no place while nobody uses the volume.
        let kept = driver::kept_at(&ctx.settings.state_dir, &volume.name).filter(|_| engine.is_local());
        volume.mountpoint = kept.unwrap_or_default();
    }
    if let Some(Err(error)) = catalog.map(|catalog| note(catalog, engine, &inventory, at)) {
        ctx.ui.warn(&error.in_one_line());
    }
    Ok(inventory)
}

/// Tells the catalog what a scan found that began at that time.
pub fn note(catalog: &Catalog, engine: &Engine, inventory: &Inventory, at: Timestamp) -> catalog::Result<()> {
    catalog.note_engine(engine.info(), at)?;
    catalog.observe(&engine.info().key(), inventory, at)
}

/// What the engine is called in snapshots.
pub fn engine_name(ctx: &Context, engine: &Engine) -> String {
    ctx.settings.engine_name.clone().unwrap_or_else(|| engine.info().name.clone())
}

/// Under which engine's name the snapshots of a volume of that driver are stored: volumes that hosts share belong to none of them.
pub fn source_engine(ctx: &Context, engine: &Engine, driver: &str) -> String {
    let shared = ctx.settings.plugin.shared_as.as_ref().filter(|_| is_own_driver(driver));
    shared.cloned().unwrap_or_else(|| engine_name(ctx, engine))
}

/// Whether hosts share the volumes of that driver.
pub fn is_shared(ctx: &Context, driver: &str) -> bool {
    ctx.settings.plugin.shared_as.is_some() && is_own_driver(driver)
}

/// Every snapshot that counts; damaged records are named and otherwise in nobody's way.
pub async fn snapshots(ctx: &Context, repo: &Repository) -> anyhow::Result<(Vec<Arc<SnapshotRecord>>, bool)> {
    let found = repo.snapshots().await?;
    for damaged in &found.damaged {
        ctx.ui.warn(&damaged.to_string());
    }
    Ok((found.records, !found.damaged.is_empty()))
}

/// The snapshot that is meant, among all that count. If several engines have a volume of that name, the one has to be said.
pub fn pick(
    records: &[Arc<SnapshotRecord>],
    wanted: &SnapshotRef,
    engine: Option<&str>,
) -> Result<Arc<SnapshotRecord>, CliError> {
    let volume = &wanted.volume;
    let named: Vec<Arc<SnapshotRecord>> =
        records.iter().filter(|r| r.volume == *volume && engine.is_none_or(|e| e == r.engine)).cloned().collect();
    if named.is_empty() {
        let error = CliError::failed(format!("there is no snapshot of {volume}"));
        let nearest = crate::inventory::nearest(volume, records.iter().map(|r| r.volume.as_str()));
        return Err(match nearest {
            Some(nearest) => error.hint(format!("did you mean {nearest}?")),
            None => error.hint("'voltool snapshots' lists what there is"),
        });
    }
    let mut engines: Vec<&str> = named.iter().map(|r| r.engine.as_str()).collect();
    engines.sort_unstable();
    engines.dedup();
    if engines.len() > 1 {
        let all = engines.join(", ");
        return Err(CliError::failed(format!("several engines have a volume {volume}: {all}"))
            .hint(format!("say which one, e.g. --engine {}", engines[0])));
    }
    let chosen = wanted.which.select(&named, |r| r.id.as_str(), |r| r.time);
    chosen.cloned().map_err(|e| match e {
        SelectError::None => CliError::failed(format!("{volume} has no such snapshot"))
            .hint(format!("'voltool snapshots {volume}' lists what there is")),
        SelectError::Ambiguous(ids) => {
            CliError::failed(format!("several snapshots of {volume} begin like that: {}", ids.join(", ")))
        }
    })
}

/// Paths below a volume's root, as a selection.
pub fn selection(paths: &[PathBuf]) -> crate::restore::Selection {
    use std::os::unix::ffi::OsStrExt;
    crate::restore::Selection::new(paths.iter().map(|p| p.as_os_str().as_bytes().to_vec()))
}

/// Raises the limit of open descriptors as far as this process may: walks and restores keep folders open, and the default of most
/// systems is for programs that do not.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(65_536, |max| max.min(65_536));
    if limit.current.is_some_and(|current| current < wanted) {
        // Best effort: with the old limit, very deep trees fail with a clear error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
