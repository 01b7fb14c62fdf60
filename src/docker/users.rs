//! Who mounts which volume, in one short question.
//!
//! It is the only question that a volume plugin may put while the engine waits for its answer: inspecting a container, or listing
//! volumes, blocks until the plugin has answered.

use serde::Deserialize;

use super::model::or_default;
use super::transport::encode;
use super::{Engine, Result};

/// A container, as far as its volumes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUser {
    /// The full id.
    pub id: String,
    /// The name, without the slash.
    pub name: String,
    /// Whether it has processes: it runs, is frozen, or is being started again.
    pub running: bool,
    /// The volumes that it mounts or will mount: name and driver.
    pub volumes: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default, deserialize_with = "or_default")]
    names: Vec<String>,
    #[serde(rename = "State", default, deserialize_with = "or_default")]
    state: String,
    #[serde(rename = "Mounts", default, deserialize_with = "or_default")]
    mounts: Vec<ListedMount>,
}

#[derive(Deserialize)]
struct ListedMount {
    #[serde(rename = "Type", default, deserialize_with = "or_default")]
    kind: String,
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    name: String,
    #[serde(rename = "Driver", default, deserialize_with = "or_default")]
    driver: String,
}

impl Engine {
    /// Lists the containers that have a volume in their definition, running or not: of that name, or any.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn volume_users(&self, volume: Option<&str>) -> Result<Vec<VolumeUser>> {
        let mut path = "/containers/json?all=1".to_owned();
        if let Some(volume) = volume {
            let filters = serde_json::json!({ "volume": [volume] }).to_string();
            path.push_str(&format!("&filters={}", encode(&filters)));
        }
        let listed: Vec<Listed> = self.get(&path, "list the containers of").await?;
        let users = listed.into_iter().map(|listed| VolumeUser {
            name: listed.names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
            running: matches!(listed.state.as_str(), "running" | "paused" | "restarting"),
            volumes: listed.mounts.into_iter().filter(|m| m.kind == "volume").map(|m| (m.name, m.driver)).collect(),
            id: listed.id,
        });
        // The filter takes parts of names, and paths, for names too.
        let has = |user: &VolumeUser| volume.is_none_or(|name| user.volumes.iter().any(|(other, _)| other == name));
        Ok(users.filter(|user| !user.volumes.is_empty()).filter(has).collect())
    }
}
