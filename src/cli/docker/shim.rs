//! When voltool is called `docker`.

use std::ffi::OsString;
use std::path::Path;

use super::DockerArgs;
use crate::cli::{Cli, GlobalArgs, Verb};
use crate::guard::argv::Program;

/// Reads the arguments as those of the docker command, if that is the name by which voltool was called.
pub(in crate::cli) fn called_as_docker(args: &[OsString]) -> Option<Cli> {
    let (name, line) = args.split_first()?;
    let name = Path::new(name).file_name()?;
    let program = [Program::Docker, Program::Compose].into_iter().find(|program| name == program.name())?;
    let args = DockerArgs { program, line: line.to_vec(), ..DockerArgs::default() };
    Some(Cli { verbose_too: 0, global: GlobalArgs::default(), verb: Verb::Docker(args) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        let called = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            called_as_docker(&words).map(|cli| match cli.verb {
                Verb::Docker(args) => (args.program, args.line.len()),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(called(&["docker", "rm", "-v"]), Some((Program::Docker, 2)));
        assert_eq!(called(&["/usr/local/bin/docker-compose"]), Some((Program::Compose, 0)));
        assert_eq!(called(&["voltool", "docker"]), None);
        assert_eq!(called(&["dockerd"]), None);
        assert_eq!(called(&[]), None);
    }
}
