//! How a token or credential reaches its service.
