//! The command line from outside: help, usage errors, configuration, secrets, where things are, and what happens to pipes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use assert_cmd::Command;

const VERBS: [&str; 8] = ["init", "ls", "backup", "snapshots", "restore", "export", "completions", "man"];

/// A home of its own for every test: nothing of the machine's configuration, keys or engine is seen.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Home { folder: tempfile::tempdir().expect("a scratch folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.path(name).to_string_lossy().into_owned()
    }

    /// The command with an empty environment but for its home, its configuration and an engine that is not there.
    fn voltool(&self, args: &[&str]) -> Command {
        let config = self.path("config.toml");
        if !config.exists() {
            std::fs::write(&config, "").expect("written");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_voltool"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("VOLTOOL_CONFIG", config)
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.voltool(args).output().expect("voltool runs")
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits by itself")
}

#[test]
fn every_verb_has_help_with_examples() {
    let home = Home::new();
    let top = home.run(&["--help"]);
    assert_eq!(code(&top), 0);
    for text in ["Exit codes:", "VOLTOOL_REPO", "--s3-endpoint"] {
        assert!(out(&top).contains(text), "{text}");
    }
    assert!(!out(&top).contains("markdown-help"));
    for verb in VERBS {
        assert!(out(&top).contains(&format!("\n  {verb}")), "{verb}");
        let help = home.run(&[verb, "--help"]);
        assert_eq!(code(&help), 0, "{verb}");
        assert!(out(&help).contains("Examples:"), "{verb}");
        assert!(err(&help).is_empty(), "{verb}");
    }
}

#[test]
fn version() {
    let output = Home::new().run(&["--version"]);
    assert_eq!((code(&output), out(&output).trim()), (0, concat!("voltool ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn usage_errors_exit_with_2() {
    let home = Home::new();
    for args in [
        &[][..],
        &["frobnicate"],
        &["ls", "--no-such-option"],
        &["ls", "surplus"],
        &["--quiet", "--verbose", "ls"],
        &["--memory", "1KiB", "ls"],
        &["--memory", "much", "ls"],
        &["--repo", "", "ls"],
        &["--s3-path-style=maybe", "ls"],
        &["backup", "--parallel", "0"],
        &["backup", "--path", "/srv"],
        &["backup", "--name", "x"],
        &["backup", "--path", "/srv", "--name", "a@b"],
        &["backup", "db", "--path", "/srv", "--name", "x"],
        &["backup", "--exclude", "a{b"],
        &["restore"],
        &["restore", "db", "--all"],
        &["restore", "--all", "--to", "x"],
        &["restore", "db", "--to", "x", "--to-dir", "/x"],
        &["restore", "db@yesterday"],
        &["restore", "db@"],
        &["restore", "@latest"],
        &["export"],
        &["export", "db@2026-99-99"],
        &["init", "--recipient", "age1nonsense"],
        &["init", "--no-encrypt", "--passphrase-file", "/x"],
        &["completions", "tcsh"],
        &["man"],
    ] {
        let output = home.run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert!(!err(&output).is_empty() && out(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn a_misspelt_verb_or_option_is_guessed() {
    let home = Home::new();
    assert!(err(&home.run(&["bakup"])).contains("'backup'"));
    assert!(err(&home.run(&["backup", "--exclud", "x"])).contains("'--exclude'"));
}

#[test]
fn an_unknown_configuration_key_names_file_line_and_nearest_key() {
    let home = Home::new();
    let file = home.file("config.toml", "repo = '/r'\n[backup]\nexclud = ['x']\n");
    let output = home.run(&["ls"]);
    let expected = format!(
        "voltool: configuration {file}, line 3: unknown key 'backup.exclud'\nhint: did you mean 'backup.exclude'?\n"
    );
    assert_eq!((code(&output), err(&output)), (2, expected));
}

#[test]
fn a_configuration_that_is_named_must_be_there() {
    let home = Home::new();
    let output = home.run(&["--config", "/nonexistent/config.toml", "snapshots"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).starts_with("voltool: configuration /nonexistent/config.toml: cannot be read: "),
        "{}",
        err(&output)
    );
}

#[test]
fn verbs_that_need_no_configuration_work_with_a_broken_one() {
    let home = Home::new();
    home.file("config.toml", "= nonsense");
    assert_eq!(code(&home.run(&["completions", "bash"])), 0);
    assert_eq!(code(&home.run(&["ls"])), 2);
}

#[test]
fn a_passphrase_that_is_given_twice_is_refused() {
    let home = Home::new();
    let file = home.file("passphrase", "x\n");
    for verb in [&["ls"][..], &["init", "--repo", "/nonexistent/repo"], &["restore", "db"]] {
        let flag = home.voltool(verb).args(["--passphrase-file", &file]).env("VOLTOOL_PASSPHRASE", "geheim").output();
        let flag = flag.expect("voltool runs");
        assert_eq!(code(&flag), 2);
        assert_eq!(
            err(&flag),
            "voltool: the passphrase is given twice, by VOLTOOL_PASSPHRASE and by --passphrase-file\n\
             hint: unset one of them: voltool does not guess which one is meant\n"
        );
        let env = home.voltool(verb).env("VOLTOOL_PASSPHRASE_FILE", &file).env("VOLTOOL_PASSPHRASE", "geheim").output();
        assert_eq!(code(&env.expect("voltool runs")), 2);
    }
}

#[test]
fn folders_and_repository_come_from_flag_environment_configuration_default() {
    let home = Home::new();
    // Whatever becomes of the command itself, it says first what the settings came to.
    let seen = |command: &mut Command| err(&command.output().expect("voltool runs"));
    let ls = || home.voltool(&["--verbose", "ls"]);

    let text = seen(&mut ls());
    let (state, cache) = if rustix::process::geteuid().is_root() {
        (PathBuf::from("/var/lib/voltool"), PathBuf::from("/var/cache/voltool"))
    } else {
        (home.path(".local/state/voltool"), home.path(".cache/voltool"))
    };
    assert!(text.contains(&line("state", &state)) && text.contains(&line("cache", &cache)), "{text}");
    assert!(text.contains(&line("identity file", &home.path("identity.txt"))), "{text}");

    home.file("config.toml", "repo = 'r'\n[state]\ndir = 's'\n[cache]\ndir = '/c'\n");
    let text = seen(&mut ls());
    for (what, path) in [("state", home.path("s")), ("cache", "/c".into()), ("repository", home.path("r"))] {
        assert!(text.contains(&line(what, &path)), "{what}: {text}");
    }
    let set = |command: &mut Command| {
        command
            .env("VOLTOOL_STATE_DIR", "/e-state")
            .env("VOLTOOL_CACHE_DIR", "/e-cache")
            .env("VOLTOOL_REPO", "/e-repo");
    };
    let mut command = ls();
    set(&mut command);
    let text = seen(&mut command);
    for (what, path) in [("state", "/e-state"), ("cache", "/e-cache"), ("repository", "/e-repo")] {
        assert!(text.contains(&line(what, Path::new(path))), "{what}: {text}");
    }
    let mut command = ls();
    set(&mut command);
    let text = seen(command.args(["--state-dir", "/f-state", "--cache-dir", "/f-cache", "--repo", "/f-repo"]));
    for (what, path) in [("state", "/f-state"), ("cache", "/f-cache"), ("repository", "/f-repo")] {
        assert!(text.contains(&line(what, Path::new(path))), "{what}: {text}");
    }
}

fn line(what: &str, path: &Path) -> String {
    format!("{what}: {}\n", path.display())
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_end() {
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_voltool"))
            .args(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("voltool runs");
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("readable");
        let status = child.wait().expect("it ends");
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_voltool"))
        .args(["completions", "bash"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("voltool runs");
    assert_eq!(code(&child), 1);
    assert!(err(&child).starts_with("voltool: cannot write to standard output: "), "{}", err(&child));
}

#[test]
fn completions_know_the_verbs() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = home.run(&["completions", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        for verb in VERBS {
            assert!(out(&output).contains(verb), "{shell} does not know {verb}");
        }
        assert!(!out(&output).contains("markdown-help"), "{shell} offers a hidden verb");
    }
}

#[test]
fn there_is_a_man_page_for_every_verb() {
    let home = Home::new();
    let dir = home.path("man/man1");
    let output = home.run(&["man", &dir.to_string_lossy()]);
    assert_eq!((code(&output), out(&output), err(&output)), (0, String::new(), String::new()));
    for page in VERBS.map(|verb| format!("voltool-{verb}.1")).iter().map(String::as_str).chain(["voltool.1"]) {
        let text = std::fs::read_to_string(dir.join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(!dir.join("voltool-markdown-help.1").exists());
    let blocked = home.file("file", "");
    assert_eq!(code(&home.run(&["man", &blocked])), 1);
}
