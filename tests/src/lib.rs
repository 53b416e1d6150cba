//! Part of dhow.
