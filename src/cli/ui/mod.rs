//! What a person sees: the only place that prints. Data goes to standard output, messages to standard error.

pub mod format;
pub mod json;
pub mod progress;
pub mod table;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use super::error::{CliError, StdoutClosed, escape_controls};
pub use progress::Task;
pub use table::{Cell, Column, Table, Tone};

/// How much is said, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// `--quiet`: nothing but errors, and data.
    pub quiet: bool,
    /// How often `--verbose` was given.
    pub verbose: u8,
    /// Whether progress bars may be drawn.
    pub bars: bool,
    /// Whether standard output is a terminal.
    pub out_tty: bool,
    /// Whether standard output takes colours.
    pub out_colour: bool,
    /// Whether standard error takes colours.
    pub err_colour: bool,
}

impl Manner {
    /// Finds out what the streams are, and what `NO_COLOR` and `TERM` say.
    pub fn detect(quiet: bool, verbose: u8, no_progress: bool) -> Self {
        let (out_tty, err_tty) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        let colour = set("NO_COLOR").is_none() && !dumb;
        Manner {
            quiet,
            verbose,
            bars: err_tty && !dumb && !quiet && !no_progress,
            out_tty,
            out_colour: out_tty && colour,
            err_colour: err_tty && colour,
        }
    }
}

/// Prints. Clones print to the same place, without lines of one getting into bars of another.
#[derive(Debug, Clone)]
pub struct Ui {
    manner: Manner,
    bars: MultiProgress,
}

impl Ui {
    /// Makes what prints in that manner.
    pub fn new(manner: Manner) -> Self {
        let target = if manner.bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Ui { manner, bars: MultiProgress::with_draw_target(target) }
    }

    /// In which manner this prints.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// Prints text to standard output, as it is. A line feed is added if there is none at its end.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        self.to_stdout(|out| {
            out.write_all(text.as_bytes())?;
            if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") }
        })
    }

    /// Prints a table to standard output.
    pub fn table(&self, table: &Table) -> anyhow::Result<()> {
        self.print(&table.render(self.manner.out_tty, self.manner.out_colour))
    }

    /// Prints a table to standard error, where it belongs to a message.
    pub fn table_beside(&self, table: &Table) {
        self.to_stderr(&table.render(self.manner.err_colour, self.manner.err_colour));
    }

    /// Prints a JSON document to standard output.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> anyhow::Result<()> {
        self.to_stdout(|out| json::write(out, value))
    }

    /// Standard output for bulk data: without the buffer that looks for line feeds.
    pub fn bulk_output(&self) -> anyhow::Result<File> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        Ok(File::from(stdout.map_err(|e| stdout_error(&e))?))
    }

    /// Whether standard output is a terminal, where bulk data must not go.
    pub fn stdout_is_terminal(&self) -> bool {
        self.manner.out_tty
    }

    /// Tells a person something on standard error. Nothing with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.manner.quiet {
            self.to_stderr(&format!("{}\n", escape_controls(text)));
        }
    }

    /// Tells a person something on standard error that is only of interest with `--verbose`.
    pub fn detail(&self, text: &str) {
        if self.manner.verbose > 0 {
            self.note(text);
        }
    }

    /// Warns on standard error. Also with `--quiet`: a warning is about something that is wrong.
    pub fn warn(&self, text: &str) {
        let word = self.paint_err(Tone::Warn, "warning");
        self.to_stderr(&format!("voltool: {word}: {}\n", escape_controls(text)));
    }

    /// Prints an error as [`super::error::render`] wrote it.
    pub(super) fn error(&self, rendered: &str) {
        self.to_stderr(rendered);
    }

    /// Shows that work on something begins: a bar on a terminal, else a line, with `--quiet` nothing. `doing` and `done` are the
    /// words for it: "backing up" and "backed up".
    pub fn task(&self, doing: &'static str, done: &'static str, name: &str) -> Task {
        Task::new(self.clone(), doing, done, name)
    }

    /// Gives text on standard error a colour, if it takes any.
    pub fn paint_err(&self, tone: Tone, text: &str) -> String {
        if self.manner.err_colour { tone.paint(text) } else { text.to_owned() }
    }

    /// Gives text on standard output a colour, if it takes any.
    pub fn paint_out(&self, tone: Tone, text: &str) -> String {
        if self.manner.out_colour { tone.paint(text) } else { text.to_owned() }
    }

    fn to_stdout(&self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> anyhow::Result<()> {
        self.bars
            .suspend(|| {
                let mut out = io::BufWriter::new(io::stdout().lock());
                write(&mut out).and_then(|()| out.flush())
            })
            .map_err(|e| stdout_error(&e))
    }

    fn to_stderr(&self, text: &str) {
        // If standard error is gone too, there is nobody left to tell; the exit code still says it.
        self.bars.suspend(|| {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }
}

/// The error for a failed write to standard output; a verb that writes to [`Ui::bulk_output`] uses it as well.
pub fn stdout_error(e: &io::Error) -> anyhow::Error {
    if e.kind() == io::ErrorKind::BrokenPipe {
        return StdoutClosed.into();
    }
    CliError::failed(format!("cannot write to standard output: {e}")).into()
}
