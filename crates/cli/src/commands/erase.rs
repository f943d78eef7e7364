//! `edgekeep erase`: the end of a device, with a receipt.

use std::path::PathBuf;

use boot::driver::SignedReceipt;
use clap::Args;
use host::{Disk, OsDisk};
use serde_json::json;

use super::admin::{self, Place};
use crate::failure::{Code, Failure};

/// Example: edgekeep erase --destroys-all-secrets --receipt /mnt/usb/device-0042.json
#[derive(Args)]
pub(crate) struct Erase {
    /// Says that every secret of this device is given up.
    #[arg(long)]
    destroys_all_secrets: bool,
    /// Where the receipt is written, a new file outside of the data directory; without it, to standard output.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(super) async fn run(erase: Erase) -> Result<(), Failure> {
    if !erase.destroys_all_secrets {
        return Err(Failure::usage("nothing was done: this would destroy all secrets of the running edgekeep")
            .hint("if this is the end of the device, repeat with --destroys-all-secrets"));
    }
    if let Some(path) = &erase.receipt {
        // Before the end, for there is none behind it: the file can be made, and is nobody's.
        OsDisk.write_new(path, b"", 0o600, None).map_err(|e| {
            Failure::usage(format!("nothing was done: {} cannot be made: {e}", path.display())).hint("name a new file")
        })?;
    }
    let asked = admin::ask(&erase.place, "POST", "/admin/erase", Some(&json!({ "destroys_all_secrets": true }))).await;
    let reply = match (asked, &erase.receipt) {
        (Ok(reply), _) => reply,
        (Err(e), Some(path)) => {
            // Empty, so nothing of worth.
            let _ = OsDisk.remove_file(path);
            return Err(e);
        }
        (Err(e), None) => return Err(e),
    };
    let signed: SignedReceipt = serde_json::from_str(&reply)
        .map_err(|e| Failure::fault(format!("edgekeep gives an answer of another version: {e}")))?;
    let text = serde_json::to_string_pretty(&signed).unwrap_or_default();
    match &erase.receipt {
        None => crate::output::line(&text),
        Some(path) => {
            let written = OsDisk.replace(path, text.as_bytes(), 0o600, None);
            if let Err(e) = written {
                crate::output::line(&text);
                let fact = format!("everything is destroyed; the receipt cannot be written to {}: {e}", path.display());
                return Err(Failure::new(Code::Fault, fact).hint("it is on standard output: keep it"));
            }
            crate::output::line(&format!(
                "erased: nothing opens this store any more; the receipt is in {}",
                path.display()
            ));
        }
    }
    Ok(())
}
