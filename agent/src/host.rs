//! Files of Kamal's on the host: where they are, and what is kept about them.
//!
//! In: an intent's host part. Out: absolute paths, and file contents laid out as Kamal does.
//! Always true: files with secrets are 0600, files in a user's home belong to that user, and no path leaves
//! the run directory because of a name (names are checked before they come here).

mod layout;
mod marks;

pub use layout::{AssetKind, Homes, Layout, LayoutError, Owner};
pub use marks::Marks;
