//! `--json`: one document on standard output, indented, with a line feed at its end.

use std::io::Write;

use serde::Serialize;

/// Writes `value`. Errors are those of `out`: what voltool writes can always be represented.
pub fn write<T: Serialize + ?Sized>(out: &mut dyn Write, value: &T) -> std::io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    out.write_all(&text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ends_with_a_line_feed() {
        let mut out = Vec::new();
        super::write(&mut out, &["a"]).expect("written");
        assert_eq!(out, b"[\n  \"a\"\n]\n");
    }
}
