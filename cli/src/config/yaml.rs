//! YAML as Ruby reads it, with positions.
//!
//! In: text. Out: a [`Node`] tree whose scalars carry the types Ruby's Psych would give them, and
//! the place in the file of each node. Always true: size, depth and alias expansion are bounded, so
//! that no input makes reading slow or large; and [`emit`](emit::emit) writes what Psych writes.
//!
//! libyaml-safer gives the events: it is a port of libyaml, which Psych itself uses, so grammar and
//! emitter (with its folding at 80 columns) are the same as Ruby's.

pub mod emit;
mod guard;
pub mod node;
pub mod read;
pub mod scalar;
mod source_map;

pub use node::{Entry, Map, Node, NodeId, Span, Value};
pub use read::{ReadError, Surprise, read};
pub use source_map::SourceMap;
