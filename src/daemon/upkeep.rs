//! What the volume driver does in the background.

use std::future::Future;
use std::time::Duration;

use crate::driver::Driver;

/// How often uses are compared with the engine.
const RECONCILE: Duration = Duration::from_secs(30);
/// How often it is asked whether volumes have to be looked at, and the trash is emptied of what has been kept long enough.
const LOOK: Duration = Duration::from_secs(60);

/// How often a host that holds leases shows that it is alive.
const BEAT: Duration = Duration::from_secs(15);

/// Keeps the driver's knowledge up to date until `stop` is ready.
pub async fn run(driver: &Driver, stop: impl Future<Output = ()>) {
    let reconcile = async {
        loop {
            driver.reconcile().await;
            tokio::time::sleep(RECONCILE).await;
        }
    };
    let resume = async {
        driver.resume().await;
        std::future::pending::<()>().await;
    };
    let look = async {
        loop {
            let trash = driver.clone();
            // It says itself what went wrong.
            let _ = tokio::task::spawn_blocking(move || trash.empty_trash()).await;
            driver.find_facts().await;
            tokio::time::sleep(LOOK).await;
        }
    };
    let show_life = async {
        loop {
            driver.beat().await;
            tokio::time::sleep(BEAT).await;
        }
    };
    let leases = async {
        loop {
            tokio::time::sleep(LOOK).await;
            driver.check_leases().await;
        }
    };
    tokio::select! {
        () = show_life => {}
        () = leases => {}
        () = stop => {}
        () = reconcile => {}
        () = look => {}
        () = resume => {}
    }
}
