//! Command lines as Go's pflag and cobra read them: flags anywhere, `--flag value` and
//! `--flag=value`, booleans only with `=`.

use std::collections::BTreeMap;

use crate::duration;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Duration,
    Text,
    List,
}

/// A flag a command knows, by its name without dashes.
pub(crate) type Spec = (&'static str, Kind);

#[derive(Clone, Debug)]
enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<String>),
}

/// A command line after parsing; the values that were not given have the caller's defaults.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    values: BTreeMap<&'static str, Value>,
    /// What is not a flag, in order.
    pub(crate) args: Vec<String>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
}

impl Parsed {
    /// Reads `words` by `specs`.
    pub(crate) fn read(specs: &[Spec], words: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.args.extend(words.by_ref().cloned());
            } else if word == "--help" || word == "-h" {
                parsed.help = true;
            } else if let Some(flag) = word.strip_prefix("--") {
                let (name, given) = match flag.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (flag, None),
                };
                let Some(&(name, kind)) = specs.iter().find(|(known, _)| *known == name) else {
                    return Err(format!("unknown flag: --{name}"));
                };
                let text = match (given, kind) {
                    (Some(text), _) => text,
                    (None, Kind::Bool) => "true",
                    (None, _) => {
                        words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?
                    }
                };
                parsed.set(name, kind, text)?;
            } else if word.len() > 1 && word.starts_with('-') {
                let letter = word.chars().nth(1).unwrap_or('-');
                return Err(format!("unknown shorthand flag: '{letter}' in {word}"));
            } else {
                parsed.args.push(word.clone());
            }
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &'static str, kind: Kind, text: &str) -> Result<(), String> {
        let value = match kind {
            Kind::Bool => read_bool(text).map(Value::Bool),
            Kind::Int => read_int(text).map(Value::Int),
            Kind::Duration => duration::parse(text).map(Value::Int),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::List => {
                let mut list = self.list(name);
                if !text.is_empty() {
                    list.extend(text.split(',').map(str::to_owned));
                }
                Ok(Value::List(list))
            }
        };
        let value = value
            .map_err(|why| format!("invalid argument {text:?} for \"--{name}\" flag: {why}"))?;
        self.values.insert(name, value);
        Ok(())
    }

    /// Whether the flag was on the command line.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn bool(&self, name: &str, default: bool) -> bool {
        if let Some(Value::Bool(value)) = self.values.get(name) { *value } else { default }
    }

    /// An integer, or a duration in nanoseconds.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        if let Some(Value::Int(value)) = self.values.get(name) { *value } else { default }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        if let Some(Value::Text(value)) = self.values.get(name) {
            value.clone()
        } else {
            String::new()
        }
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        if let Some(Value::List(value)) = self.values.get(name) {
            value.clone()
        } else {
            Vec::new()
        }
    }

    /// The only argument, as cobra's `ExactArgs(1)` demands.
    pub(crate) fn only_arg(&self) -> Result<String, String> {
        match self.args.as_slice() {
            [only] => Ok(only.clone()),
            args => Err(format!("accepts 1 arg(s), received {}", args.len())),
        }
    }
}

/// As Go's `ParseInt` with base 0: `0x10`, `0b1`, `0o7`, `010` and `1_000` are numbers too.
fn read_int(text: &str) -> Result<i64, String> {
    let invalid = || format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(invalid());
    }
    let out_of_range = || format!("strconv.ParseInt: parsing {text:?}: value out of range");
    let value = i128::from_str_radix(&digits, base).map_err(|_| out_of_range())?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| out_of_range())
}

fn read_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec] = &[
        ("tls", Kind::Bool),
        ("percent", Kind::Int),
        ("host", Kind::List),
        ("deploy-timeout", Kind::Duration),
    ];

    fn read(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Parsed::read(SPECS, &words)
    }

    #[test]
    fn flags_may_stand_before_and_after_the_argument() {
        let parsed = read("--host a,b web --tls=f --host=c --deploy-timeout 1m").unwrap();
        assert_eq!(parsed.only_arg().unwrap(), "web");
        assert_eq!(parsed.list("host"), ["a", "b", "c"]);
        assert!(!parsed.bool("tls", true));
        assert_eq!(parsed.int("deploy-timeout", 0), 60_000_000_000);
    }

    #[test]
    fn a_boolean_takes_no_second_word() {
        assert_eq!(read("--tls false").unwrap().args, ["false"]);
        assert!(read("--tls false").unwrap().bool("tls", false));
    }

    #[test]
    fn integers_are_read_in_the_base_they_are_written_in() {
        for (text, value) in [("8080", 8080), ("-1", -1), ("0x10", 16), ("010", 8), ("1_000", 1000)]
        {
            assert_eq!(read(&format!("--percent {text}")).unwrap().int("percent", 7), value);
        }
        let why = |text: &str| read(&format!("--percent={text}")).unwrap_err();
        assert_eq!(
            why("ten"),
            "invalid argument \"ten\" for \"--percent\" flag: strconv.ParseInt: parsing \"ten\": invalid syntax"
        );
        assert!(why("99999999999999999999").ends_with("value out of range"));
    }

    #[test]
    fn errors_are_worded_as_in_go() {
        let why = |line: &str| read(line).unwrap_err();
        assert_eq!(why("--x"), "unknown flag: --x");
        assert_eq!(why("--host"), "flag needs an argument: --host");
        assert_eq!(
            why("--deploy-timeout 30"),
            "invalid argument \"30\" for \"--deploy-timeout\" flag: time: missing unit in duration \"30\""
        );
    }
}
