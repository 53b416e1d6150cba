//! One JSON object a line on stdout, like Go's slog.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

static DEBUG: AtomicBool = AtomicBool::new(false);

/// Lets debug lines through.
pub(crate) fn enable_debug() {
    DEBUG.store(true, Ordering::Relaxed);
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Error,
}

pub(crate) fn info(msg: &str, fields: Value) {
    write(Level::Info, msg, fields);
}

/// Writes a line; `fields` is an object.
pub(crate) fn write(level: Level, msg: &str, fields: Value) {
    let level = match level {
        Level::Debug if !DEBUG.load(Ordering::Relaxed) => return,
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Error => "ERROR",
    };
    let mut line = Map::new();
    line.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
    line.insert("level".to_owned(), level.into());
    line.insert("msg".to_owned(), msg.into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    // One write a line, so that lines of two threads do not mix; nobody to tell if stdout is gone.
    let _ = std::io::stdout().lock().write_all(format!("{}\n", Value::Object(line)).as_bytes());
}
