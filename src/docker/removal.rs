//! Calls that remove, and those that bring back what was removed.

use serde::Deserialize;
use serde_json::Value;

use super::transport::{self, Call, encode};
use super::{Engine, Result};

/// What a prune of something that is no volume took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many objects.
    pub objects: u64,
    /// Bytes that are free now, as the engine says.
    pub bytes: u64,
}

/// What `docker system prune` removes besides containers and volumes. Can all be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// Networks that no container uses.
    Networks,
    /// Images that no container uses: those without a name, or all of them.
    Images {
        /// All of them.
        all: bool,
    },
    /// The builder's cache: what is not used, or all of it.
    BuildCache {
        /// All of it.
        all: bool,
    },
}

#[derive(Deserialize)]
struct PruneAnswer {
    #[serde(rename = "SpaceReclaimed", default)]
    bytes: u64,
    #[serde(rename = "NetworksDeleted", default)]
    networks: Option<Vec<Value>>,
    #[serde(rename = "ImagesDeleted", default)]
    images: Option<Vec<Value>>,
    #[serde(rename = "CachesDeleted", default)]
    caches: Option<Vec<Value>>,
}

impl Engine {
    /// Removes a container. `volumes`: and the volumes that its definition does not name and nobody else uses. `force`: kills it
    /// first if it runs.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`](super::EngineErrorKind::NotFound) if there is none;
    /// [`EngineErrorKind::Conflict`](super::EngineErrorKind::Conflict) if it runs.
    pub async fn remove_container(&self, id: &str, volumes: bool, force: bool) -> Result<()> {
        let path = format!("/containers/{}?v={}&force={}", encode(id), u8::from(volumes), u8::from(force));
        let call = Call { method: "DELETE", extra_time: super::STOP_ALLOWANCE, ..Call::get(&path) };
        self.call(call, &format!("remove container {id} on")).await.map(drop)
    }

    /// Removes what is left over and can be made again. `filters` are the engine's, as JSON.
    ///
    /// # Errors
    /// If the engine cannot.
    pub async fn prune(&self, what: Leftover, filters: &Value) -> Result<Pruned> {
        let mut filters = filters.clone();
        let (name, all) = match what {
            Leftover::Networks => ("networks", false),
            Leftover::Images { all } => {
                // The engine takes all of them only if it is told that they need not be dangling.
                filters["dangling"] = serde_json::json!([if all { "false" } else { "true" }]);
                ("images", false)
            }
            Leftover::BuildCache { all } => ("build", all),
        };
        let mut path = format!("/{name}/prune?filters={}", encode(&filters.to_string()));
        if all {
            path.push_str("&all=1");
        }
        let action = format!("prune the {} of", if name == "build" { "build cache" } else { name });
        let call = Call { method: "POST", extra_time: super::STOP_ALLOWANCE, ..Call::get(&path) };
        let answer: PruneAnswer = transport::decode(&self.call(call, &action).await?, &action, &self.endpoint)?;
        let count = |list: &Option<Vec<Value>>| list.as_ref().map_or(0, Vec::len) as u64;
        let objects = count(&answer.networks) + count(&answer.images) + count(&answer.caches);
        Ok(Pruned { objects, bytes: answer.bytes })
    }

    /// Makes a container from a definition, as `POST /containers/create` takes it, and returns its id.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`](super::EngineErrorKind::NotFound) if its image is not there;
    /// [`EngineErrorKind::Conflict`](super::EngineErrorKind::Conflict) if the name is taken.
    pub async fn create_container(&self, name: &str, definition: &Value) -> Result<String> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "Id")]
            id: String,
        }
        let action = format!("create container {name} on");
        let path = format!("/containers/create?name={}", encode(name));
        let call = Call { method: "POST", body: Some(definition), ..Call::get(&path) };
        let created: Created = transport::decode(&self.call(call, &action).await?, &action, &self.endpoint)?;
        Ok(created.id)
    }
}
