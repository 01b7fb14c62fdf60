//! Progress of one volume: a bar on a terminal; elsewhere one line when it begins and one when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::{Tone, Ui, format};
use crate::repo::Monitor;

/// So many problems of one volume are printed; the rest is counted. All of them are in the snapshot's record.
const PRINTED_PROBLEMS: u64 = 20;

/// Work on one volume, as a person sees it. Clones are the same task.
///
/// A task that is dropped without [`Task::done`] or [`Task::failed`] takes its bar with it and says nothing: the error that ended
/// it does.
#[derive(Debug, Clone)]
pub struct Task {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ui: Ui,
    done: &'static str,
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    total_files: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    problems: AtomicU64,
}

impl Task {
    pub(super) fn new(ui: Ui, doing: &'static str, done: &'static str, name: &str) -> Self {
        let counters = Arc::new(Counters::default());
        let bar = ui.manner.bars.then(|| {
            let bar = ui.bars.add(ProgressBar::no_length());
            bar.set_style(style(&counters, false));
            bar.set_prefix(super::escape_controls(name));
            // Also moves while nothing happens, so that a person sees that voltool is alive.
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            ui.note(&format!("{doing} {name}"));
        }
        Task { shared: Arc::new(Shared { ui, done, name: name.to_owned(), started: Instant::now(), bar, counters }) }
    }

    /// It is done: says what came of it, e.g. "1.2 GiB in 3,402 files, 12 MiB new", and how long it took.
    pub fn done(&self, summary: &str) {
        let Shared { ui, done, name, started, .. } = &*self.shared;
        self.clear();
        let took = format::duration(started.elapsed());
        ui.note(&format!("{done} {name}: {summary}, in {took}"));
    }

    /// It failed, and the command goes on with other volumes. Also told with `--quiet`.
    pub fn failed(&self, reason: &str) {
        self.clear();
        let Shared { ui, name, .. } = &*self.shared;
        let name = ui.paint_err(Tone::Bad, &super::escape_controls(name));
        ui.to_stderr(&format!("voltool: {name}: {}\n", super::escape_controls(reason)));
    }

    /// How many problems there were.
    pub fn problems(&self) -> u64 {
        self.shared.counters.problems.load(Relaxed)
    }

    /// How many bytes and files have been done.
    pub fn advanced(&self) -> (u64, u64) {
        let counters = &self.shared.counters;
        (counters.bytes.load(Relaxed), counters.files.load(Relaxed))
    }

    fn clear(&self) {
        let problems = self.problems();
        if problems > PRINTED_PROBLEMS {
            let more = format::counted(problems - PRINTED_PROBLEMS, "more problem");
            self.shared.ui.warn(&format!("{}: {more}", self.shared.name));
        }
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Monitor for Task {
    fn total(&self, bytes: u64, files: u64) {
        let Shared { bar, counters, .. } = &*self.shared;
        counters.total_files.store(files, Relaxed);
        if let Some(bar) = bar {
            if bar.length().is_none() {
                bar.set_style(style(counters, true));
            }
            bar.set_length(bytes);
        }
    }

    fn advance(&self, bytes: u64, files: u64) {
        let Shared { bar, counters, .. } = &*self.shared;
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.files.fetch_add(files, Relaxed);
        if let Some(bar) = bar {
            bar.inc(bytes);
        }
    }

    fn problem(&self, object: &str, reason: &str) {
        let Shared { ui, name, counters, .. } = &*self.shared;
        if counters.problems.fetch_add(1, Relaxed) < PRINTED_PROBLEMS {
            ui.warn(&format!("{name}: {object}: {reason}"));
        }
    }
}

/// How a bar looks, before and after it is known how much there is to do.
fn style(counters: &Arc<Counters>, total_known: bool) -> ProgressStyle {
    let template = if total_known {
        "{prefix:24!} {bar:20} {percent:>3}% {bytes} of {total_bytes}, {files}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{prefix:24!} {spinner} {bytes}, {files}, {binary_bytes_per_sec}"
    };
    let counters = Arc::clone(counters);
    let files = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let (done, total) = (counters.files.load(Relaxed), counters.total_files.load(Relaxed));
        // The bar has nowhere to report an error to, and a string takes everything.
        let _ = if total > 0 {
            write!(out, "{} of {}", format::count(done), format::counted(total, "file"))
        } else {
            write!(out, "{}", format::counted(done, "file"))
        };
    };
    // The templates are constants, and a test reads both.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─").with_key("files", files)
}

#[cfg(test)]
mod tests {
    use super::super::Manner;
    use super::*;

    fn quiet() -> Ui {
        let manner =
            Manner { quiet: true, verbose: 0, bars: false, out_tty: false, out_colour: false, err_colour: false };
        Ui::new(manner)
    }

    #[test]
    fn counts_what_it_is_told() {
        let task = quiet().task("backing up", "backed up", "db");
        let monitor: &dyn Monitor = &task;
        monitor.total(100, 3);
        monitor.advance(40, 1);
        monitor.advance(60, 2);
        for i in 0..3 {
            task.clone().problem(&format!("f{i}"), "vanished");
        }
        assert_eq!((task.advanced(), task.problems()), ((100, 3), 3));
        task.done("100 B");
    }

    #[test]
    fn the_templates_are_valid() {
        for known in [false, true] {
            let bar = ProgressBar::with_draw_target(Some(10), indicatif::ProgressDrawTarget::hidden());
            let counters = Arc::new(Counters::default());
            bar.set_style(style(&counters, known));
            bar.inc(5);
        }
        for template in ["{prefix:24!} {bar:20} {percent:>3}%", "{binary_bytes_per_sec}, {eta} left"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
