//! Evidence for the tests of the checks: an engine on which nothing is wrong, to change one thing of.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::evidence::{ContainerFacts, Content, EngineFacts, Evidence, ImageFacts, Limits, MountFacts, VolumeFacts};
use super::scan::{Sample, Scan};
use crate::inventory::{Kind, Usage, VolumeInfo};

/// When the tests are.
pub fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("a time")
}

/// A modern engine without anything on it, of which everything is known.
pub fn evidence() -> Evidence {
    let engine =
        EngineFacts { name: "host".to_owned(), api: (1, 45), live_restore: Some(false), ..EngineFacts::default() };
    Evidence {
        now: now(),
        engine,
        volumes: Vec::new(),
        containers: Vec::new(),
        images: BTreeMap::new(),
        binds: BTreeMap::new(),
        missing: Vec::new(),
        prunes: Vec::new(),
        host_users: Some(BTreeSet::from([0, 1])),
        snapshots_known: true,
        limits: Limits::default(),
        skipped: Vec::new(),
    }
}

/// A named volume that is empty and that nobody uses.
pub fn volume(name: &str) -> VolumeFacts {
    let info = VolumeInfo {
        name: name.to_owned(),
        kind: Kind::Named,
        driver: "local".to_owned(),
        mountpoint: format!("/var/lib/docker/volumes/{name}/_data"),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        compose_project: None,
        created_at: Some("2026-11-01T00:00:00Z".to_owned()),
        used_by: Vec::new(),
    };
    let content = Content::Scanned(Scan { complete: true, ..Scan::default() });
    VolumeFacts { info, content, newest_snapshot: None, ephemeral: false, network: None, last_use: None }
}

impl VolumeFacts {
    /// Makes it anonymous.
    pub fn anonymous(mut self) -> Self {
        self.info.kind = Kind::Anonymous;
        self
    }

    /// Puts files into it, of user 0.
    pub fn with_files(mut self, files: u64, bytes: u64) -> Self {
        let owners = BTreeMap::from([(0, Sample { count: files, example: "file".to_owned() })]);
        self.content =
            Content::Scanned(Scan { entries: files, files, bytes, complete: true, owners, ..Scan::default() });
        self
    }

    /// Nobody can see what is in it.
    pub fn unknown(mut self) -> Self {
        self.content = Content::Unknown;
        self
    }

    /// Gives it a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.info.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Lets a container use it at a path.
    pub fn used_by(mut self, container: &ContainerFacts, path: &str) -> Self {
        self.info.used_by.push(Usage {
            name: container.name.clone(),
            path: path.to_owned(),
            container_id: container.id.clone(),
            state: if container.running { "running" } else { "exited" }.to_owned(),
            rw: true,
            data_only: container.data_only,
            named_in_spec: Some(self.info.kind == Kind::Named),
            inherited: false,
        });
        self
    }
}

/// A running container of a pinned image, as user 1, that mounts nothing.
pub fn container(name: &str) -> ContainerFacts {
    ContainerFacts {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        running: true,
        image: "app:1.0".to_owned(),
        image_id: "sha256:app".to_owned(),
        user: "1".to_owned(),
        ..ContainerFacts::default()
    }
}

impl ContainerFacts {
    /// Mounts a named volume.
    pub fn mounting(mut self, volume: &str, path: &str) -> Self {
        let (volume, path) = (Some(volume.to_owned()), path.to_owned());
        self.mounts.push(MountFacts { volume, path, rw: true, named: true, bind: None });
        self
    }

    /// Mounts a volume whose name nobody chose.
    pub fn mounting_anonymous(self, volume: &str, path: &str) -> Self {
        let mut container = self.mounting(volume, path);
        if let Some(mount) = container.mounts.last_mut() {
            mount.named = false;
        }
        container
    }

    /// Mounts something of the host.
    pub fn binding(mut self, source: &str, path: &str, rw: bool) -> Self {
        let (bind, path) = (Some(source.to_owned()), path.to_owned());
        self.mounts.push(MountFacts { bind, path, rw, volume: None, named: false });
        self
    }
}

/// An image that declares volumes.
pub fn image(size: u64, volumes: &[&str]) -> ImageFacts {
    ImageFacts { size, volumes: volumes.iter().map(|path| (*path).to_owned()).collect() }
}
