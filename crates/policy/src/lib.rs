//! The policy language: text in, compiled rules in, decision out.
