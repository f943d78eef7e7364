//! The executable `edgekeep`.
fn main() {}
