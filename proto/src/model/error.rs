//! Why a message or document was refused, with the path of the field.

use std::fmt;

/// A field that does not hold what its rule asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FieldError {
    /// Dotted path from the outermost message, list items as `name[3]`.
    pub path: String,
    /// What is wrong, lowercase, without the path. Never holds the value of a secret.
    pub problem: String,
}

impl FieldError {
    /// A problem with the field at hand, to be placed with [`FieldError::under`].
    pub fn new(path: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { path: path.into(), problem: problem.to_string() }
    }

    /// A message field that must be set and is not.
    pub fn missing(path: impl Into<String>) -> Self {
        Self::new(path, "is missing")
    }

    /// The same problem seen from the message around it.
    #[must_use]
    pub fn under(mut self, parent: impl fmt::Display) -> Self {
        self.path = match self.path.as_str() {
            "" => parent.to_string(),
            path if path.starts_with('[') => format!("{parent}{path}"),
            path => format!("{parent}.{path}"),
        };
        self
    }
}

/// Places a problem under the field it was found in.
pub trait At<T> {
    /// Adds `field` in front of the error's path.
    ///
    /// # Errors
    ///
    /// The same error, its path longer by `field`.
    fn at(self, field: impl fmt::Display) -> Result<T, FieldError>;
}

impl<T, E: Into<FieldError>> At<T> for Result<T, E> {
    fn at(self, field: impl fmt::Display) -> Result<T, FieldError> {
        self.map_err(|e| e.into().under(field))
    }
}

/// Requires an optional message field.
///
/// # Errors
///
/// [`FieldError::missing`] under `field`.
pub fn required<T>(value: Option<T>, field: &str) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::missing(field))
}

/// Converts every item of a repeated field; an error names the index.
///
/// # Errors
///
/// The first item's error, its path beginning `field[index]`.
pub fn each<W, T, E: Into<FieldError>>(
    items: impl IntoIterator<Item = W>,
    field: &str,
    convert: impl Fn(W) -> Result<T, E>,
) -> Result<Vec<T>, FieldError> {
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| convert(item).at(format!("{field}[{i}]")))
        .collect()
}
