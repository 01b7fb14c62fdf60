//! The names that a volume may have.

/// The longest name, in bytes: it is the name of a folder.
pub const MAX_NAME: usize = 255;

/// A name that no volume can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("volume name {}: {problem}", shown(name))]
pub struct NameError {
    /// The name as it was given.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Checks the name of a volume by the rule of Docker's own driver: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`. So a name is also safe as
/// the name of a folder: no slash, not `.` or `..`.
///
/// The engine checks names only for its driver `local`; what it hands to a plugin is whatever a client sent.
///
/// # Errors
/// One that says which character, or which length, is wrong.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    let wrong = |problem: String| Err(NameError { name: name.to_owned(), problem });
    let Some(first) = name.chars().next() else { return wrong("it is empty".to_owned()) };
    if !first.is_ascii_alphanumeric() {
        return wrong(format!("it begins with {first:?}; letters and digits may stand there"));
    }
    if let Some(other) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-')) {
        return wrong(format!("it has {other:?} in it; letters, digits and _ . - may be used"));
    }
    match name.len() {
        1 => wrong("it has one character; two are the least".to_owned()),
        len if len > MAX_NAME => wrong(format!("it has {len} characters; {MAX_NAME} are the most")),
        _ => Ok(()),
    }
}

/// The name for a message, which it shall not fill.
fn shown(name: &str) -> String {
    if name.chars().count() > 80 {
        return format!("{:?}…", name.chars().take(60).collect::<String>());
    }
    format!("{name:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_dockers_own_driver() {
        for name in ["db", "a1", "0_", "shop_db-data.v2", &"x".repeat(255)] {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a",
            ".",
            "..",
            ".db",
            "-db",
            "_db",
            "a/b",
            "../etc",
            "a b",
            "a\0",
            "é1",
            "aé",
            "a\n",
            &"x".repeat(256),
        ] {
            assert!(validate_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_message_says_what_is_wrong_and_stays_short() {
        assert_eq!(
            validate_name("a/b").unwrap_err().to_string(),
            "volume name \"a/b\": it has '/' in it; letters, digits and _ . - may be used"
        );
        assert!(validate_name(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 200);
    }
}
