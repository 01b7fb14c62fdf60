//! The byte budget of a run, as the command line and the configuration give it.

use crate::units::parse_size;

/// The byte budget for one run if nothing else is said.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// The smallest byte budget. A pack of 16 MiB is filled while another is sealed and a third one is on its way, beside content, the
/// compressors, and the program itself.
pub const MIN_MEMORY: u64 = 128 << 20;

/// Checks a byte budget; the error says why, without the name of the setting.
pub fn check_memory(bytes: u64) -> Result<u64, String> {
    if bytes < MIN_MEMORY {
        return Err(format!("at least {} MiB are needed", MIN_MEMORY >> 20));
    }
    Ok(bytes)
}

/// Parses `--memory`.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    check_memory(parse_size(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_must_hold_what_a_run_needs() {
        assert_eq!(parse_memory("256MiB"), Ok(DEFAULT_MEMORY));
        assert!(parse_memory("1MiB").is_err());
        assert!(parse_memory("lots").is_err());
    }
}
