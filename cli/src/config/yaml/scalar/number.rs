//! Numbers as Psych reads them: base 60, floats, and integers in four bases with `_` and `,`.

use super::super::node::Value;

/// The number, or `None` for a text that is none.
pub(super) fn number(text: &str) -> Option<Value> {
    if let Some(value) = base60(text) {
        return Some(value);
    }
    if is_float(text) {
        return float(text);
    }
    integer(text).map(Value::Int)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// `h:m` or `h:m:s`, which may end with a fraction. `h:m` counts as hours and minutes, as in Psych.
fn base60(text: &str) -> Option<Value> {
    let parts: Vec<&str> = unsigned(text).split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let starts_with_digit = parts[0].starts_with(|c: char| c.is_ascii_digit());
    if !starts_with_digit || !parts[0].bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return None;
    }
    let (last, fraction) = match parts[parts.len() - 1].split_once('.') {
        Some((last, fraction)) => (last, Some(fraction)),
        None => (parts[parts.len() - 1], None),
    };
    let sixtieth =
        |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    if !sixtieth(last) || !parts[1..parts.len() - 1].iter().all(|part| sixtieth(part)) {
        return None;
    }
    let weight = |index: usize| [3600_i128, 60, 1].get(index).copied().unwrap_or(1);
    let Some(fraction) = fraction else {
        let terms = text.split(':').enumerate();
        let sum = terms.fold(0_i128, |total, (index, part)| {
            total.saturating_add(leading_int(part).saturating_mul(weight(index)))
        });
        return Some(Value::Int(sum));
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return None;
    }
    let terms = text.split(':').enumerate();
    let sum = terms.fold(0.0, |total, (index, part)| {
        let number: f64 = part.replace('_', "").trim_end_matches('.').parse().unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "the weights are small")]
        let weight = weight(index) as f64;
        total + number * weight
    });
    Some(Value::Float(sum))
}

/// Ruby's `String#to_i`: leading digits with single underscores, else 0.
fn leading_int(text: &str) -> i128 {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let mut number: i128 = 0;
    let mut last_underscore = true;
    for byte in unsigned(text).bytes() {
        match byte {
            b'0'..=b'9' => {
                number = number.saturating_mul(10).saturating_add(i128::from(byte - b'0'));
                last_underscore = false;
            }
            b'_' if !last_underscore => last_underscore = true,
            _ => break,
        }
    }
    sign * number
}

/// Whether it has the form of a float: `[-+]DIGITS.DIGITS[e±DIGITS]`, where digits may lack.
fn is_float(text: &str) -> bool {
    let Some((whole, rest)) = unsigned(text).split_once('.') else { return false };
    let separated = |c: u8| c.is_ascii_digit() || c == b'_' || c == b',';
    let whole_fits =
        whole.is_empty() || (whole.as_bytes()[0].is_ascii_digit() && whole.bytes().all(separated));
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        exponent.strip_prefix(['-', '+']).is_some_and(|count| !count.is_empty() && digits(count))
    });
    whole_fits && digits(fraction) && exponent_fits
}

fn float(text: &str) -> Option<Value> {
    // A lone point is text.
    unsigned(text).strip_prefix('.').is_none_or(|rest| !rest.is_empty()).then_some(())?;
    let cleaned: String = text.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    cleaned.parse().ok().map(Value::Float)
}

fn integer(text: &str) -> Option<i128> {
    let digits = unsigned(text);
    let separator = |b: u8| b == b'_' || b == b',';
    let bytes = digits.as_bytes();
    let all = |bytes: &[u8], fits: fn(u8) -> bool| bytes.iter().all(|b| fits(*b) || separator(*b));
    let first = |bytes: &[u8]| bytes.iter().copied().find(|b| !separator(*b));
    let (radix, body) = match bytes {
        [b'0', b'b', rest @ ..] => {
            let fits = all(rest, |b| matches!(b, b'0' | b'1')) && first(rest).is_some();
            (2, fits.then_some(&digits[2..]))
        }
        [b'0', b'x', rest @ ..] => {
            let fits = all(rest, |b| b.is_ascii_hexdigit()) && first(rest).is_some();
            (16, fits.then_some(&digits[2..]))
        }
        [b'0'] => (10, Some(digits)),
        [b'0', rest @ ..] => {
            let fits = all(rest, |b| matches!(b, b'0'..=b'7')) && first(rest).is_some();
            (8, fits.then_some(&digits[1..]))
        }
        [b'1'..=b'9', rest @ ..] => {
            // A separator stands between digits, one at a time.
            let single = rest.windows(2).all(|pair| !(separator(pair[0]) && separator(pair[1])));
            let closed = rest.last().is_none_or(|last| !separator(*last));
            let fits = all(rest, |b| b.is_ascii_digit()) && single && closed;
            (10, fits.then_some(digits))
        }
        _ => (10, None),
    };
    let body: String = body?.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    // Larger than any number that means something here: text rather than a wrong number.
    let magnitude = i128::from_str_radix(&body, radix).ok()?;
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}
