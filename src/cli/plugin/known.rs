//! What an engine knows of the driver's volumes, compared with what the driver knows.
//!
//! An engine asks the driver which volumes there are, so that it lists one that it has forgotten all the same: without labels, options
//! and references. That is what is left after a `docker volume rm -f` that the driver refused, which is what `docker compose down -v` does, and
//! after an engine was started while the driver was away. Whoever then makes a volume of that name without naming the driver gets a
//! `local` one, and the engine lists only that.

use std::collections::BTreeMap;

use serde::Serialize;

use super::daemon::KeptVolume;
use crate::docker::Volume;
use crate::inventory::is_own_driver;

/// What an engine knows of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "engine", content = "driver")]
pub enum Known {
    /// Everything.
    Known,
    /// No labels or options, and the driver has some; or nothing at all.
    Forgotten,
    /// A volume of another driver has its name.
    Shadowed(String),
}

/// What the engine, which lists `listed`, knows of a volume.
pub fn known(volume: &KeptVolume, listed: &[Volume]) -> Known {
    let same_name: Vec<&Volume> = listed.iter().filter(|other| other.name == volume.name).collect();
    if let Some(other) = same_name.iter().find(|other| !is_own_driver(&other.driver)) {
        return Known::Shadowed(other.driver.clone());
    }
    let lost = |had: &BTreeMap<String, String>, has: &BTreeMap<String, String>| !had.is_empty() && has.is_empty();
    match same_name.first() {
        Some(found) if !lost(&volume.labels, &found.labels) && !lost(&volume.options, &found.options) => Known::Known,
        _ => Known::Forgotten,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(labels: serde_json::Value) -> KeptVolume {
        let volume = json!({
            "name": "db", "options": {}, "labels": labels, "created": "2026-01-01T00:00:00Z", "folder": "/v/db", "status": {},
        });
        serde_json::from_value(volume).expect("a volume")
    }

    fn listed(driver: &str, labels: serde_json::Value) -> Volume {
        serde_json::from_value(json!({ "Name": "db", "Driver": driver, "Labels": labels })).expect("a volume")
    }

    #[test]
    fn what_the_engine_lists_tells_what_it_knows() {
        let (with, without) = (kept(json!({ "a": "b" })), kept(json!({})));
        let nothing = json!(null);
        assert_eq!(known(&with, &[listed("voltool", json!({ "a": "b" }))]), Known::Known);
        assert_eq!(known(&with, &[listed("voltool", nothing.clone())]), Known::Forgotten);
        assert_eq!(known(&without, &[listed("voltool:latest", nothing.clone())]), Known::Known);
        assert_eq!(known(&without, &[]), Known::Forgotten);
        assert_eq!(known(&without, &[listed("local", nothing)]), Known::Shadowed("local".to_owned()));
    }
}
