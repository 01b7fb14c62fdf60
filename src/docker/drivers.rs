//! What the engine knows of volume drivers, and how it is made to forget a volume.

use serde::Deserialize;

use super::model::or_default;
use super::transport::{Call, encode};
use super::{Engine, Result};

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "Plugins", default, deserialize_with = "or_default")]
    plugins: Plugins,
}

#[derive(Default, Deserialize)]
struct Plugins {
    #[serde(rename = "Volume", default, deserialize_with = "or_default")]
    volume: Vec<String>,
}

impl Engine {
    /// The volume drivers that the engine has used since it was started. It looks for others when somebody names one.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn volume_drivers(&self) -> Result<Vec<String>> {
        let info: Info = self.get("/info", "list the volume drivers of").await?;
        Ok(info.plugins.volume)
    }

    /// Removes a volume by force: the engine forgets what it knows of it even if its driver refuses, which is an error here too.
    ///
    /// # Errors
    /// [`EngineErrorKind::Conflict`](super::EngineErrorKind::Conflict) if it is in use, and then it is not forgotten;
    /// [`EngineErrorKind::Engine`](super::EngineErrorKind::Engine) if its driver refuses.
    pub async fn remove_volume_by_force(&self, name: &str) -> Result<()> {
        let path = format!("/volumes/{}?force=1", encode(name));
        let call = Call { method: "DELETE", ..Call::get(&path) };
        self.call(call, &format!("remove volume {name} on")).await.map(drop)
    }
}
