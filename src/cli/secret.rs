//! Where keys come from.
//!
//! One rule stands above all others: a secret that was named and cannot be used is an error. There is no second place to look,
//! and no way from here to an unencrypted repository. No message holds a part of a secret.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret as _, SecretString};
use age::x25519::Identity;

use super::context::{Environment, IdentityFile, Settings, Source};
use super::error::CliError;
use crate::repo::Unlock;

/// No secret file is larger; a wrong path (a disk image, `/dev/zero`) ends here.
const MAX_FILE: u64 = 1 << 20;

/// The keys to try on a repository.
#[derive(Default)]
pub struct Secrets {
    /// X25519 identities.
    pub identities: Vec<Identity>,
    /// The passphrase.
    pub passphrase: Option<SecretString>,
    /// What a person should be told about these files, although it stops nothing.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("identities", &self.identities.len())
            .field("passphrase", &self.passphrase.is_some())
            .finish()
    }
}

impl Secrets {
    /// Reads every secret that the settings name. Naming none is not an error here: it may be that none is needed.
    pub fn load(settings: &Settings, env: &Environment) -> Result<Secrets, CliError> {
        let passphrase = load_passphrase(settings, env)?;
        let mut secrets = Secrets { passphrase, ..Secrets::default() };
        check_not_empty(env, "VOLTOOL_IDENTITY")?;
        if let Some(loaded) = load_identities(&settings.identity)? {
            secrets.identities = loaded.identities;
            secrets.warnings.extend(loaded.warning);
        }
        Ok(secrets)
    }

    /// What to try on a repository, in order.
    pub fn unlock(&self) -> Vec<Unlock> {
        let identities = self.identities.iter().cloned().map(Unlock::Identity);
        identities.chain(self.passphrase.iter().cloned().map(Unlock::Passphrase)).collect()
    }

    /// Returns whether there is nothing to try.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.passphrase.is_none()
    }
}

/// Refuses a passphrase that is given both as a value and as a file. Checked for every command, whether it needs a key or not:
/// the contradiction is in the surroundings, and the next command may be one that does.
pub fn check_given_once(settings: &Settings, env: &Environment) -> Result<(), CliError> {
    match (env.get_even_empty("VOLTOOL_PASSPHRASE"), &settings.passphrase_file) {
        (Some(_), Some((_, source))) => {
            let twice = format!("the passphrase is given twice, by VOLTOOL_PASSPHRASE and by {source}");
            Err(CliError::usage(twice).hint("unset one of them: voltool does not guess which one is meant"))
        }
        _ => Ok(()),
    }
}

/// Reads the passphrase, if the settings name one.
pub fn load_passphrase(settings: &Settings, env: &Environment) -> Result<Option<SecretString>, CliError> {
    check_given_once(settings, env)?;
    check_not_empty(env, "VOLTOOL_PASSPHRASE_FILE")?;
    if let Some((file, source)) = &settings.passphrase_file {
        return read_passphrase(file, *source).map(Some);
    }
    let Some(value) = env.get_even_empty("VOLTOOL_PASSPHRASE") else { return Ok(None) };
    let text = value.to_str().ok_or_else(|| CliError::usage("VOLTOOL_PASSPHRASE is not valid UTF-8"))?;
    if text.is_empty() {
        return Err(CliError::usage("VOLTOOL_PASSPHRASE is set, but empty")
            .hint("give it a value, or unset it if there is no passphrase"));
    }
    Ok(Some(SecretString::from(text.to_owned())))
}

fn read_passphrase(file: &Path, source: Source) -> Result<SecretString, CliError> {
    let name = || format!("passphrase file {} (from {source})", file.display());
    let mut text = read_text(file).map_err(|e| CliError::failed(format!("cannot read {}: {e}", name())))?;
    // Editors and `echo` end a file with a newline that nobody thinks of as part of the passphrase. Only one is removed.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(CliError::failed(format!("{} is empty", name())));
    }
    if text.contains('\n') {
        return Err(CliError::failed(format!("{} has more than one line", name()))
            .hint("a passphrase is one line; is this an identity file? That is --identity"));
    }
    Ok(SecretString::from(text))
}

/// What is in an identity file.
pub struct LoadedIdentities {
    /// The identities, at least one.
    pub identities: Vec<Identity>,
    /// What a person should be told about the file, although it stops nothing.
    pub warning: Option<String>,
}

/// Reads an identity file in age's format. `None` if nobody named one and the default one does not exist.
pub fn load_identities(file: &IdentityFile) -> Result<Option<LoadedIdentities>, CliError> {
    let name = || format!("identity file {}", file.path.display());
    let text = match read_text(&file.path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && file.source == Source::Default => return Ok(None),
        Err(e) => {
            let from = if file.source == Source::Default { String::new() } else { format!(" (from {})", file.source) };
            return Err(CliError::failed(format!("cannot read {}{from}: {e}", name())));
        }
    };
    let identities = parse_identities(&text)
        .map_err(|(reason, hint)| CliError::failed(format!("cannot use {}: {reason}", name())).hint(hint))?;
    Ok(Some(LoadedIdentities { identities, warning: permission_warning(&file.path) }))
}

/// Parses age's identity format; the error is the reason and a hint, and has nothing of the content in it.
fn parse_identities(text: &str) -> Result<Vec<Identity>, (String, &'static str)> {
    const HINT: &str =
        "the file holds lines that begin with AGE-SECRET-KEY-1, as 'voltool init' and 'age-keygen' make them";
    if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") {
        let hint = "decrypt it with 'age --decrypt' into a file that only you can read, and name that one";
        return Err(("it is itself encrypted with a passphrase".to_owned(), hint));
    }
    let mut identities = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let identity = line.parse().map_err(|_| (format!("line {} is not an X25519 identity", n + 1), HINT))?;
        identities.push(identity);
    }
    if identities.is_empty() {
        return Err(("there is no identity in it".to_owned(), HINT));
    }
    Ok(identities)
}

fn permission_warning(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(|m| m.is_file())?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0)
        .then(|| format!("identity file {0} can be read by others (mode {mode:04o}): chmod 600 {0}", path.display()))
}

fn check_not_empty(env: &Environment, variable: &str) -> Result<(), CliError> {
    if env.get_even_empty(variable).is_some_and(|value| value.is_empty()) {
        return Err(CliError::usage(format!("{variable} is set, but empty"))
            .hint(format!("name a file, or unset {variable}: for a secret, voltool does not take empty for absent")));
    }
    Ok(())
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut data = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut data)?;
    if data.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is too large to be a secret file"));
    }
    // Not the library's own message: it may quote bytes of the content.
    String::from_utf8(data).map_err(|_| io::Error::other("it is not text"))
}

/// An identity that was just made.
pub struct NewIdentity {
    /// The secret.
    pub identity: Identity,
    /// What is encrypted to it, `age1…`.
    pub recipient: String,
    /// The file that holds it.
    pub file: PathBuf,
}

/// Makes an identity and its file, with mode 0600, as `age-keygen` does. Never overwrites: what is there may be the only key
/// to another repository.
pub fn create_identity(file: &Path) -> Result<NewIdentity, CliError> {
    let identity = Identity::generate();
    let recipient = identity.to_public().to_string();
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let text = SecretString::from(format!(
        "# created: {created}\n# public key: {recipient}\n{}\n",
        identity.to_string().expose_secret()
    ));
    write_new(file, text.expose_secret().as_bytes()).map_err(|e| {
        let failed = CliError::failed(format!("cannot create identity file {}: {e}", file.display()));
        if e.kind() == io::ErrorKind::AlreadyExists {
            return failed.hint("use it with --identity, or name another file; voltool never overwrites a key");
        }
        failed
    })?;
    Ok(NewIdentity { identity, recipient, file: file.to_owned() })
}

fn write_new(file: &Path, data: &[u8]) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = out.write_all(data).and_then(|()| out.sync_all()).and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // Half a key is worse than none, and this file is ours: `create_new` made it.
        let _ = std::fs::remove_file(file);
    }
    written
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
