//! What a backup leaves out.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of paths that are left out.
///
/// As with restic: a pattern without `/` matches the last part of a path wherever it is; one with `/` matches the whole path from the
/// volume's root. `*` does not match `/`, `**` does. What is below something that matches is left out with it.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Vec<String>,
    names: GlobSet,
    paths: GlobSet,
}

impl Excludes {
    /// Compiles patterns. The error names the one that makes no sense.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let patterns: Vec<String> = patterns.into_iter().collect();
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in &patterns {
            let tidy = pattern.trim_start_matches('/').trim_end_matches('/');
            let glob = GlobBuilder::new(tidy)
                .literal_separator(true)
                .build()
                .map_err(|e| format!("the pattern {pattern:?} makes no sense: {}", e.kind()))?;
            if tidy.contains('/') || pattern.starts_with('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| e.to_string());
        Ok(Excludes { names: build(names)?, paths: build(paths)?, patterns })
    }

    /// The patterns as they were given; they are part of the snapshot's record.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether the object at `path` (as in a listing) is left out.
    pub fn matches(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        if self.patterns.is_empty() || path == b"." {
            return false;
        }
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let os = std::ffi::OsStr::from_bytes;
        self.names.is_match(os(name)) || self.paths.is_match(os(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_anywhere_and_paths_from_the_root() {
        let excludes = Excludes::new(["*.tmp", "/cache", "a/*/c", "x/**/y"].map(str::to_owned)).unwrap();
        for yes in ["b.tmp", "d/e/b.tmp", "cache", "a/b/c", "x/1/2/y"] {
            assert!(excludes.matches(yes.as_bytes()), "{yes}");
        }
        for no in ["b.tmpx", "d/cache", "a/b/d/c", ".", "cache2"] {
            assert!(!excludes.matches(no.as_bytes()), "{no}");
        }
        assert!(Excludes::new(["a{".to_owned()]).is_err());
    }
}
