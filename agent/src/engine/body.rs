//! The body of `POST /containers/create`: it holds environment values, so it never shows itself.

use std::fmt;

use serde_json::Value;

/// Docker's create body as JSON. `Debug` shows nothing of it.
#[derive(Clone, PartialEq)]
pub struct ContainerBody(Value);

impl ContainerBody {
    /// Wraps a body.
    pub fn new(body: Value) -> Self {
        Self(body)
    }

    /// For the Engine only.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for ContainerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerBody(…)")
    }
}
