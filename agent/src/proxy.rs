//! kamal-proxy: its boot, its command line, what it prints.
//!
//! In: templates and kamal-proxy's output. Out: argument lists, create bodies and parsed routes. Pure.
//! Always true: arguments are an array, never a shell line; a table that does not parse is an error, not an empty one.

mod boot;
mod list;

pub use boot::{BootFiles, ProxyBoot, PublishedPort};
pub use list::{ListError, Route, RouteState, parse_list};
