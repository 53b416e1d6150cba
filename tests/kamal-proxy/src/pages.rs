//! The pages the proxy answers with when it has no answer of an app.

use std::collections::BTreeMap;
use std::path::Path;

/// A service's own pages: templates by status, held in memory from deploy to restart.
#[derive(Debug)]
pub(crate) struct ErrorPages(BTreeMap<u16, Vec<Part>>);

/// A piece of a template; only what `503.html` may use is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Message,
    IfMessage,
    Else,
    End,
}

impl ErrorPages {
    /// Reads every `STATUS.html` of a directory.
    ///
    /// Fails when there is none, one cannot be read, or one is not a template.
    pub(crate) fn load(dir: &Path) -> Result<Self, String> {
        const FAILED: &str = "unable to load error pages";
        let mut pages = BTreeMap::new();
        let mut any = false;
        for entry in std::fs::read_dir(dir).map_err(|_| FAILED)? {
            let path = entry.map_err(|_| FAILED)?.path();
            if path.extension().is_none_or(|extension| extension != "html") {
                continue;
            }
            any = true;
            let text = std::fs::read_to_string(&path).map_err(|_| FAILED)?;
            let parts = parse(&text).ok_or(FAILED)?;
            let status =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(status) = status {
                pages.insert(status, parts);
            }
        }
        if any { Ok(Self(pages)) } else { Err(FAILED.to_owned()) }
    }

    /// The page for `status`, with `message` in its place, or `None` if there is none.
    pub(crate) fn render(&self, status: u16, message: &str) -> Option<String> {
        let message = escape(message);
        let mut shown = true;
        let mut page = String::new();
        for part in self.0.get(&status)? {
            match part {
                Part::IfMessage => shown = !message.is_empty(),
                Part::Else => shown = !shown,
                Part::End => shown = true,
                Part::Text(text) if shown => page.push_str(text),
                Part::Message if shown => page.push_str(&message),
                Part::Text(_) | Part::Message => {}
            }
        }
        Some(page)
    }
}

/// The page that stands for a missing own one.
pub(crate) fn built_in(status: u16, message: &str) -> String {
    let title = match status {
        404 => "Not Found",
        413 => "Request Too Large",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Timeout",
        other => return format!("<h1>{other} {}</h1>", reason(other)),
    };
    let message =
        if message.is_empty() { String::new() } else { format!("\n<p>{}</p>", escape(message)) };
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>{title} ({status})</title></head>\n<body>\n<h1>{status}</h1>\n<p>{title}</p>{message}\n</body>\n</html>\n"
    )
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

/// As Go's html/template escapes text.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '+' => escaped.push_str("&#43;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn parse(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let (mut rest, mut open) = (text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        parts.push(Part::Text(before.to_owned()));
        let (action, next) = after.split_once("}}")?;
        match action.trim_matches('-').trim() {
            ".Message" => parts.push(Part::Message),
            "if .Message" if !open => {
                open = true;
                parts.push(Part::IfMessage);
            }
            "else" if open => parts.push(Part::Else),
            "end" if open => {
                open = false;
                parts.push(Part::End);
            }
            comment if comment.starts_with("/*") && comment.ends_with("*/") => {}
            _ => return None,
        }
        rest = next;
    }
    parts.push(Part::Text(rest.to_owned()));
    (!open).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, message: &str) -> Option<String> {
        ErrorPages(BTreeMap::from([(503, parse(template)?)])).render(503, message)
    }

    #[test]
    fn the_message_is_escaped() {
        assert_eq!(render("a {{ .Message }} b", "<b>").unwrap(), "a &lt;b&gt; b");
        assert!(built_in(503, "<b>").contains("&lt;b&gt;"));
    }

    #[test]
    fn a_condition_on_the_message_is_understood() {
        let template = "{{ if .Message }}[{{.Message}}]{{ else }}none{{ end }}!";
        assert_eq!(render(template, "x").unwrap(), "[x]!");
        assert_eq!(render(template, "").unwrap(), "none!");
    }

    #[test]
    fn a_broken_template_is_refused() {
        assert!(parse("{{ .Message").is_none());
        assert!(parse("{{ nonsense }}").is_none());
        assert!(parse("{{ if .Message }}").is_none());
    }
}
