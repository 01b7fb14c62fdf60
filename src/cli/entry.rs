//! From arguments to an exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use super::context::{self, ConfigUse, Context, Environment};
use super::error::{self, CliError, Kind, StdoutClosed};
use super::interrupt::{self, Interrupt};
use super::ui::{Manner, Ui};
use super::{Cli, Outcome, Verb};

/// Runs the command line `args` (with the program's name first) and returns how the process should end.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    // The hook has already said what there is to say, and a panic of our own thread must not become Rust's exit code 101.
    let code = catch_unwind(AssertUnwindSafe(|| parse_and_run(args))).unwrap_or(Kind::Failed.code());
    ExitCode::from(code)
}

fn parse_and_run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help that nobody reads (`voltool --help | head`) is not an error.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(Kind::Usage.code());
        }
    };
    let ui = Ui::new(Manner::detect(cli.global.quiet, cli.global.verbose, cli.global.no_progress));
    // A tar that ends early is damaged: for `export`, a reader that went away is a failure like any other.
    let closing_is_fine = !matches!(cli.verb, Verb::Export(_));
    match run(cli, &ui) {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Incomplete) => 3,
        Err(e) if closing_is_fine && e.downcast_ref::<StdoutClosed>().is_some() => 0,
        Err(e) => {
            ui.error(&error::render(&e));
            error::judge(&e).kind.code()
        }
    }
}

fn run(cli: Cli, ui: &Ui) -> anyhow::Result<Outcome> {
    // These need neither settings nor an engine, and must work where the configuration is broken.
    match &cli.verb {
        Verb::Completions(args) => return super::completions::run(ui, args),
        Verb::Man(args) => return super::man::run(ui, args),
        Verb::MarkdownHelp => return super::markdown::run(ui),
        _ => {}
    }
    let env = Environment::of_process();
    let config_use = if matches!(cli.verb, Verb::Init(_)) { ConfigUse::MayCreate } else { ConfigUse::MustExist };
    let settings = context::resolve(&cli.global, &env, config_use)?;
    let context = Context { settings, ui: ui.clone(), interrupt: Interrupt::default(), env };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("cannot start: {e}")))?;
    let result = runtime.block_on(interrupt::run(dispatch(&context, cli.verb), &context.interrupt, ui));
    // Not waited for: after a signal, threads may still be at work, and everything they do may be cut off at any time.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &Context, verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Init(args) => super::init::run(context, args).await,
        Verb::Ls(args) => super::ls::run(context, args).await,
        Verb::Backup(args) => super::backup::run(context, args).await,
        Verb::Snapshots(args) => super::snapshots::run(context, args).await,
        Verb::Restore(args) => super::restore::run(context, args).await,
        Verb::Export(args) => super::export::run(context, args).await,
        Verb::Completions(args) => super::completions::run(&context.ui, &args),
        Verb::Man(args) => super::man::run(&context.ui, &args),
        Verb::MarkdownHelp => super::markdown::run(&context.ui),
    }
}

/// A panic is a bug of voltool's: said in one line, as every failure is, and with what helps to mend it.
fn report_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let what = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
    let text = format!(
        "voltool: internal error: {}{place}\nhint: this is a bug in voltool {}: please report it with this line; what was committed \
         before is not affected\n",
        error::escape_controls(&what),
        env!("CARGO_PKG_VERSION"),
    );
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        let _ = writeln!(err, "{}", std::backtrace::Backtrace::force_capture());
    }
}
