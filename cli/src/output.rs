//! What people and programs read: progress, tables, JSON, errors.

pub mod event;
pub mod progress;
pub mod status;
pub mod style;
pub mod table;
