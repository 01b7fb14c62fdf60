//! What collectors have decided: which packs are condemned, which late commits are rejected, what is forgotten.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::index::PackName;
use super::{RepoError, Repository, Result};

/// `gc/<n>.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number.
    pub epoch: u64,
    /// Keys of packs that no new snapshot may refer to.
    pub condemned: Vec<String>,
}

/// `gc/<n>.decided`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The epoch's number.
    pub epoch: u64,
    /// Sessions whose snapshots do not count, should they turn up.
    pub rejected: Vec<String>,
}

/// All epochs together.
#[derive(Debug, Default, Clone)]
pub struct Epochs {
    /// Packs that are invisible to sessions that began after their epoch.
    pub condemned: BTreeSet<PackName>,
    /// Sessions whose snapshots do not count.
    pub rejected: BTreeSet<String>,
}

impl Repository {
    /// Reads every epoch. One LIST, and a GET for each that is not in the cache.
    pub async fn epochs(&self) -> Result<Epochs> {
        let mut epochs = Epochs::default();
        for object in self.store.list("gc/").await? {
            let key = &object.key;
            let cached = self.cache.checked_object(key).filter(|d| d.len() as u64 == object.size);
            let data = match &cached {
                Some(data) => data.clone(),
                None => self.store.get(key).await?,
            };
            // An epoch that is not understood in every part cannot be passed over: what it condemns will be gone.
            let damaged = |e: serde_json::Error| RepoError::damaged(key.as_str(), e);
            if key.ends_with(".decided") {
                let decision: Decision = serde_json::from_slice(&data).map_err(damaged)?;
                epochs.rejected.extend(decision.rejected);
            } else if key.ends_with(".json") {
                let epoch: Epoch = serde_json::from_slice(&data).map_err(damaged)?;
                for pack in &epoch.condemned {
                    let name = PackName::from_key(pack).filter(|name| name.key() == *pack);
                    let no_pack = || RepoError::damaged(key.as_str(), format!("{pack:?} is not the name of a pack"));
                    epochs.condemned.insert(name.ok_or_else(no_pack)?);
                }
            }
            if cached.is_none() {
                self.cache.keep_checked_object(key, &data);
            }
        }
        Ok(epochs)
    }

    /// The ids of snapshots that were forgotten.
    pub async fn forgotten(&self) -> Result<BTreeSet<String>> {
        let id = |key: &str| Some(key.strip_prefix("forgotten/")?.strip_suffix(".json")?.to_owned());
        Ok(self.store.list("forgotten/").await?.iter().filter_map(|o| id(&o.key)).collect())
    }
}
