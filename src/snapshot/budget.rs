//! Memory: one budget of bytes for all that is read and not yet stored.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Bytes that may be in memory at once, shared by every backup of a run.
#[derive(Debug)]
pub struct ByteBudget {
    free: Mutex<u64>,
    returned: Condvar,
    total: u64,
}

/// Some bytes of a budget; they go back when this is dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl ByteBudget {
    /// Makes a budget of that many bytes.
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(ByteBudget { free: Mutex::new(total), returned: Condvar::new(), total })
    }

    /// Waits until `bytes` are free and takes them. More than the whole budget is taken as the whole budget, so that one large
    /// chunk never waits for ever.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Reserved {
        let bytes = bytes.min(self.total);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Reserved { budget: self.clone(), bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.returned.notify_all();
    }
}
