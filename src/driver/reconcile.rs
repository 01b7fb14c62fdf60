//! Comparing what is counted with what the engine runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Driver, Volume, lock};
use crate::docker::VolumeUser;
use crate::inventory::is_own_driver;

/// How long after a volume was made its labels are asked for. Volumes are often made together, and removed by who knows whom.
const SOON: Duration = Duration::from_secs(1);

impl Driver {
    /// Compares all volumes with the engine, and learns the labels that it knows. An engine that does not answer changes nothing.
    pub async fn reconcile(&self) {
        let Ok(users) = self.outside().users(None).await else { return };
        let running = running(&users);
        for volume in self.all() {
            let now: &[String] = running.get(volume.name.as_str()).map_or(&[], Vec::as_slice);
            if lock(&volume.mounts).reconcile(now, self.shared.settings.quiet) {
                self.rest(&volume);
            }
        }
        if let Ok(labels) = self.outside().labels().await {
            self.learn(labels);
        }
    }

    /// As [`Driver::reconcile`], for one volume.
    pub(super) async fn compare_with_engine(&self, volume: &Arc<Volume>) {
        if let Ok(users) = self.outside().users(Some(&volume.name)).await {
            let running = running(&users);
            let now: &[String] = running.get(volume.name.as_str()).map_or(&[], Vec::as_slice);
            lock(&volume.mounts).reconcile(now, self.shared.settings.quiet);
        }
    }

    /// Asks the engine for labels in a moment: it has them once it was told that the volume is made.
    pub(super) fn learn_soon(&self) {
        if self.shared.learning.swap(true, Ordering::SeqCst) {
            return;
        }
        let driver = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            // From here on, what is made asks again.
            driver.shared.learning.store(false, Ordering::SeqCst);
            if let Ok(labels) = driver.outside().labels().await {
                driver.learn(labels);
            }
        });
    }

    /// Keeps labels, for the day on which the engine has forgotten them. Those of a volume that it does not know stay as they are.
    fn learn(&self, labels: BTreeMap<String, BTreeMap<String, String>>) {
        for (name, labels) in labels {
            let Some(volume) = self.volume(&name) else { continue };
            // A volume that was forgotten and found again has none: those that are known are better.
            if labels.is_empty() || lock(&volume.file).labels == labels {
                continue;
            }
            if let Err(e) = volume.change(|file| file.labels = labels) {
                self.outside().log(&format!("volume {name}: {e}"));
            }
        }
    }
}

/// The running containers on each volume of this driver, by their ids.
fn running(users: &[VolumeUser]) -> BTreeMap<&str, Vec<String>> {
    let mut running: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for user in users.iter().filter(|user| user.running) {
        // Engines have forgotten whose volume it is when they had to start without this driver.
        let own = user.volumes.iter().filter(|(_, driver)| driver.is_empty() || is_own_driver(driver));
        for (name, _) in own {
            running.entry(name).or_default().push(user.id.clone());
        }
    }
    running
}
