//! Durations as Go reads and writes them (`time.ParseDuration`, `Duration.String`).

use std::time::Duration;

const NANOSECOND: i128 = 1;
const SECOND: i128 = 1_000_000_000;

/// Reads `1m30s`, `1.5s`, `300ms`, `0`; a number needs a unit.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale = match unit {
            "ns" => NANOSECOND,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        // 18 digits keep both products within i128, whatever the unit.
        if whole.len() > 18 {
            return Err(invalid());
        }
        let fraction = &fraction[..fraction.len().min(18)];
        total += whole.parse().unwrap_or(0) * scale;
        total += fraction.parse().unwrap_or(0) * scale / 10_i128.pow(fraction.len() as u32);
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Writes `nanos` as `1m0s`, `1.5s`, `300ms`, `0s`.
pub(crate) fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = i128::from(nanos).abs();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < SECOND {
        let (scale, unit) = match nanos {
            0..1_000 => (NANOSECOND, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{unit}", decimal(nanos, scale));
    }
    let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
    let seconds = decimal(rest, SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// A duration to wait for; a negative one is over at once.
pub(crate) fn wait(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn decimal(value: i128, scale: i128) -> String {
    let digits = scale.to_string().len() - 1;
    let fraction = format!("{:0digits$}", value % scale);
    let fraction = if digits == 0 { "" } else { fraction.trim_end_matches('0') };
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let shown = |text: &str| format(parse(text).unwrap());
        assert_eq!(shown("60s"), "1m0s");
        assert_eq!(shown("2s"), "2s");
        assert_eq!(shown("1.5s"), "1.5s");
        assert_eq!(shown("300ms"), "300ms");
        assert_eq!(shown("1h0.5s"), "1h0m0.5s");
        assert_eq!(shown("1500us"), "1.5ms");
        assert_eq!(shown("0"), "0s");
        assert_eq!(shown("-90s"), "-1m30s");
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        assert_eq!(parse("30").unwrap_err(), "time: missing unit in duration \"30\"");
        assert_eq!(parse("").unwrap_err(), "time: invalid duration \"\"");
        assert_eq!(parse("3q").unwrap_err(), "time: unknown unit \"q\" in duration \"3q\"");
        assert!(parse("s").is_err());
        assert!(parse("99999999999999999999s").is_err());
    }
}
