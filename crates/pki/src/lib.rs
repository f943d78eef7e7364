//! X.509 as pure functions.
