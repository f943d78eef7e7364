//! Listeners, HTTP, the one table from error to reply.
