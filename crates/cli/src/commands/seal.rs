//! `edgekeep seal`: drops the keys of the running edgekeep. Its commands see to the keys that a store is sealed by.

use clap::{Args, Subcommand};

use super::{admin, on_runtime, slots};
use crate::edgex::Where;
use crate::failure::{Code, Failure};

/// Example: edgekeep seal
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Seal {
    #[command(subcommand)]
    command: Option<SealCommand>,
    #[command(flatten)]
    place: admin::Place,
}

#[derive(Subcommand)]
enum SealCommand {
    /// Who can open the store: list, add, remove, test, predict and reseal key slots, while it is open.
    #[command(subcommand)]
    Slots(slots::Slots),
    /// Say that an update has held: key slots for the images before the one that runs go.
    Commit(slots::Commit),
    /// Wrap the key shares of EdgeX's Vault or OpenBao (resp-init.json) under the hook, and have the store replace
    /// those that lay in clear.
    EncryptExisting(EncryptExisting),
    /// Put the key shares of EdgeX's Vault or OpenBao back in clear, for a set-up without a hook.
    DecryptExisting(DecryptExisting),
}

/// Example: EDGEX_IKM_HOOK=/usr/bin/ikm edgekeep seal encrypt-existing --configDir res
#[derive(Args)]
struct EncryptExisting {
    #[command(flatten)]
    at: Where,
    /// The hook whose key material the shares are wrapped under until now, where it was replaced.
    #[arg(long, value_name = "PROGRAM")]
    former_hook: Option<String>,
}

/// Example: EDGEX_IKM_HOOK=/usr/bin/ikm edgekeep seal decrypt-existing --configDir res --yes-plaintext
#[derive(Args)]
struct DecryptExisting {
    #[command(flatten)]
    at: Where,
    /// Says, where nobody can be asked, that the shares are to lie in clear.
    #[arg(long)]
    yes_plaintext: bool,
}

pub(super) fn run(seal: Seal) -> Result<(), Failure> {
    match seal.command {
        None => on_runtime(admin::seal(&seal.place)),
        Some(SealCommand::Slots(slots)) => on_runtime(slots::run(slots)),
        Some(SealCommand::Commit(commit)) => on_runtime(slots::commit(commit)),
        Some(SealCommand::EncryptExisting(encrypt)) => {
            crate::edgex::encrypt_existing(&encrypt.at, encrypt.former_hook.as_deref())
        }
        Some(SealCommand::DecryptExisting(decrypt)) => {
            if !decrypt.yes_plaintext {
                ask()?;
            }
            crate::edgex::decrypt_existing(&decrypt.at)
        }
    }
}

/// Only a person, or a flag that names what it does, takes the protection away.
fn ask() -> Result<(), Failure> {
    if !crate::output::is_terminal() {
        return Err(Failure::new(Code::Refused, "nothing was done: the key shares would lie in clear on the disk")
            .hint("run it at a terminal, or say --yes-plaintext"));
    }
    crate::output::prompt("Whoever reads the file then opens the store. Type PLAINTEXT to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::fault(format!("nothing could be read: {e}")))?;
    match answer.trim() {
        "PLAINTEXT" => Ok(()),
        _ => Err(Failure::new(Code::Refused, "nothing was done")),
    }
}
