use clap::Parser as _;

use super::super::Cli;
use super::*;

fn args(line: &[&str]) -> GlobalArgs {
    let words = ["voltool"].iter().chain(line).chain(&["ls"]);
    Cli::try_parse_from(words).expect("a valid command line").global
}

fn resolved(line: &[&str], env: &Environment, config: &str) -> Settings {
    let file = Path::new("/conf/config.toml");
    let config = Config::parse(file, config).expect("a valid configuration");
    let found = FoundConfig { config, target: file.to_owned(), denied: None };
    settings(&args(line), env, found).expect("resolves")
}

#[test]
fn flag_then_environment_then_configuration_then_default() {
    let config = "repo = '/config'\n[cache]\ndir = '/config-cache'\n[backup]\nmemory = '192MiB'\n";
    let env = Environment::with(true, &[("VOLTOOL_REPO", "/env"), ("VOLTOOL_CACHE_DIR", "/env-cache")]);
    let none = Environment::with(true, &[]);

    let s = resolved(&["--repo", "/flag", "--cache-dir", "/flag-cache", "--memory", "160MiB"], &env, config);
    assert_eq!((s.repo.as_deref(), s.cache_dir.to_str(), s.memory), (Some("/flag"), Some("/flag-cache"), 160 << 20));
    let s = resolved(&[], &env, config);
    assert_eq!((s.repo.as_deref(), s.cache_dir.to_str(), s.memory), (Some("/env"), Some("/env-cache"), 192 << 20));
    let s = resolved(&[], &none, config);
    assert_eq!((s.repo.as_deref(), s.cache_dir.to_str()), (Some("/config"), Some("/config-cache")));
    let s = resolved(&[], &none, "");
    assert_eq!((s.repo.as_deref(), s.cache_dir.to_str()), (None, Some("/var/cache/voltool")));
    assert_eq!((s.state_dir.to_str(), s.memory), (Some("/var/lib/voltool"), DEFAULT_MEMORY));
}

#[test]
fn folders_of_a_user() {
    let home = Environment::with(false, &[("HOME", "/home/u")]);
    let s = resolved(&[], &home, "");
    assert_eq!(s.state_dir.to_str(), Some("/home/u/.local/state/voltool"));
    assert_eq!(s.cache_dir.to_str(), Some("/home/u/.cache/voltool"));

    let xdg = [("HOME", "/home/u"), ("XDG_STATE_HOME", "/s"), ("XDG_CACHE_HOME", "relative")];
    let s = resolved(&[], &Environment::with(false, &xdg), "");
    assert_eq!(s.state_dir.to_str(), Some("/s/voltool"));
    assert_eq!(s.cache_dir.to_str(), Some("/home/u/.cache/voltool"), "a relative XDG folder is ignored");

    let nowhere = Environment::with(false, &[]);
    let e = settings(&args(&[]), &nowhere, FoundConfig::default()).expect_err("no place");
    assert_eq!(e.kind, Kind::Usage);
    assert!(e.message.contains("HOME"), "{e}");
}

#[test]
fn an_empty_variable_is_not_set() {
    let env = Environment::with(true, &[("VOLTOOL_REPO", ""), ("VOLTOOL_STATE_DIR", "")]);
    let s = resolved(&[], &env, "repo = '/config'");
    assert_eq!((s.repo.as_deref(), s.state_dir.to_str()), (Some("/config"), Some("/var/lib/voltool")));
}

#[test]
fn s3_settings_are_resolved_one_by_one() {
    let config = "[s3]\nendpoint = 'http://c'\nregion = 'c'\npath_style = true";
    let s = resolved(
        &["--s3-region", "f", "--s3-path-style=false"],
        &Environment::default(),
        "[state]\ndir='/s'\n[cache]\ndir='/c'\n",
    )
    .s3;
    assert_eq!(s, S3Options { endpoint: None, region: Some("f".to_owned()), path_style: Some(false) });
    let s = resolved(&["--s3-region", "f"], &Environment::with(true, &[]), config).s3;
    let expected =
        S3Options { endpoint: Some("http://c".to_owned()), region: Some("f".to_owned()), path_style: Some(true) };
    assert_eq!(s, expected);
    assert_eq!(resolved(&["--s3-path-style"], &Environment::with(true, &[]), "").s3.path_style, Some(true));
}

#[test]
fn what_the_environment_says_of_server_and_engine_goes_before_the_configuration() {
    let config = "[s3]\nendpoint = 'http://c'\nregion = 'c'\n[engine]\nhost = 'unix:///c'\n";
    let s3 = |vars: &[(&str, &str)], line: &[&str]| resolved(line, &Environment::with(true, vars), config).s3;
    let env = [("AWS_ENDPOINT_URL", "http://e"), ("AWS_REGION", "e")];
    assert_eq!(s3(&env, &[]).endpoint.as_deref(), Some("http://e"));
    assert_eq!(s3(&env, &[]).region.as_deref(), Some("e"));
    assert_eq!(s3(&env, &["--s3-endpoint", "http://f"]).endpoint.as_deref(), Some("http://f"));
    let specific = [env[0], ("AWS_ENDPOINT_URL_S3", "http://s3")];
    assert_eq!(s3(&specific, &[]).endpoint.as_deref(), Some("http://s3"));
    let ignored = [env[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    assert_eq!(s3(&ignored, &[]).endpoint.as_deref(), Some("http://c"));

    let host =
        |vars: &[(&str, &str)], line: &[&str]| resolved(line, &Environment::with(true, vars), config).engine_host;
    assert_eq!(host(&[], &[]).as_deref(), Some("unix:///c"));
    // What is left to the environment is left to the module that reads it as Docker's command does.
    assert_eq!(host(&[("DOCKER_HOST", "unix:///e")], &[]), None);
    assert_eq!(host(&[("DOCKER_CONTEXT", "e")], &[]), None);
    assert_eq!(host(&[("DOCKER_HOST", "unix:///e")], &["-H", "unix:///f"]).as_deref(), Some("unix:///f"));
}

#[test]
fn the_identity_is_beside_the_configuration_unless_named() {
    let root = Environment::with(true, &[]);
    let s = resolved(&[], &root, "");
    assert_eq!((s.identity.path.to_str(), s.identity.source), (Some("/conf/identity.txt"), Source::Default));
    let s = resolved(&[], &root, "identity = 'k'");
    assert_eq!((s.identity.path.to_str(), s.identity.source), (Some("/conf/k"), Source::Config("identity")));
    let env = Environment::with(true, &[("VOLTOOL_IDENTITY", "/e")]);
    assert_eq!(resolved(&[], &env, "identity = 'k'").identity.source, Source::Env("VOLTOOL_IDENTITY"));
    let s = resolved(&["--identity", "/f"], &env, "");
    assert_eq!((s.identity.path.to_str(), s.identity.source), (Some("/f"), Source::Flag("--identity")));
}

#[test]
fn a_passphrase_in_the_environment_overrides_the_configured_file_only() {
    let env = Environment::with(true, &[("VOLTOOL_PASSPHRASE", "x")]);
    assert_eq!(resolved(&[], &env, "passphrase_file = '/p'").passphrase_file, None);
    // These two contradict each other; `secret` refuses them.
    assert!(resolved(&["--passphrase-file", "/p"], &env, "").passphrase_file.is_some());
}

#[test]
fn the_configuration_is_searched_in_order() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let make = |name: &str| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("has one")).expect("made");
        std::fs::write(&file, format!("repo = '/{name}'")).expect("written");
        file.to_string_lossy().into_owned()
    };
    let (flag, var) = (make("flag.toml"), make("var.toml"));
    make("xdg/voltool/config.toml");
    let xdg = folder.path().join("xdg").to_string_lossy().into_owned();
    let env = Environment::with(false, &[("VOLTOOL_CONFIG", &var), ("XDG_CONFIG_HOME", &xdg), ("HOME", "/h")]);
    let repo = |line: &[&str], env: &Environment| {
        resolve(&args(line), env, ConfigUse::MustExist).expect("resolves").repo.expect("a repository")
    };
    assert_eq!(repo(&["--config", &flag], &env), "/flag.toml");
    assert_eq!(repo(&[], &env), "/var.toml");
    let env = Environment::with(false, &[("XDG_CONFIG_HOME", &xdg), ("HOME", "/h")]);
    assert_eq!(repo(&[], &env), "/xdg/voltool/config.toml");

    let missing = ["--config", "/nonexistent/c.toml"];
    assert!(resolve(&args(&missing), &env, ConfigUse::MustExist).is_err());
    let s = resolve(&args(&missing), &env, ConfigUse::MayCreate).expect("init may make it");
    assert_eq!(s.config_target.to_str(), Some("/nonexistent/c.toml"));
    assert_eq!(s.default_identity().to_str(), Some("/nonexistent/identity.txt"));
}

#[test]
fn init_writes_the_system_file_as_root_and_the_users_own_file_as_a_user() {
    let own = Some(PathBuf::from("/h/.config/voltool/config.toml"));
    let absent = Path::new("/nonexistent/config.toml");
    let target = |root| find_system_config(absent, own.clone(), root).expect("found").target;
    assert_eq!(target(true), absent);
    assert_eq!(target(false).to_str(), Some("/h/.config/voltool/config.toml"));
}

#[test]
fn without_a_repository_the_error_says_how_to_make_one() {
    let mut s = resolved(&[], &Environment::with(true, &[]), "");
    let e = s.no_repository();
    assert_eq!(e.kind.code(), 10);
    assert!(e.hints[0].contains("voltool init"));
    assert!(s.repository().is_err());
    s.config_denied = Some(PathBuf::from("/etc/voltool/config.toml"));
    assert!(s.no_repository().hints[0].contains("sudo"));
}
