//! `voltool completions`: what shells complete with.

use clap::{Args, Command, CommandFactory as _, ValueEnum};

use super::ui::Ui;
use super::{Cli, Outcome};

/// Write shell completions to standard output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  voltool completions bash > /usr/share/bash-completion/completions/voltool
  voltool completions zsh > /usr/local/share/zsh/site-functions/_voltool
  voltool completions fish > ~/.config/fish/completions/voltool.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that completions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// Runs the verb.
pub fn run(ui: &Ui, args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Into memory first, because the generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut visible(&Cli::command()), "voltool", &mut text);
    ui.print(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Done)
}

/// The command without its hidden verbs, which the generators would offer.
fn visible(command: &Command) -> Command {
    Command::new("voltool")
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
}
