//! How long-running work tells of its progress without knowing who listens.

/// Listens to a backup, a restore or a verification. All methods may be called from many threads at once.
///
/// Every method has an empty default, so that `()` is the listener that ignores everything.
pub trait Monitor: Send + Sync {
    /// The amount of work became known, or better known: bytes and files in all.
    fn total(&self, _bytes: u64, _files: u64) {}

    /// So much more has been done.
    fn advance(&self, _bytes: u64, _files: u64) {}

    /// Something went wrong with one object, and the work goes on: counted, shown, and in the exit code.
    fn problem(&self, _object: &str, _reason: &str) {}
}

impl Monitor for () {}
