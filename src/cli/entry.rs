//! From arguments to an exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use super::context::{self, ConfigUse, Context, Environment, Settings};
use super::error::{self, CliError, Kind, StdoutClosed};
use super::interrupt::{self, Interrupt};
use super::ui::{Manner, Ui};
use super::{Cli, Outcome, Verb, secret};
use crate::store::StoreUrl;

/// Runs the command line `args` (with the program's name first) and returns how the process should end.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    ExitCode::from(guarded(|| parse_and_run(args)))
}

/// The hook has already said what there is to say of a panic; here it must not become Rust's exit code 101.
fn guarded(work: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Kind::Failed.code())
}

fn parse_and_run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = super::docker::called_as_docker(&args).map_or_else(|| Cli::try_parse_from(args), Ok);
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Help that nobody reads (`voltool --help | head`) is not an error.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(Kind::Usage.code());
        }
    };
    let ui = Ui::new(Manner::detect(cli.global.quiet, cli.global.verbose + cli.verbose_too, cli.global.no_progress));
    // A tar that ends early is damaged: for `export`, a reader that went away is a failure like any other.
    let may_close = !matches!(cli.verb, Verb::Export(_));
    let (code, message) = ending(run(cli, &ui), may_close);
    ui.error(&message);
    code
}

/// The exit code, and what is said on standard error.
fn ending(result: anyhow::Result<Outcome>, stdout_may_close: bool) -> (u8, String) {
    match result {
        Ok(Outcome::Done) => (0, String::new()),
        Ok(Outcome::Incomplete) => (3, String::new()),
        Ok(Outcome::Refused) => (Kind::Refused.code(), String::new()),
        Ok(Outcome::Exited(code)) => (code, String::new()),
        Err(e) if stdout_may_close && e.downcast_ref::<StdoutClosed>().is_some() => (0, String::new()),
        Err(e) => (error::judge(&e).kind.code(), error::render(&e)),
    }
}

fn run(mut cli: Cli, ui: &Ui) -> anyhow::Result<Outcome> {
    // Most docker commands end here: this process becomes the real one.
    if let Verb::Docker(args) = cli.verb {
        cli.verb = Verb::Docker(super::docker::hand_over(ui, args, &cli.global)?);
    }
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
    secret::check_given_once(&settings, &env)?;
    describe(&settings, ui);
    let context = Context { settings, ui: ui.clone(), interrupt: Interrupt::default(), env };

    super::open::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("cannot start: {e}")))?;
    let result = runtime.block_on(interrupt::run(dispatch(&context, cli.verb), &context.interrupt, ui));
    // Not waited for: after a signal, threads may still be at work, and everything they do may be cut off at any time.
    runtime.shutdown_background();
    result
}

/// With `--verbose`: what the settings came to. None of them is a secret.
fn describe(settings: &Settings, ui: &Ui) {
    let file = settings.config_file.as_ref().map_or("none".to_owned(), |file| file.display().to_string());
    ui.detail(&format!("configuration: {file}"));
    // Parsed, because a URL that is not valid may hold a password.
    let repo = settings.repo.as_deref().map(|repo| StoreUrl::parse(repo).map(|url| url.to_string()));
    ui.detail(&format!(
        "repository: {}",
        repo.unwrap_or_else(|| Ok("none".to_owned())).unwrap_or_else(|e| e.to_string())
    ));
    ui.detail(&format!("identity file: {}", settings.identity.path.display()));
    ui.detail(&format!("state: {}", settings.state_dir.display()));
    ui.detail(&format!("cache: {}", settings.cache_dir.display()));
    ui.detail(&format!("memory: {}", super::ui::format::size(settings.memory)));
}

async fn dispatch(context: &Context, verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Init(args) => super::init::run(context, args).await,
        Verb::Ls(args) => super::ls::run(context, args).await,
        Verb::Backup(args) => super::backup::run(context, args).await,
        Verb::Snapshots(args) => super::snapshots::run(context, args).await,
        Verb::Restore(args) => super::restore::run(context, args).await,
        Verb::Export(args) => super::export::run(context, args).await,
        Verb::Rm(args) => super::rm::run(context, args).await,
        Verb::Volume(args) => super::volume::run(context, args).await,
        Verb::System(args) => super::system::run(context, args).await,
        Verb::Apply(args) => super::apply::run(context, args).await,
        Verb::Undo(args) => super::undo::run(context, args).await,
        Verb::Docker(args) => super::docker::run(context, &args).await,
        Verb::Guard(args) => super::guard::run(context, args).await,
        Verb::Plugin(args) => super::plugin::run(context, args).await,
        Verb::Daemon(args) => super::daemon::run(context, args).await,
        Verb::History(args) => super::history::run(context, args).await,
        Verb::Audit(args) => super::audit::run(context, args).await,
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
    let mut err = std::io::stderr().lock();
    // If standard error is gone too, there is nobody left to tell.
    let _ = err.write_all(panic_text(&what, &place).as_bytes());
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        let _ = writeln!(err, "{}", std::backtrace::Backtrace::force_capture());
    }
}

fn panic_text(what: &str, place: &str) -> String {
    format!(
        "voltool: internal error: {}{place}\nhint: this is a bug in voltool {}: please report it with this line; what was committed \
         before is not affected\n",
        error::escape_controls(what),
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_exit_code() {
        let closed = || Err(anyhow::Error::from(StdoutClosed).context("cannot print"));
        assert_eq!(ending(Ok(Outcome::Done), true).0, 0);
        assert_eq!(ending(Ok(Outcome::Incomplete), true).0, 3);
        assert_eq!(ending(closed(), true), (0, String::new()));
        assert_eq!(ending(closed(), false).0, 1);
        // A broken pipe to anybody but the reader of our output is a failure.
        let socket = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(ending(Err(socket.into()), true).0, 1);
        for kind in [Kind::Usage, Kind::Refused, Kind::NoRepository, Kind::Busy, Kind::WrongKey, Kind::Interrupted] {
            assert_eq!(ending(Err(CliError::new(kind, "x").into()), true), (kind.code(), "voltool: x\n".to_owned()));
        }
    }

    #[test]
    fn a_panic_is_a_failure_and_not_a_trace() {
        assert_eq!(guarded(|| panic!("for the test")), 1);
        let text = panic_text("index out\nof bounds", " (src/x.rs:1)");
        assert!(text.starts_with("voltool: internal error: index out\\nof bounds (src/x.rs:1)\nhint: "), "{text}");
    }
}
