//! Paths as Go's `net/url` reads and writes them: services are chosen by the decoded path, and what
//! goes on to a target is the path as it came unless Go would have written it otherwise.

/// The decoded path; `None` when a percent sign is not followed by two hexadecimal digits.
pub(crate) fn decode(raw: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

/// The path to ask a target for: `raw` with `prefix` taken off its front. A path that loses its
/// prefix is written anew, so `%2F` below a prefix becomes `/`.
pub(crate) fn forwarded(raw: &str, prefix: &str) -> String {
    let Some(decoded) = decode(raw) else { return raw.to_owned() };
    let written = match decoded.strip_prefix(prefix.as_bytes()) {
        Some(rest) if prefix != "/" => encode(rest),
        _ if is_valid(raw) => raw.to_owned(),
        _ => encode(&decoded),
    };
    if written.is_empty() { "/".to_owned() } else { written }
}

/// `base` and a path below it, which may hold `.`, `..` and repeated slashes; cleaned and encoded.
pub(crate) fn joined(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    // Go keeps a slash at the end, and nothing else of an unclean path.
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    match decode(&clean) {
        Some(decoded) if !is_valid(&clean) => encode(&decoded),
        _ => clean,
    }
}

fn encode(decoded: &[u8]) -> String {
    let mut written = String::with_capacity(decoded.len());
    for byte in decoded {
        if stays(*byte) {
            written.push(char::from(*byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

/// What Go writes as it is when it encodes a path.
fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

/// What Go passes on when it was already there.
fn is_valid(raw: &str) -> bool {
    raw.bytes().all(|byte| stays(byte) || b"!'()*[]%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_on_as_it_came_unless_it_loses_its_prefix() {
        assert_eq!(forwarded("/api", "/api"), "/");
        assert_eq!(forwarded("/api/u", "/api"), "/u");
        assert_eq!(forwarded("/api/u", "/"), "/api/u");
        assert_eq!(forwarded("/a%2Fb%20c!", "/"), "/a%2Fb%20c!");
        assert_eq!(forwarded("/api/a%2Fb%20c!", "/api"), "/a/b%20c%21");
        assert_eq!(forwarded("/%61pi/u", "/api"), "/u");
        assert_eq!(forwarded("/a|b", "/"), "/a%7Cb");
    }

    #[test]
    fn a_health_check_path_is_a_path_and_nothing_else() {
        assert_eq!(joined("up"), "/up");
        assert_eq!(joined("/up?x=1"), "/up%3Fx=1");
        assert_eq!(joined("//a/./b/../up/"), "/a/up/");
        assert_eq!(joined("/"), "/");
    }

    #[test]
    fn half_an_encoded_byte_is_no_path() {
        assert_eq!(decode("/%61"), Some(b"/a".to_vec()));
        assert_eq!(decode("/%6"), None);
        assert_eq!(decode("/%zz"), None);
    }
}
