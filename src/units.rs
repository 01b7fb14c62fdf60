//! Sizes and durations as people write them: on the command line, in the configuration, in the options of a volume.

use jiff::SignedDuration;

/// Reads a size: a number with an optional unit. `K`, `M`, `G`, `T` and `KiB` … are powers of 1024, `KB` … powers of 1000, as in
/// the GNU core utilities.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size such as 256MiB, 1.5G or 1048576");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        _ => {
            let power = "kmgt".find(unit.chars().next().ok_or_else(wrong)?).ok_or_else(wrong)? as u32 + 1;
            match &unit[1..] {
                "" | "ib" => 1024_u64.pow(power),
                "b" => 1000_u64.pow(power),
                _ => return Err(wrong()),
            }
        }
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large"));
    }
    let value = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    // Beyond 2^53 a fraction means nothing any more.
    if value < 9e15 { Ok(value as u64) } else { Err(format!("'{text}' is too large")) }
}

/// Reads a duration: `24h`, `7d`, `1h30m`, `90s`, `2 weeks`. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("'{text}' is not a duration such as 24h, 7d or 90s");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("'{text}' has months or years in it, which have no fixed length: say days"));
    }
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if duration.is_negative() { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1024),
            ("1KB", 1000),
            ("1 KiB", 1024),
            ("256MiB", 256 << 20),
            ("256M", 256 << 20),
            ("1.5G", 3 << 29),
            ("2TiB", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1X", "1MiBs", "-1", "1.2.3M", "99999999999T", "1e9", "1.5é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_back() {
        for (text, seconds) in
            [("24h", 86_400), ("7d", 604_800), ("90s", 90), ("1h30m", 5_400), ("0s", 0), ("2 weeks", 1_209_600)]
        {
            assert_eq!(parse_duration(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "-1h", "1 month", "1y", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
