use clap::Parser as _;

use super::super::context::{ConfigUse, resolve};
use super::super::{Cli, GlobalArgs};
use super::*;

struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Scratch { folder: tempfile::tempdir().expect("a scratch folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.path(name).to_string_lossy().into_owned()
    }

    /// Loads the secrets as a command would whose configuration is in this folder.
    fn load(&self, flags: &[&str], vars: &[(&str, &str)]) -> Result<Secrets, CliError> {
        let config = self.path("config.toml").to_string_lossy().into_owned();
        let words = ["voltool", "--config", &config].into_iter().chain(flags.iter().copied()).chain(["ls"]);
        let args: GlobalArgs = Cli::try_parse_from(words).expect("a valid command line").global;
        let env = Environment::with(true, vars);
        let settings = resolve(&args, &env, ConfigUse::MayCreate).expect("resolves");
        Secrets::load(&settings, &env)
    }
}

fn text(secrets: &Secrets) -> &str {
    secrets.passphrase.as_ref().expect("a passphrase").expose_secret()
}

#[test]
fn nothing_is_named_and_nothing_is_there() {
    assert!(Scratch::new().load(&[], &[]).expect("no error").is_empty());
}

#[test]
fn a_passphrase_from_each_place() {
    let s = Scratch::new();
    let file = s.file("p", "correct horse \n");
    assert_eq!(text(&s.load(&["--passphrase-file", &file], &[]).expect("read")), "correct horse ");
    assert_eq!(text(&s.load(&[], &[("VOLTOOL_PASSPHRASE_FILE", &file)]).expect("read")), "correct horse ");
    assert_eq!(text(&s.load(&[], &[("VOLTOOL_PASSPHRASE", "x y")]).expect("read")), "x y");
    s.file("config.toml", "passphrase_file = 'p'");
    assert_eq!(text(&s.load(&[], &[]).expect("read")), "correct horse ");
    let dos = s.file("dos", "x\r\n");
    assert_eq!(text(&s.load(&["--passphrase-file", &dos], &[]).expect("read")), "x");
}

#[test]
fn a_value_and_a_file_for_one_secret_are_refused() {
    let s = Scratch::new();
    let file = s.file("p", "x");
    for (flags, vars) in [
        (vec!["--passphrase-file", file.as_str()], vec![("VOLTOOL_PASSPHRASE", "y")]),
        (vec![], vec![("VOLTOOL_PASSPHRASE", "y"), ("VOLTOOL_PASSPHRASE_FILE", file.as_str())]),
    ] {
        let e = s.load(&flags, &vars).expect_err("refused");
        assert_eq!(e.kind.code(), 2);
        assert!(e.message.contains("twice"), "{e}");
    }
}

#[test]
fn a_passphrase_that_cannot_be_used_is_an_error() {
    let s = Scratch::new();
    let absent = s.path("absent").to_string_lossy().into_owned();
    let folder = s.folder.path().to_string_lossy().into_owned();
    let (empty, newline, two) = (s.file("e", ""), s.file("n", "\n"), s.file("two", "a\nb\n"));
    for file in [&absent, &folder, &empty, &newline, &two] {
        let e = s.load(&["--passphrase-file", file], &[]).expect_err(file);
        assert!(e.message.contains(file.as_str()), "{e}");
        assert!(e.message.contains("--passphrase-file"), "{e}");
    }
    for variable in ["VOLTOOL_PASSPHRASE", "VOLTOOL_PASSPHRASE_FILE", "VOLTOOL_IDENTITY"] {
        let e = s.load(&[], &[(variable, "")]).expect_err(variable);
        assert!(e.message.contains(variable), "{e}");
    }
    std::fs::write(s.path("binary"), [b'a', 0xff]).expect("written");
    let binary = s.path("binary").to_string_lossy().into_owned();
    assert!(s.load(&["--passphrase-file", &binary], &[]).is_err());
}

#[test]
fn an_identity_file_is_made_once_and_read_back() {
    let s = Scratch::new();
    let file = s.path("sub/identity.txt");
    let made = create_identity(&file).expect("made");
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let content = std::fs::read_to_string(&file).expect("readable");
    let lines: Vec<&str> = content.lines().collect();
    assert!(lines[0].starts_with("# created: 2"));
    assert_eq!(lines[1], format!("# public key: {}", made.recipient));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);

    let named = file.to_string_lossy().into_owned();
    let secrets = s.load(&["--identity", &named], &[]).expect("read");
    assert_eq!(secrets.identities[0].to_public().to_string(), made.recipient);
    assert!(secrets.warnings.is_empty());

    assert!(create_identity(&file).is_err_and(|e| e.hints[0].contains("never overwrites")));
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), content);
}

#[test]
fn the_default_identity_is_beside_the_configuration() {
    let s = Scratch::new();
    create_identity(&s.path("identity.txt")).expect("made");
    assert_eq!(s.load(&[], &[]).expect("read").identities.len(), 1);
}

#[test]
fn several_identities_comments_and_a_warning_for_others_who_can_read_it() {
    let s = Scratch::new();
    let key = || Identity::generate().to_string().expose_secret().to_owned();
    let file = s.file("keys", &format!("# one\r\n{}\r\n\n  {}  \n", key(), key()));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("changed");
    let secrets = s.load(&[], &[("VOLTOOL_IDENTITY", &file)]).expect("read");
    assert_eq!(secrets.identities.len(), 2);
    assert!(secrets.warnings[0].contains("mode 0640"), "{:?}", secrets.warnings);
    assert_eq!(format!("{secrets:?}"), "Secrets { identities: 2, passphrase: false }");
}

#[test]
fn an_identity_that_cannot_be_used_is_an_error_that_does_not_quote_it() {
    let s = Scratch::new();
    let absent = s.path("absent").to_string_lossy().into_owned();
    assert!(s.load(&["--identity", &absent], &[]).expect_err("absent").message.contains("--identity"));
    for content in ["", "# nothing\n", "AGE-SECRET-KEY-1GEHEIM\n", "age-encryption.org/v1\n-> scrypt", "ssh GEHEIM"] {
        let file = s.file("bad", content);
        let e = s.load(&["--identity", &file], &[]).expect_err(content);
        assert!(e.message.contains(&file) && !e.hints.is_empty());
        assert!(!e.message.contains("GEHEIM"), "{e}");
    }
    // Also where nobody named it: what is there and cannot be used must not be passed over.
    s.file("identity.txt", "rubbish");
    assert!(s.load(&[], &[]).is_err());
}
