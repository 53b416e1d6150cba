//! Plans carried out on the model Engine.

mod app;
mod failures;
mod properties;
mod proxy;
mod real;
mod role;
pub(crate) mod world;
