//! A host's state as text.
