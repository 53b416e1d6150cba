//! Files of Kamal's on the host: where they are, and what is kept about them.
//!
//! In: an intent's host part. Out: absolute paths, and file contents laid out as Kamal does.
//! Always true: files with secrets are 0600, files in a user's home belong to that user, and no path leaves
//! the run directory because of a name (names are checked before they come here).

mod assets;
mod audit;
mod env;
mod files;
mod layout;
mod leftovers;
mod lock;
mod marks;
mod memory;

pub(crate) use assets::{bridge, extract};
pub(crate) use audit::{About, Line, append, foreign_line};
pub(crate) use env::{env_file, kamal_escaped};
pub(crate) use files::{
    create_dirs, exists, is_written, names_in, read_text, remove_file, remove_tree, write,
};
pub use layout::{AssetKind, Homes, Layout, LayoutError, Owner};
pub(crate) use leftovers::{sweep_directory, sweep_tree};
pub(crate) use lock::{details, read as read_lock, release as release_lock, take as take_lock};
pub use marks::Marks;
pub(crate) use memory::{AppMemory, Memory};
