//! The session against a small controller in this process, over real mutual TLS on loopback.

mod controller;
mod enrolment;
mod streams;
