//! An adapter for trying things out: each value is its name, backwards.

use secrecy::SecretString;

use super::{Adapter, Call, FetchError, Found, Invocation};

pub(super) struct Test;

impl Adapter for Test {
    fn needs_account(&self) -> bool {
        true
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        None
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let reversed = |name: String| {
            let value = name.replace("LPAREN", "(").replace("RPAREN", ")");
            let value: String = value.chars().rev().collect();
            (name, SecretString::from(value))
        };
        Ok(call.prefixed().into_iter().map(reversed).collect())
    }
}
