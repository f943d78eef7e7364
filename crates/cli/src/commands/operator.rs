//! `edgekeep operator`: what takes the recovery key of an open store. In the habit of `vault operator`, but at the
//! admin socket, and with one key: the shares of that habit belong to stores that people unseal.

use std::path::PathBuf;

use api::Ttl;
use clap::{Args, Subcommand};
use serde::Deserialize;
use zeroize::Zeroize;

use super::admin;
use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum Operator {
    /// Print a root token that ends by itself. The recovery key is replaced by its use.
    GenerateRoot(GenerateRoot),
    /// Replace the recovery key.
    Rekey(Rekey),
}

/// Example: edgekeep operator generate-root --key-file - --ttl 10m
#[derive(Args)]
pub(crate) struct GenerateRoot {
    /// How long it lives: up to 24h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl_of_root)]
    ttl: Ttl,
    #[command(flatten)]
    owner: Owner,
}

fn ttl_of_root(text: &str) -> Result<Ttl, String> {
    let ttl = Ttl::parse(text).map_err(|e| e.to_string())?;
    let asked = ttl.as_seconds();
    let fits = (1..=86_400).contains(&asked);
    if fits { Ok(ttl) } else { Err(format!("a root token lives 1 s to 24 h, not {asked} s")) }
}

/// Example: edgekeep operator rekey --key-file /mnt/usb/recovery.key
#[derive(Args)]
pub(crate) struct Rekey {
    #[command(flatten)]
    owner: Owner,
}

#[derive(Args)]
struct Owner {
    /// The file with the recovery key; - reads standard input.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    #[command(flatten)]
    place: admin::Place,
}

/// Only the token goes to standard output, so that it can be caught in a variable.
pub(super) async fn run(operator: Operator) -> Result<(), Failure> {
    match operator {
        Operator::GenerateRoot(GenerateRoot { ttl, owner: Owner { key_file, place } }) => {
            let key = admin::read_key(&key_file)?;
            let (socket, body) = (place.socket(), admin::with_key(&key, &format!(",\"ttl\":{}", ttl.as_seconds())));
            let reply = admin::exchange(&socket, "POST", "/admin/generate-root", Some(&body)).await?;
            let made: Made = serde_json::from_str(&reply)
                .map_err(|_| Failure::fault("edgekeep gives an answer of another version"))?;
            crate::output::line(&made.token);
            admin::settle(&socket, &admin::with_key(&key, ""), &reply, crate::output::error).await;
        }
        Operator::Rekey(Rekey { owner: Owner { key_file, place } }) => {
            let key = admin::read_key(&key_file)?;
            let (socket, body) = (place.socket(), admin::with_key(&key, ""));
            let reply = admin::exchange(&socket, "POST", "/admin/rekey", Some(&body)).await?;
            admin::settle(&socket, &body, &reply, crate::output::line).await;
        }
    }
    Ok(())
}

/// Wiped when it was printed.
#[derive(Deserialize)]
struct Made {
    token: String,
}

impl Drop for Made {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}
