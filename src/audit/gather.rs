//! Collects the evidence: asks the engine, walks through volumes, and looks at this machine.
//!
//! Only what the selected checks need is asked. Nothing that goes wrong here ends the audit: what is not known stays unknown, and is
//! told in [`Evidence::skipped`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;

use super::evidence::{
    BindFacts, BindKind, ContainerFacts, Content, EngineFacts, Evidence, ImageFacts, LastUse, Layer, LayerFile, Limits,
    MissingFacts, MountFacts, NetworkFacts, VolumeFacts,
};
use super::host::{self, MountPoint};
use super::network::{self, Remote};
use super::scan::{MAX_ENTRIES, MAX_TIME, scan};
use super::{CHECKS, Need, Skipped};
use crate::docker::{Container, Engine, EngineError, EngineErrorKind};
use crate::inventory::{AccessError, Catalog, Inventory, Kind, VolumeInfo, bound_folder, readable_root};
use crate::snapshot::Excludes;

/// Questions to the engine, and walks through volumes, at once.
const PARALLEL: usize = 8;

/// How much longer than [`MAX_TIME`] a walk may take before it counts as hanging.
const GRACE: Duration = Duration::from_secs(5);

/// The most paths of one container's layer that are looked at.
const MAX_PATHS: usize = 20_000;

/// Which snapshots there are.
#[derive(Debug, Clone)]
pub enum Snapshots {
    /// The time of the newest one of each volume of this engine.
    Known(BTreeMap<String, Timestamp>),
    /// That is not known.
    Unknown {
        /// Why.
        reason: String,
        /// Whether something failed, rather than that there is no repository.
        failed: bool,
    },
}

/// What is gathered, and from where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checks that will be applied.
    pub selected: BTreeSet<&'static str>,
    /// From what sizes and ages on something is found.
    pub limits: Limits,
    /// Globs of names of volumes that may be lost.
    pub ephemeral: Excludes,
    /// Where the file system of the engine's machine is: `/`, unless voltool runs in a container.
    pub host_root: PathBuf,
}

impl Options {
    fn needs(&self, need: Need) -> bool {
        CHECKS.iter().any(|check| self.selected.contains(check.id) && check.needs.contains(&need))
    }
}

/// Gathers what the selected checks need.
pub async fn gather(
    engine: &Engine,
    inventory: &Inventory,
    snapshots: Snapshots,
    catalog: Option<&Catalog>,
    options: &Options,
) -> Evidence {
    let mut gathering = Gathering { engine, inventory, options, skipped: BTreeSet::new() };
    for warning in &inventory.warnings {
        gathering.skip_all(&format!("the engine could not list everything: {warning}"));
    }
    let facts = gathering.engine_facts().await;
    let mounts = gathering.mounts();
    let host_users = gathering.host_users();
    let prunes = gathering.timers().await;
    let last_uses = gathering.last_uses(catalog);
    let binds = gathering.binds(&mounts).await;
    let networks = gathering.networks(&mounts).await;
    let contents = gathering.contents(&facts, &networks).await;
    let newest = gathering.newest(snapshots);
    let mut containers = gathering.containers().await;
    let images = gathering.images(&containers).await;

    let volumes = inventory.volumes.iter().map(|info| VolumeFacts {
        content: contents.get(&info.name).cloned().unwrap_or(Content::Unknown),
        newest_snapshot: newest.as_ref().and_then(|newest| newest.get(&info.name)).copied(),
        ephemeral: info.labels.get("voltool.ephemeral").is_some_and(|value| value == "true")
            || options.ephemeral.matches(info.name.as_bytes()),
        network: networks.get(&info.name).cloned(),
        last_use: last_uses.get(&info.name).cloned(),
        info: info.clone(),
    });
    let volumes: Vec<VolumeFacts> = volumes.collect();
    if let Some(known) = host_users.as_ref().filter(|_| facts.user_namespace.is_none()) {
        gathering.users(&volumes, &mut containers, known).await;
    }
    Evidence {
        now: Timestamp::now(),
        engine: facts,
        volumes,
        containers,
        images,
        binds,
        missing: missing(inventory),
        prunes,
        host_users,
        snapshots_known: newest.is_some(),
        limits: options.limits,
        skipped: gathering.skipped.into_iter().collect(),
    }
}

struct Gathering<'a> {
    engine: &'a Engine,
    inventory: &'a Inventory,
    options: &'a Options,
    skipped: BTreeSet<Skipped>,
}

impl Gathering<'_> {
    /// Notes that the selected checks with this need could not see something.
    fn skip(&mut self, need: Need, failed: bool, reason: &str) {
        self.skip_if(need, failed, reason, |_| true);
    }

    fn skip_if(&mut self, need: Need, failed: bool, reason: &str, concerned: impl Fn(&str) -> bool) {
        for check in CHECKS {
            if self.options.selected.contains(check.id) && check.needs.contains(&need) && concerned(check.id) {
                self.skipped.insert(Skipped { id: check.id, reason: reason.to_owned(), failed });
            }
        }
    }

    fn skip_all(&mut self, reason: &str) {
        for id in &self.options.selected {
            self.skipped.insert(Skipped { id, reason: reason.to_owned(), failed: true });
        }
    }

    fn needs(&self, need: Need) -> bool {
        self.options.needs(need)
    }

    /// A path of the engine's machine, as this process reaches it.
    fn on_host(&self, path: &Path) -> PathBuf {
        self.options.host_root.join(path.strip_prefix("/").unwrap_or(path))
    }

    async fn engine_facts(&mut self) -> EngineFacts {
        let info = self.engine.info();
        let mut parts = info.api_version.split('.').map(|part| part.parse().unwrap_or(0));
        let api = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let mut facts = EngineFacts { name: info.name.clone(), api, ..EngineFacts::default() };
        if !self.needs(Need::Settings) {
            return facts;
        }
        let settings = match self.engine.settings().await {
            Ok(settings) => settings,
            Err(error) => {
                self.skip(Need::Settings, true, &error.to_string());
                return facts;
            }
        };
        facts.live_restore = Some(settings.live_restore);
        facts.selinux = settings.has_security("selinux");
        if settings.has_security("userns") {
            // With user namespaces, the engine's data folder ends with the first ids: `/var/lib/docker/100000.100000`.
            let last = Path::new(&info.root_dir).file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let base = last.split_once('.').and_then(|(uid, _)| uid.parse().ok());
            facts.user_namespace = base.map(|base| (base, host::subordinate_ids(&self.options.host_root, base)));
            if base.is_none() {
                let reason = format!(
                    "which ids the user namespace has is not to be seen from the data folder {}",
                    info.root_dir
                );
                self.skip_if(Need::Settings, false, &reason, |id| id == "T16");
            }
        }
        facts
    }

    /// The mounts of the engine's machine, if that is this one.
    fn mounts(&mut self) -> Vec<MountPoint> {
        if !self.needs(Need::Network) && !self.needs(Need::Binds) {
            return Vec::new();
        }
        if let Some(reason) = self.engine.local_reason() {
            let reason = format!("what is mounted on the engine's machine cannot be seen from here: {reason}");
            self.skip(Need::Network, false, &reason);
            return Vec::new();
        }
        host::mounts(&self.options.host_root).unwrap_or_else(|error| {
            self.skip(Need::Network, true, &format!("the table of mounts cannot be read: {error}"));
            Vec::new()
        })
    }

    fn host_users(&mut self) -> Option<BTreeSet<u32>> {
        if !self.needs(Need::Users) {
            return None;
        }
        if let Some(reason) = self.engine.local_reason() {
            let reason = format!("the users of the engine's machine cannot be seen from here: {reason}");
            self.skip(Need::Users, false, &reason);
            return None;
        }
        host::users(&self.options.host_root)
            .map_err(|error| {
                let at = self.on_host(Path::new("/etc/passwd"));
                self.skip(Need::Users, true, &format!("{} cannot be read: {error}", at.display()));
            })
            .ok()
    }

    async fn timers(&mut self) -> Vec<super::evidence::ScheduledPrune> {
        if !self.needs(Need::Timers) {
            return Vec::new();
        }
        if let Some(reason) = self.engine.local_reason() {
            let reason = format!("the timers of the engine's machine cannot be seen from here: {reason}");
            self.skip(Need::Timers, false, &reason);
            return Vec::new();
        }
        let root = self.options.host_root.clone();
        let found = blocking(move || host::timers(&root)).await.unwrap_or_default();
        if !found.unreadable.is_empty() {
            let reason = format!("timers cannot be read (permission denied): {}", found.unreadable.join(", "));
            self.skip(Need::Timers, true, &reason);
        }
        found.prunes
    }

    fn last_uses(&mut self, catalog: Option<&Catalog>) -> BTreeMap<String, LastUse> {
        let mut found = BTreeMap::new();
        let Some(catalog) = catalog.filter(|_| self.needs(Need::Catalog)) else { return found };
        let engine = self.engine.info().key();
        for volume in self.inventory.volumes.iter().filter(|volume| volume.is_dangling()) {
            match catalog.last_use(&engine, &volume.name) {
                Ok(Some(last)) => {
                    let text =
                        format!("{}, seen last at {}", last.describe(), last.last_seen.strftime("%Y-%m-%d %H:%M UTC"));
                    found.insert(volume.name.clone(), LastUse { text, image: last.image, path: last.path });
                }
                Ok(None) => {}
                Err(error) => {
                    self.skip(Need::Catalog, true, &format!("the last users are not known: {error}"));
                    break;
                }
            }
        }
        found
    }

    fn newest(&mut self, snapshots: Snapshots) -> Option<BTreeMap<String, Timestamp>> {
        match snapshots {
            Snapshots::Known(newest) => Some(newest),
            Snapshots::Unknown { reason, failed } => {
                self.skip(Need::Snapshots, failed, &reason);
                None
            }
        }
    }

    /// What is at the source of each bind mount.
    async fn binds(&mut self, mounts: &[MountPoint]) -> BTreeMap<String, BindFacts> {
        let mut sources = BTreeSet::new();
        for container in &self.inventory.containers {
            sources.extend(binds_of(container).map(|mount| mount.source));
        }
        if sources.is_empty() || !self.needs(Need::Binds) {
            return BTreeMap::new();
        }
        if let Some(reason) = self.engine.local_reason() {
            let reason = format!("what is mounted from the engine's machine cannot be seen from here: {reason}");
            self.skip_if(Need::Binds, false, &reason, |id| id == "T06");
            return sources.into_iter().map(|source| (source, BindFacts::default())).collect();
        }
        let asked = sources.into_iter().map(|source| {
            let at = self.on_host(Path::new(&source));
            let remote = host::mount_of(Path::new(&source), mounts).and_then(network::of_mount);
            async move {
                let facts = blocking(move || {
                    let network = remote.map(|remote| network::ask(remote, Some(&at)));
                    let dead = network.as_ref().is_some_and(|network| network.unreachable.is_some());
                    let kind = if dead { BindKind::Unknown } else { kind_of(&at) };
                    BindFacts { kind, network }
                });
                (source, facts.await.unwrap_or_default())
            }
        });
        let asked: Vec<_> = asked.collect();
        stream::iter(asked).buffered(PARALLEL).collect().await
    }

    /// Which volumes come over a network, and whether the other side answers.
    async fn networks(&mut self, mounts: &[MountPoint]) -> BTreeMap<String, NetworkFacts> {
        // Needed for the content as well: a dead mount must not be walked through.
        if !self.needs(Need::Network) && !self.needs(Need::Content) {
            return BTreeMap::new();
        }
        let local = self.engine.is_local();
        let asked: Vec<_> = self
            .inventory
            .volumes
            .iter()
            .filter_map(|volume| {
                let (remote, mounted_at) = remote_of(volume, mounts)?;
                let mounted_at = mounted_at.map(|path| self.on_host(&path));
                Some((volume.name.clone(), remote, mounted_at))
            })
            .map(|(name, remote, mounted_at)| async move {
                let fallback = NetworkFacts { what: remote.what.clone(), cached: remote.cached, unreachable: None };
                // Another machine may reach what this one does not.
                let facts = match local {
                    true => blocking(move || network::ask(remote, mounted_at.as_deref())).await.unwrap_or(fallback),
                    false => fallback,
                };
                (name, facts)
            })
            .collect();
        stream::iter(asked).buffered(PARALLEL).collect().await
    }

    /// What is in the volumes.
    async fn contents(
        &mut self,
        facts: &EngineFacts,
        networks: &BTreeMap<String, NetworkFacts>,
    ) -> BTreeMap<String, Content> {
        if !self.needs(Need::Content) {
            return BTreeMap::new();
        }
        let concerned = |id: &str| id != "T16" || facts.selinux || facts.user_namespace.is_some();
        if let Some(reason) = self.engine.local_reason() {
            let reason = format!("what is in the volumes cannot be seen from here: {reason}");
            self.skip_if(Need::Content, false, &reason, concerned);
            return BTreeMap::new();
        }
        let walks: Vec<_> = self
            .inventory
            .volumes
            .iter()
            .map(|volume| {
                let dead = networks.get(&volume.name).and_then(|network| network.unreachable.clone());
                let (engine, volume, labels) = (self.engine.clone(), volume.clone(), facts.selinux);
                async move { (volume.name.clone(), look(engine, volume, labels, dead).await) }
            })
            .collect();
        let looked: Vec<(String, Look)> = stream::iter(walks).buffered(PARALLEL).collect().await;
        let (mut contents, mut failed, mut beyond, mut partly) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, look) in looked {
            match look {
                Ok(content) => {
                    if matches!(&content, Content::Scanned(scan) if !scan.complete) {
                        partly.push(name.clone());
                    }
                    contents.insert(name, content);
                }
                Err(Unseen { reason, failed: true }) => failed.push((name, reason)),
                Err(Unseen { reason, failed: false }) => beyond.push((name, reason)),
            }
        }
        for (unseen, is_failure) in [(failed, true), (beyond, false)] {
            let Some((_, first)) = unseen.first() else { continue };
            let others: Vec<&str> = unseen.iter().skip(1).map(|(name, _)| name.as_str()).collect();
            let others = if others.is_empty() { String::new() } else { format!("; nor {}", others.join(", ")) };
            self.skip_if(Need::Content, is_failure, &format!("{first}{others}"), concerned);
        }
        if !partly.is_empty() {
            let reason = format!(
                "only {MAX_ENTRIES} entries, or {} s, of each volume are looked at; there are more in {}",
                MAX_TIME.as_secs(),
                partly.join(", ")
            );
            // For the others it is enough to know that there is something.
            self.skip_if(Need::Content, false, &reason, |id| matches!(id, "T10" | "T12" | "T16") && concerned(id));
        }
        contents
    }

    async fn containers(&mut self) -> Vec<ContainerFacts> {
        let asked: Vec<_> = self.inventory.containers.iter().map(|container| self.container(container)).collect();
        let answers: Vec<(ContainerFacts, Vec<(Need, String)>)> =
            stream::iter(asked).buffered(PARALLEL).collect().await;
        let mut containers = Vec::with_capacity(answers.len());
        for (facts, failures) in answers {
            for (need, reason) in failures {
                self.skip(need, true, &reason);
            }
            containers.push(facts);
        }
        containers
    }

    async fn container(&self, container: &Container) -> (ContainerFacts, Vec<(Need, String)>) {
        let mut failures = Vec::new();
        let mut facts = facts_of(container, self.inventory);
        if self.needs(Need::Layers) {
            match self.layer(container).await {
                Ok(layer) => facts.layer = layer,
                Err(error) => failures.push((Need::Layers, error.to_string())),
            }
        }
        if self.needs(Need::Processes) && facts.running && facts.has_data_mounts() {
            match self.engine.container_processes(&container.id).await {
                Ok(processes) => facts.processes = Some(processes),
                Err(error) => failures.push((Need::Processes, error.to_string())),
            }
        }
        (facts, failures)
    }

    /// What a container has written into its own layer. The sizes are read from the layer's folder, where there is one on this machine.
    async fn layer(&self, container: &Container) -> Result<Option<Layer>, EngineError> {
        let Some(changes) = self.engine.container_changes(&container.id).await? else { return Ok(None) };
        let mut paths: Vec<String> =
            changes.into_iter().filter(|change| !change.is_removal()).map(|change| change.path).collect();
        paths.truncate(MAX_PATHS);
        if paths.is_empty() {
            return Ok(Some(Layer::default()));
        }
        let upper = container.raw.pointer("/GraphDriver/Data/UpperDir").and_then(Value::as_str).map(PathBuf::from);
        if let Some(upper) = upper.filter(|_| self.engine.is_local()) {
            let again = paths.clone();
            let sized = blocking(move || {
                // Without permission, and with another root, nothing can be told.
                std::fs::read_dir(&upper).ok()?;
                let files = again.into_iter().filter_map(|path| {
                    let meta = upper.join(path.trim_start_matches('/')).symlink_metadata().ok()?;
                    meta.is_file().then_some(LayerFile { path, bytes: Some(meta.len()) })
                });
                Some(files.collect())
            });
            if let Some(files) = sized.await.flatten() {
                return Ok(Some(Layer { files, total: None }));
            }
        }
        // The engine lists a file together with the folders that lead to it.
        paths.sort();
        let mut leaves: Vec<LayerFile> = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let leads = |other: &String| other.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'));
            // Between a folder and what is in it, only names that begin with the folder's can stand.
            let inside = paths[at + 1..].iter().take_while(|other| other.starts_with(path.as_str())).any(leads);
            if !inside {
                leaves.push(LayerFile { path: path.clone(), bytes: None });
            }
        }
        let total = self.engine.container_layer_size(&container.id).await?;
        Ok(total.map(|total| Layer { files: leaves, total: Some(total) }))
    }

    async fn images(&mut self, containers: &[ContainerFacts]) -> BTreeMap<String, ImageFacts> {
        if !self.needs(Need::Images) {
            return BTreeMap::new();
        }
        let ids: BTreeSet<&str> = containers.iter().map(|container| container.image_id.as_str()).collect();
        let engine = self.engine;
        let asked: Vec<_> = ids.into_iter().map(|id| async move { (id, engine.image(id).await) }).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(PARALLEL).collect().await;
        let mut images = BTreeMap::new();
        for (id, answer) in answers {
            match answer {
                Ok(Some(image)) => {
                    images.insert(id.to_owned(), ImageFacts { size: image.size, volumes: image.volumes });
                }
                // Removed under its container: the container's own definition has to do.
                Ok(None) => {}
                Err(error) => self.skip(Need::Images, true, &error.to_string()),
            }
        }
        images
    }

    /// Reads the users of the running containers whose volumes hold files of a user that this machine does not know.
    async fn users(&mut self, volumes: &[VolumeFacts], containers: &mut [ContainerFacts], known: &BTreeSet<u32>) {
        let strange = volumes
            .iter()
            .filter(|volume| volume.scan().is_some_and(|scan| scan.owners.keys().any(|uid| !known.contains(uid))));
        let ids: BTreeSet<&str> =
            strange.flat_map(|volume| &volume.info.used_by).map(|usage| usage.container_id.as_str()).collect();
        for container in containers.iter_mut().filter(|c| c.running && ids.contains(c.id.as_str())) {
            match self.engine.container_file(&container.id, "/etc/passwd").await {
                // An image without the file has no users with names.
                Ok(file) => container.users = Some(host::users_in(&file.unwrap_or_default())),
                Err(error) if error.kind == EngineErrorKind::Conflict => {}
                Err(error) => self.skip(Need::Users, true, &error.to_string()),
            }
        }
    }
}

/// Why a volume's content is not known.
struct Unseen {
    reason: String,
    failed: bool,
}

type Look = Result<Content, Unseen>;

/// Looks into one volume.
async fn look(engine: Engine, volume: VolumeInfo, labels: bool, dead: Option<String>) -> Look {
    let name = volume.name.clone();
    if let Some(reason) = dead {
        return Err(Unseen { reason: format!("cannot read volume {name}: {reason}"), failed: true });
    }
    let walk = blocking(move || {
        let root = match readable_root(&volume, &engine) {
            Ok(root) => root,
            Err(AccessError::Memory { .. }) => return Ok(Content::Memory),
            Err(error) => {
                let failed = matches!(error, AccessError::Denied { .. } | AccessError::Unreadable { .. });
                return Err(Unseen { reason: error.to_string(), failed });
            }
        };
        scan(&root, labels).map(Content::Scanned).map_err(|error| Unseen {
            reason: format!("cannot read volume {} at {}: {error}", volume.name, root.display()),
            failed: true,
        })
    });
    match tokio::time::timeout(MAX_TIME + GRACE, walk).await {
        Ok(Some(look)) => look,
        Ok(None) => Err(Unseen { reason: format!("cannot read volume {name}"), failed: true }),
        Err(_) => {
            let reason = format!("cannot read volume {name}: no answer within {} s", (MAX_TIME + GRACE).as_secs());
            Err(Unseen { reason, failed: true })
        }
    }
}

/// Does something that may block, where that holds nobody up. `None` if it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Where a volume comes from over a network, and where it is mounted now.
fn remote_of(volume: &VolumeInfo, mounts: &[MountPoint]) -> Option<(Remote, Option<PathBuf>)> {
    let by_options = network::of_volume(volume);
    let folder = bound_folder(volume).unwrap_or(Path::new(&volume.mountpoint));
    let by_mount = host::mount_of(folder, mounts).and_then(network::of_mount);
    match (by_options, by_mount) {
        (Some(remote), Some(_)) => Some((remote, Some(folder.to_owned()))),
        // Not mounted now, or mounted where this process cannot see it.
        (Some(remote), None) => Some((remote, None)),
        (None, Some(remote)) => Some((remote, Some(folder.to_owned()))),
        (None, None) => None,
    }
}

/// What is at a path of the host.
fn kind_of(path: &Path) -> BindKind {
    let Ok(meta) = path.metadata() else { return BindKind::Unknown };
    if meta.is_file() {
        return BindKind::File;
    }
    if !meta.is_dir() {
        return BindKind::Special;
    }
    match std::fs::read_dir(path).map(|mut listing| listing.next().is_none()) {
        Ok(true) => BindKind::EmptyFolder,
        Ok(false) => BindKind::Folder,
        Err(_) => BindKind::Unknown,
    }
}

struct Bind {
    source: String,
    path: String,
    rw: bool,
}

/// The bind mounts of a container.
fn binds_of(container: &Container) -> impl Iterator<Item = Bind> {
    let mounts = container.raw.get("Mounts").and_then(Value::as_array).into_iter().flatten();
    mounts.filter_map(|mount| {
        let text = |name: &str| mount.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let rw = mount.get("RW").and_then(Value::as_bool).unwrap_or_default();
        (text("Type") == "bind").then(|| Bind { source: text("Source"), path: text("Destination"), rw })
    })
}

/// What the engine says of a container.
fn facts_of(container: &Container, inventory: &Inventory) -> ContainerFacts {
    let text = |pointer: &str| container.raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let keys = |pointer: &str| {
        let map = container.raw.pointer(pointer).and_then(Value::as_object);
        map.into_iter().flat_map(|map| map.keys().cloned()).collect::<Vec<String>>()
    };
    let mut facts = ContainerFacts {
        id: container.id.clone(),
        name: container.name.clone(),
        running: container.is_running(),
        image: container.details.config.image.clone(),
        image_id: text("/Image"),
        user: text("/Config/User"),
        labels: container.details.config.labels.clone(),
        auto_remove: container.raw.pointer("/HostConfig/AutoRemove").and_then(Value::as_bool).unwrap_or_default(),
        exposed_ports: keys("/Config/ExposedPorts"),
        declared: keys("/Config/Volumes"),
        ..ContainerFacts::default()
    };
    for volume in &inventory.volumes {
        for usage in volume.used_by.iter().filter(|usage| usage.container_id == container.id) {
            facts.data_only |= usage.data_only;
            facts.mounts.push(MountFacts {
                volume: Some(volume.name.clone()),
                bind: None,
                path: usage.path.clone(),
                rw: usage.rw,
                named: usage.named_in_spec == Some(true) && volume.kind == Kind::Named,
            });
        }
    }
    for Bind { source, path, rw } in binds_of(container) {
        facts.mounts.push(MountFacts { volume: None, bind: Some(source), path, rw, named: false });
    }
    facts
}

fn missing(inventory: &Inventory) -> Vec<MissingFacts> {
    let facts = inventory.missing.iter().map(|missing| {
        let mut mounts = inventory.containers.iter().flat_map(|container| &container.details.mounts);
        let driver = mounts.find(|mount| mount.name == missing.name).map(|mount| mount.driver.clone());
        let used_by: BTreeSet<String> = missing.used_by.iter().map(|usage| usage.name.clone()).collect();
        MissingFacts {
            name: missing.name.clone(),
            driver: driver.unwrap_or_default(),
            used_by: used_by.into_iter().collect(),
        }
    });
    facts.collect()
}
