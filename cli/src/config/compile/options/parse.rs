//! Small notations of Docker's command line.

/// `KEY=VALUE`, both parts required.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))
}

/// Bytes: a number with `b`, `k`, `m`, `g`, `t` or `p` (powers of 1024), as `docker` reads it.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let error = || format!("`{text}` is no size, such as 512m or 2g");
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim();
    let exponent = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(error()),
    };
    let scaled = number * 1024_f64.powi(exponent);
    if !(0.0..=9e18).contains(&scaled) {
        return Err(error());
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range by the check above")]
    Ok(scaled as i64)
}

/// A Go duration (`1m30s`, `500ms`, `1.5h`) in nanoseconds.
pub(super) fn duration_ns(text: &str) -> Result<i64, String> {
    let error = || format!("`{text}` is no duration, such as 30s or 1m30s");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..end].parse().map_err(|_| error())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(error()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if total > 9e18 {
        return Err(error());
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range by the check above")]
    Ok(total as i64)
}

/// One line of comma separated values; double quotes keep commas.
pub(super) fn csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields
}

/// A port or a range of ports.
pub(super) fn ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is no port"));
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(format!("the range `{text}` is backwards"));
            }
            Ok(first..=last)
        }
        None => port(text).map(|port| port..=port),
    }
}
