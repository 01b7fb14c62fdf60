//! The `voltool` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    voltool::cli::main_with(std::env::args_os())
}
