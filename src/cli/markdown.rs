//! `voltool markdown-help`: `docs/cli.md`, from the same definitions as the help.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::ui::Ui;
use super::{Cli, Outcome};

/// Runs the verb.
pub(super) fn run(ui: &Ui) -> anyhow::Result<Outcome> {
    ui.print(&document())?;
    Ok(Outcome::Done)
}

/// The whole page.
fn document() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = String::from(
        "# The command line\n\n<!-- Made by `voltool markdown-help`; do not edit. `VOLTOOL_UPDATE_DOCS=1 cargo test --test cli_docs` \
         makes it anew. -->\n",
    );
    section(&mut out, &root, 2);
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        section(&mut out, verb, 2);
    }
    out.push_str(CONFIGURATION);
    for (name, expected, meaning) in super::config::reference() {
        push(&mut out, format_args!("| `{name}` | {} | {} |\n", escape(expected), escape(meaning)));
    }
    out
}

const CONFIGURATION: &str = "
## The configuration file

TOML, as in [`examples/config.toml`](../examples/config.toml). `voltool init` writes the repository into it and leaves the rest as it
is. An unknown key is an error. Relative paths are relative to the file's folder. Secrets do not belong in it: it names the files
that hold them.

| key | holds | meaning |
| --- | --- | --- |
";

/// One command: what it does, how it is called, its arguments and options, and its examples. Global options are told once, with
/// the program itself.
fn section(out: &mut String, command: &Command, level: usize) {
    let is_root = command.get_name() == "voltool";
    let title = if is_root { "voltool".to_owned() } else { format!("voltool {}", command.get_name()) };
    push(out, format_args!("\n{} {title}\n\n", "#".repeat(level)));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        push(out, format_args!("{}\n\n", escape(&about.to_string())));
    }
    let usage = command.clone().render_usage().to_string();
    push(out, format_args!("```\n{}\n```\n", usage.trim_start_matches("Usage: ").trim()));
    let shown = |arg: &&Arg| !arg.is_hide_set() && (is_root || !arg.is_global_set()) && arg.get_id() != "help";
    let args: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !args.is_empty() {
        out.push_str("\n| argument | meaning |\n| --- | --- |\n");
    }
    for arg in args {
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = escape(&help.replace('\n', " ")).replace('|', "\\|");
        let values: Vec<String> = arg.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
        let is_flag = !arg.get_action().takes_values() || arg.get_id() == "s3_path_style";
        let values = if values.is_empty() || is_flag { String::new() } else { format!(": {}", values.join(", ")) };
        push(out, format_args!("| `{}` | {help}{values} |\n", spelling(arg)));
    }
    if is_root {
        out.push_str("\n| verb | what it does |\n| --- | --- |\n");
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let (name, about) = (verb.get_name(), verb.get_about().map(ToString::to_string).unwrap_or_default());
            push(out, format_args!("| [`{name}`](#voltool-{name}) | {} |\n", escape(&about)));
        }
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        push(out, format_args!("\n```text\n{after}\n```\n"));
    }
}

/// How an argument is written: `-H, --host <URL>`, `[VOLUME]...`.
fn spelling(arg: &Arg) -> String {
    if arg.is_positional() {
        return arg.to_string();
    }
    match arg.get_short() {
        Some(short) => format!("-{short}, {arg}"),
        None => arg.to_string(),
    }
}

/// Keeps what looks like HTML or a link from being one.
fn escape(text: &str) -> String {
    text.replace('<', "\\<").replace('[', "\\[").replace('*', "\\*")
}

/// A string takes everything that is written to it.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
