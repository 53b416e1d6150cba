//! The table of keys in the documentation.
