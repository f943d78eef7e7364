//! Requests and replies of the engines, over a real store in a scratch directory: statuses and bodies as OpenBao 2.7.2
//! gave them to the same requests.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cert;
mod house;
mod identity;
mod kv;
mod oidc;
mod userpass;
