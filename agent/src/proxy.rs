//! kamal-proxy: its boot, its command line, what it prints.
//!
//! In: templates and kamal-proxy's output. Out: argument lists, create bodies and parsed routes. Pure.
//! Always true: arguments are an array, never a shell line; a table that does not parse is an error, not an empty one.

mod argv;
mod boot;
mod flags;
mod list;

pub use argv::{deploy, is_change_of, is_deploy_of, list, remove, resume, stop};
pub(crate) use boot::merge;
pub use boot::{BootFiles, ProxyBoot, ProxyOptions, PublishedPort};
pub use flags::FlagError;
pub use list::{ListError, Route, RouteState, parse_list};
