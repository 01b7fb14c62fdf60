//! A volume driver without volumes, for what is about the other half of the plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::Value;
use voltool::plugin::{Described, Volumes};

/// Has none, and makes none.
pub struct NoVolumes;

#[async_trait]
impl Volumes for NoVolumes {
    fn is_global(&self) -> bool {
        false
    }

    fn get(&self, _: &str) -> Option<Described> {
        None
    }

    fn list(&self) -> Vec<Described> {
        Vec::new()
    }

    async fn create(&self, _: &str, _: BTreeMap<String, String>) -> Result<(), String> {
        Err("none are made here".to_owned())
    }

    async fn mount(&self, _: &str, _: &str) -> Result<PathBuf, String> {
        Err("there are none".to_owned())
    }

    async fn unmount(&self, _: &str, _: &str) -> Result<(), String> {
        Err("there are none".to_owned())
    }

    async fn remove(&self, _: &str) -> Result<(), String> {
        Err("there are none".to_owned())
    }

    async fn own(&self, _: &str, _: &Value) -> Option<Result<Value, String>> {
        None
    }
}
