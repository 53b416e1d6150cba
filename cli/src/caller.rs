//! By which name the program was called: `dhow`, or `kamal`, under which it speaks as Kamal does.
//!
//! As `kamal`, an error is one line on standard output, red unless `NO_COLOR` is set, also where it
//! is no terminal: that is what scripts written for Kamal read.

use std::path::Path;

use crate::command::docs::DocsError;
use crate::config::diagnostic::ErrorClass;
use crate::project::ConfigError;
use crate::secrets::SecretError;
use crate::selection::SelectionError;

/// The name, and whether Kamal would colour its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Called by the name `kamal`.
    pub is_kamal: bool,
    /// Errors in red; Kamal writes them so always.
    pub color: bool,
}

impl Caller {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let name = std::env::args_os().next().unwrap_or_default();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stem = Path::new(&name).file_stem();
        Self { is_kamal: stem.is_some_and(|stem| stem == "kamal"), color: !no_color }
    }

    /// An error as Kamal prints it, with its line break.
    #[must_use]
    pub fn kamal_error(self, error: &anyhow::Error) -> String {
        if let Some(ConfigError { problems, .. }) = error.downcast_ref::<ConfigError>() {
            return problems.kamal_error(self.color);
        }
        // Kamal only says so, and thinks that all is well.
        if let Some(DocsError::Unknown { section }) = error.downcast_ref::<DocsError>() {
            return format!("No documentation found for {section}\n");
        }
        let text = format!("ERROR ({}): {error:#}", class(error));
        if self.color { format!("  \u{1b}[31m{text}\u{1b}[0m\n") } else { format!("  {text}\n") }
    }
}

/// The Ruby class that Kamal names; the general one where the error is dhow's own.
fn class(error: &anyhow::Error) -> &'static str {
    if error.is::<SelectionError>() {
        ErrorClass::Argument.as_str()
    } else if error.chain().any(|cause| cause.is::<SecretError>()) {
        ErrorClass::Configuration.as_str()
    } else {
        ErrorClass::Runtime.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_class_that_kamal_names() {
        let caller = Caller { is_kamal: true, color: false };
        let error = SelectionError::NoMatch { kind: "hosts", pattern: "x".into() };
        assert_eq!(
            caller.kamal_error(&error.into()),
            "  ERROR (ArgumentError): No --hosts match for x\n"
        );
        let red = Caller { color: true, ..caller };
        assert_eq!(
            red.kamal_error(&anyhow::anyhow!("no")),
            "  \u{1b}[31mERROR (RuntimeError): no\u{1b}[0m\n"
        );
    }
}
