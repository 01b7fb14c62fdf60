//! A value that another thread will provide.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A value to come. `None` once it is certain that it will not come.
#[derive(Debug)]
pub struct Later<T> {
    value: Mutex<State<T>>,
    ready: Condvar,
}

#[derive(Debug)]
enum State<T> {
    Waiting,
    There(T),
    Never,
}

/// The duty to provide a [`Later`]. Dropping it without having provided anything says that nothing will come, so that nobody waits for
/// a thread that gave up.
#[derive(Debug)]
pub struct Promise<T>(Arc<Later<T>>);

impl<T> Later<T> {
    /// Makes a value to come, and the promise to provide it.
    pub fn new() -> (Promise<T>, Arc<Later<T>>) {
        let later = Arc::new(Later { value: Mutex::new(State::Waiting), ready: Condvar::new() });
        (Promise(later.clone()), later)
    }

    fn settle(&self, state: State<T>) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*value, State::Waiting) {
            *value = state;
            self.ready.notify_all();
        }
    }

    /// Waits, and looks at the value where it is.
    pub fn wait_with<R>(&self, look: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *value {
                State::There(there) => return Some(look(there)),
                State::Never => return None,
                State::Waiting => value = self.ready.wait(value).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl<T: Clone> Later<T> {
    /// Waits for the value.
    pub fn wait(&self) -> Option<T> {
        self.wait_with(|value| value.clone())
    }
}

impl<T> Promise<T> {
    /// Provides the value.
    pub fn keep(self, value: T) {
        self.0.settle(State::There(value));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.settle(State::Never);
    }
}
