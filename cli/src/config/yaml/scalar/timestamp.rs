//! Dates and points in time as Psych reads them, in the form in which it writes them again.

use super::super::node::Value;

/// `YYYY-M-D`.
pub(super) fn date(text: &str) -> Option<Value> {
    let mut cursor = Cursor(text);
    let year = cursor.digits(4, 4)?;
    cursor.skip('-')?;
    let month = cursor.digits(1, 2)?;
    cursor.skip('-')?;
    let day = cursor.digits(1, 2)?;
    if !cursor.0.is_empty() || month > 12 || day > 31 {
        return None;
    }
    is_day(year, month, day).then(|| Value::Date(format!("{year:04}-{month:02}-{day:02}")))
}

/// Whether the calendar has the day.
fn is_day(year: u32, month: u32, day: u32) -> bool {
    let part = |number: u32| i8::try_from(number).ok();
    let (Ok(year), Some(month), Some(day)) = (i16::try_from(year), part(month), part(day)) else {
        return false;
    };
    jiff::civil::Date::new(year, month, day).is_ok()
}

/// `YYYY-M-D`, `T` or white space, `H:MM:SS[.FRACTION]`, and perhaps a zone.
pub(super) fn time(text: &str) -> Option<Value> {
    let mut cursor = Cursor(text);
    let before_christ = cursor.skip('-').is_some();
    let year = cursor.digits(4, 4)?;
    cursor.skip('-')?;
    let month = cursor.digits(1, 2)?;
    cursor.skip('-')?;
    let day = cursor.digits(1, 2)?;
    if cursor.skip('T').or_else(|| cursor.skip('t')).is_none() {
        cursor.white()?;
    }
    let hour = cursor.digits(1, 2)?;
    cursor.skip(':')?;
    let minute = cursor.digits(2, 2)?;
    cursor.skip(':')?;
    let second = cursor.digits(2, 2)?;
    let fraction = match cursor.skip('.') {
        Some(()) => cursor.all_digits(),
        None => "",
    };
    // White space stands before a zone only.
    if cursor.white().is_some() && cursor.0.is_empty() {
        return None;
    }
    let zone = zone_of(cursor.0)?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (hour < 24 || (hour == 24 && minute == 0 && second == 0))
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    let sign = if before_christ { "-" } else { "" };
    let nanoseconds = format!("{fraction:0<9}");
    Some(Value::Time(format!(
        "{sign}{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{} {zone}",
        &nanoseconds[..9]
    )))
}

/// The zone as Psych writes it; without one a time is local, which here means UTC.
fn zone_of(text: &str) -> Option<String> {
    match text {
        "Z" => return Some("Z".into()),
        "" => return Some("+00:00".into()),
        _ => {}
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        (sign @ ("-" | "+"), digits) => (sign, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None => (digits, ""),
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = matches!(hours.len(), 1 | 2) && matches!(minutes.len(), 0 | 2);
    (fits && number(hours) && number(minutes)).then(|| format!("{sign}{hours:0>2}:{minutes:0>2}"))
}

/// What is left of a text.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }

    fn white(&mut self) -> Option<()> {
        let rest = self.0.trim_start_matches([' ', '\t', '\r', '\x0c', '\x0b']);
        (rest.len() < self.0.len()).then(|| self.0 = rest)
    }

    fn all_digits(&mut self) -> &'a str {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
    }

    /// As many digits as there are, between two bounds.
    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count().min(most);
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits.parse().ok()
    }
}
