//! The program `dhow-agent`.

fn main() {}
