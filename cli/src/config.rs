//! `deploy.yml` to spec, or errors with file, line, column and hint.
//!
//! In: the files that Kamal 2 reads. Out: a typed [`Config`](model::Config), and from it the spec
//! that a controller rolls out. Always true: what Kamal reads is read with Kamal's meaning, the
//! first problem reported is the one Kamal reports, and no input makes this room panic.
//!
//! ```text
//! file ─▶ template ─▶ yaml ─▶ merge ─▶ validate ─▶ model ─▶ compile ─▶ Spec
//! ```
//!
//! Everything is pure but [`outside`], which reads files and runs the commands a file names.

pub mod compile;
pub mod diagnostic;
pub mod kamal_output;
pub mod load;
pub(crate) mod made;
mod merge;
pub mod model;
pub mod outside;
pub mod schema;
pub mod source;
pub mod template;
pub(crate) mod validate;
pub mod version;
pub mod yaml;

pub use compile::{CompileInput, Compiled};
pub use diagnostic::{Code, Diagnostic, Diagnostics};
pub use load::{LoadOptions, Loaded, alias, is_transitional, load};
pub use outside::{Outside, SystemOutside};
