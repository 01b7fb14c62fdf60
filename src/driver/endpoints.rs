//! The driver as the plugin's endpoints see it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Driver, Volume, lock};
use crate::plugin::{Described, Volumes};

#[async_trait]
impl Volumes for Driver {
    fn is_global(&self) -> bool {
        self.shared.settings.shared_as.is_some()
    }

    fn get(&self, name: &str) -> Option<Described> {
        self.volume(name).map(|volume| Described { status: self.status(&volume), ..self.described(&volume) })
    }

    fn list(&self) -> Vec<Described> {
        self.all().iter().map(|volume| self.described(volume)).collect()
    }

    async fn create(&self, name: &str, options: BTreeMap<String, String>) -> Result<(), String> {
        Driver::create(self, name, options).await.map(drop)
    }

    async fn mount(&self, name: &str, id: &str) -> Result<PathBuf, String> {
        Driver::mount(self, name, id).await
    }

    async fn unmount(&self, name: &str, id: &str) -> Result<(), String> {
        Driver::unmount(self, name, id).await
    }

    async fn remove(&self, name: &str) -> Result<(), String> {
        Driver::remove(self, name).await
    }

    async fn own(&self, question: &str, body: &Value) -> Option<Result<Value, String>> {
        let name = body["Name"].as_str().unwrap_or_default();
        Some(match question {
            "List" => Ok(self.inspect()),
            "BringBack" => self.bring_back(name).await.map(|volume| json!({ "Name": volume.name })),
            "BeginEmpty" => self.begin_empty(name).await.map(|()| Value::Null),
            "TakeOver" => self.take_over(name).await.map(|from| json!({ "From": from })),
            "Detach" => self.detach(name).map(|()| Value::Null),
            "Attach" => self.attach(name).await.map(|()| Value::Null),
            "Hold" => self.hold(name, true).map(|()| Value::Null),
            "Release" => self.hold(name, false).map(|()| Value::Null),
            _ => return None,
        })
    }
}

impl Driver {
    fn described(&self, volume: &Volume) -> Described {
        Described {
            name: volume.name.clone(),
            mountpoint: self.mountpoint(volume),
            created: volume.created,
            status: serde_json::Map::new(),
        }
    }

    /// All volumes with what voltool's own commands need of them.
    fn inspect(&self) -> Value {
        let volumes: Vec<Value> = self
            .all()
            .iter()
            .map(|volume| {
                let (options, labels, detached) = {
                    let file = lock(&volume.file);
                    (file.options.clone(), file.labels.clone(), file.detached)
                };
                json!({
                    "name": volume.name, "options": options, "labels": labels, "created": volume.created,
                    "folder": volume.folder, "detached": detached, "status": self.status(volume),
                })
            })
            .collect();
        json!({ "volumes": volumes, "trash": self.discarded() })
    }
}
