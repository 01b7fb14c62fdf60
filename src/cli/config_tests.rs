use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/voltool/config.toml"), text)
}

fn failure(text: &str) -> String {
    let e = parse(text).expect_err("must be refused");
    match &e.hint {
        Some(hint) => format!("{e} | {hint}"),
        None => e.to_string(),
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        repo = "s3://bucket/prefix"
        identity = "identity.txt"
        passphrase_file = "/run/secrets/p"
        [s3]
        endpoint = "http://127.0.0.1:3900"
        region = "garage"
        path_style = true
        [engine]
        host = "unix:///run/docker.sock"
        name = "db-host"
        [backup]
        exclude = ["*.tmp", "cache/**"]
        parallel = 3
        memory = "192MiB"
        [cache]
        dir = "/c"
        max_size = 1024
        [state]
        dir = "../state"
        "#,
    )
    .expect("valid");
    assert_eq!(config.repo.as_deref(), Some("s3://bucket/prefix"));
    assert_eq!(config.identity.as_deref(), Some(Path::new("/etc/voltool/identity.txt")));
    assert_eq!(config.passphrase_file.as_deref(), Some(Path::new("/run/secrets/p")));
    assert_eq!(config.s3.endpoint.as_deref(), Some("http://127.0.0.1:3900"));
    assert_eq!((config.s3.region.as_deref(), config.s3.path_style), (Some("garage"), Some(true)));
    assert_eq!(config.engine_host.as_deref(), Some("unix:///run/docker.sock"));
    assert_eq!(config.engine_name.as_deref(), Some("db-host"));
    assert_eq!(config.backup_exclude, ["*.tmp", "cache/**"]);
    assert_eq!((config.backup_parallel, config.backup_memory), (Some(3), Some(192 << 20)));
    assert_eq!((config.cache_dir.as_deref(), config.cache_max_size), (Some(Path::new("/c")), Some(1024)));
    assert!(config.state_dir.expect("read").ends_with("state"));
}

#[test]
fn a_relative_repository_is_relative_to_the_file() {
    assert_eq!(parse("repo = 'backups'").expect("valid").repo.as_deref(), Some("/etc/voltool/backups"));
    assert_eq!(parse("repo = 'file:///b'").expect("valid").repo.as_deref(), Some("file:///b"));
}

#[test]
fn unknown_keys_name_file_line_key_and_the_nearest() {
    assert_eq!(
        failure("repo = 'x'\nrepositry = 'y'\n"),
        "configuration /etc/voltool/config.toml, line 2: unknown key 'repositry' | did you mean 'repo'?"
    );
    assert_eq!(
        failure("[s3]\nendpont = 'y'\n"),
        "configuration /etc/voltool/config.toml, line 2: unknown key 's3.endpont' | did you mean 's3.endpoint'?"
    );
    assert!(failure("endpoint = 'y'").ends_with("unknown key 'endpoint' | did you mean 's3.endpoint'?"));
    assert!(failure("[backups]\nparallel = 1").ends_with("unknown key 'backups' | did you mean 'backup'?"));
    assert!(failure("passphrase = 'geheim'").ends_with("did you mean 'passphrase_file'?"));
    assert!(!failure("passphrase = 'geheim'").contains("geheim"), "a secret must not be in a message");
    assert!(failure("[s3]\npath-style = true").ends_with("did you mean 's3.path_style'?"));
    assert!(failure("zzz = 1").ends_with("unknown key 'zzz'"));
    assert!(failure("s3 = { regoin = 'x' }").ends_with("did you mean 's3.region'?"));
}

#[test]
fn type_errors_name_the_key_and_what_was_expected() {
    assert!(failure("repo = 3").ends_with("line 1: repo must be a string, not integer"));
    assert!(failure("\n[s3]\npath_style = 'yes'").ends_with("line 3: s3.path_style must be true or false, not string"));
    assert!(failure("[backup]\nexclude = 'x'").ends_with("backup.exclude must be an array of strings, not string"));
    assert!(failure("[backup]\nexclude = ['x', 1]").contains("backup.exclude must be an array of strings"));
    assert!(failure("[backup]\nparallel = 0").contains("backup.parallel must be a whole number of at least 1"));
    assert!(failure("[backup]\nmemory = 'much'").contains("backup.memory: "));
    assert!(failure("[backup]\nmemory = 1").contains("backup.memory: "));
    assert!(failure("[cache]\nmax_size = -1").contains("cache.max_size must be a size"));
    assert!(failure("s3 = 1").ends_with("s3 must be a table, not integer"));
    assert!(failure("repo = ''").contains("repo: must not be empty"));
    assert!(failure("repo = ").contains("is not valid TOML"));
}

#[test]
fn saving_keeps_what_is_there() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("sub/config.toml");
    let mut entry = RepositoryEntry { repo: "/srv/repo".to_owned(), ..RepositoryEntry::default() };
    assert_eq!(Config::save_repository(&file, &entry).expect("saved").replaced, None);
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Config::load(&file).expect("valid").repo.as_deref(), Some("/srv/repo"));

    let text = "# mine\n# about repo\nrepo = \"/old\" # why\n\n[backup]\n# never these\nexclude = [\"*.tmp\"]\n";
    std::fs::write(&file, text).expect("written");
    entry.repo = "s3://b/p".to_owned();
    entry.s3 = S3Options { endpoint: Some("http://h".to_owned()), region: None, path_style: Some(true) };
    entry.identity = Some(PathBuf::from("/k/id.txt"));
    let saved = Config::save_repository(&file, &entry).expect("saved");
    assert_eq!(saved.replaced.as_deref(), Some("/old"));
    let now = std::fs::read_to_string(&file).expect("readable");
    for kept in ["# mine\n# about repo\nrepo = \"s3://b/p\" # why\n", "# never these\nexclude = [\"*.tmp\"]\n"] {
        assert!(now.contains(kept), "{kept:?} is not in\n{now}");
    }
    let config = Config::load(&file).expect("valid");
    assert_eq!(config.s3, entry.s3);
    assert_eq!(config.identity, entry.identity);
    assert_eq!(std::fs::read_dir(folder.path().join("sub")).expect("a folder").count(), 1, "nothing is left over");
}

#[test]
fn saving_into_a_file_that_is_wrong_changes_nothing() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "repoo = 1\n").expect("written");
    let entry = RepositoryEntry { repo: "/srv".to_owned(), ..RepositoryEntry::default() };
    assert!(Config::save_repository(&file, &entry).is_err());
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "repoo = 1\n");
}

#[test]
fn the_example_holds_every_key_and_is_valid() {
    let example = include_str!("../../examples/config.toml")
        .replace("\n#passphrase_file", "\npassphrase_file")
        .replace("\n#shared_as", "\nshared_as");
    let document: DocumentMut = example.parse().expect("TOML");
    for key in SCHEMA {
        let table = if key.table.is_empty() { document.as_item() } else { &document[key.table] };
        assert!(table.get(key.name).is_some(), "{} is not in the example", full_name(key.table, key.name));
    }
    parse(&example).expect("valid");
}
