//! SIGINT and SIGTERM.
//!
//! Every operation may be killed at any time, so an interrupted command is simply dropped where it stands, unless it has
//! something to put back in order (containers that it stopped): then it calls [`Interrupt::finish_yourself`] and watches
//! [`Interrupt::requested`]. A second signal ends it all the same. While another program runs on its behalf
//! ([`Interrupt::leave_to_another`]), signals are that program's.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::error::{CliError, Kind};
use super::ui::Ui;

/// How a command learns that it should stop, and what a person is told then. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Interrupt {
    stop: watch::Sender<bool>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    kept: String,
    finishes_itself: bool,
    left_to_another: bool,
}

impl Default for Interrupt {
    fn default() -> Self {
        Interrupt { stop: watch::Sender::new(false), state: Arc::default() }
    }
}

impl Interrupt {
    /// Says what is kept if the command is interrupted from here on: "what was uploaded is kept, and …".
    pub fn keeps(&self, what: impl Into<String>) {
        self.state().kept = what.into();
    }

    /// From here on (or, with `false`, no longer) the command ends by itself soon after [`Interrupt::requested`], because it has
    /// something to put in order.
    pub fn finish_yourself(&self, yes: bool) {
        self.state().finishes_itself = yes;
    }

    /// From here on the command hands signals on to a program that runs on its behalf, and ends when that does.
    pub fn leave_to_another(&self) {
        self.state().left_to_another = true;
    }

    /// Returns whether a signal came.
    pub fn is_requested(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits for a signal.
    pub async fn requested(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> CliError {
        let kept = self.state().kept.clone();
        let message = if kept.is_empty() { "interrupted".to_owned() } else { format!("interrupted: {kept}") };
        CliError::new(Kind::Interrupted, message)
    }
}

/// The two signals that ask a command to stop. SIGHUP is not among them: whoever uses `nohup` has it ignored, and listening
/// would undo that.
struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Signals { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// Runs a command until it ends or a signal ends it.
pub(super) async fn run<T>(
    command: impl Future<Output = anyhow::Result<T>>,
    interrupt: &Interrupt,
    ui: &Ui,
) -> anyhow::Result<T> {
    let mut signals = Signals::listen().map_err(|e| CliError::failed(format!("cannot listen for signals: {e}")))?;
    let mut command = std::pin::pin!(command);
    loop {
        tokio::select! {
            result = &mut command => return result,
            () = signals.next() => {}
        }
        if !interrupt.state().left_to_another {
            break;
        }
    }
    let _ = interrupt.stop.send_replace(true);
    if interrupt.state().finishes_itself {
        ui.note("interrupted: putting things in order; once more to stop at once");
        tokio::select! {
            // It may have been done before it noticed: then it was not interrupted.
            result = &mut command => match result {
                Ok(done) => return Ok(done),
                Err(e) if super::error::judge(&e).kind == Kind::Interrupted => return Err(e),
                // It could not put everything in order: that is worth more than that it was interrupted.
                Err(e) => return Err(e.context(interrupt.error())),
            },
            () = signals.next() => {}
        }
    }
    Err(interrupt.error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_seen_by_clones_and_latecomers() {
        let interrupt = Interrupt::default();
        let clone = interrupt.clone();
        assert!(!clone.is_requested());
        interrupt.stop.send_replace(true);
        clone.requested().await;
        assert!(clone.is_requested());
    }

    #[test]
    fn the_error_says_what_is_kept() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.error().message, "interrupted");
        interrupt.keeps("the old content is as it was");
        let e = interrupt.error();
        assert_eq!((e.message.as_str(), e.kind.code()), ("interrupted: the old content is as it was", 130));
    }

    fn ui() -> Ui {
        let manner = crate::cli::ui::Manner {
            quiet: true,
            verbose: 0,
            bars: false,
            out_tty: false,
            out_colour: false,
            err_colour: false,
        };
        Ui::new(manner)
    }

    /// Sends this process a signal that `run` listens to by now.
    fn send(signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::getpid(), signal).expect("sent");
    }

    #[tokio::test]
    async fn a_signal_ends_a_command_where_it_stands() {
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
            let interrupt = Interrupt::default();
            let command = async {
                interrupt.keeps("what was uploaded is kept");
                send(signal);
                std::future::pending::<anyhow::Result<()>>().await
            };
            let e = run(command, &interrupt, &ui()).await.expect_err("interrupted");
            assert_eq!(e.to_string(), "interrupted: what was uploaded is kept");
        }
    }

    #[tokio::test]
    async fn a_command_that_has_to_tidy_up_is_waited_for() {
        let interrupt = Interrupt::default();
        let tidied = std::sync::atomic::AtomicBool::new(false);
        let command = async {
            interrupt.finish_yourself(true);
            send(rustix::process::Signal::TERM);
            interrupt.requested().await;
            tidied.store(true, std::sync::atomic::Ordering::Relaxed);
            Err::<(), _>(anyhow::anyhow!("stopped half-way"))
        };
        let e = run(command, &interrupt, &ui()).await.expect_err("interrupted");
        assert_eq!(crate::cli::error::judge(&e).kind, Kind::Interrupted);
        assert!(tidied.into_inner());
    }
}
