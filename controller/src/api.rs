//! The services for people and for enrolment: authorise, convert, call one room, convert back.

pub mod audit;
pub mod authorise;
pub mod caller;
mod code;
mod control;
mod deploy;
mod enrol;
mod query;

pub use control::ControlApi;
pub use enrol::EnrolmentApi;
