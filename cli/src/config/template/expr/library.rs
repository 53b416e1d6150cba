//! What `require` can name without effect.

/// Ruby 3.3's standard library, as far as a template has a use for it, in the order of the alphabet.
const LIBRARY: &[&str] = &[
    "English",
    "abbrev",
    "base64",
    "benchmark",
    "bigdecimal",
    "cgi",
    "csv",
    "date",
    "delegate",
    "digest",
    "erb",
    "etc",
    "fileutils",
    "find",
    "forwardable",
    "io",
    "ipaddr",
    "json",
    "logger",
    "monitor",
    "net",
    "open-uri",
    "open3",
    "openssl",
    "optparse",
    "ostruct",
    "pathname",
    "pp",
    "psych",
    "rbconfig",
    "resolv",
    "rubygems",
    "securerandom",
    "set",
    "shellwords",
    "singleton",
    "socket",
    "stringio",
    "strscan",
    "tempfile",
    "time",
    "timeout",
    "tmpdir",
    "uri",
    "weakref",
    "yaml",
    "zlib",
];

/// Whether `name` is of the standard library, or of ActiveSupport, which Kamal brings along and whose
/// `presence` dhow knows.
pub(super) fn is_standard_library(name: &str) -> bool {
    match name.split_once('/') {
        None => LIBRARY.contains(&name) || name == "active_support",
        Some((of, part)) => {
            let is_library = LIBRARY.contains(&of) || of == "active_support";
            is_library && !part.contains("..") && !part.is_empty()
        }
    }
}
