//! Every HKDF label of this crate, on one screen; docs/formats.md has the same table, and a test compares the two.
//!
//! No label is the beginning of another, and what follows a label has a fixed length, so that two uses can never meet
//! in the same `info` (RFC 5869, 3.2).

/// One use of HKDF-SHA-256.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The text that begins `info`.
    pub text: &'static str,
    /// What follows it in `info`.
    pub then: &'static str,
    /// Bytes asked for.
    pub bytes: usize,
}

/// The key that wraps the root key in one slot. Salt: the slot's.
pub const KEK: Label = Label { text: "edgekeep/v1/kek", then: "store id, slot id", bytes: 32 };
/// What tells a wrong IKM from a damaged slot. Salt: the slot's.
pub const VERIFY: Label = Label { text: "edgekeep/v1/verify", then: "store id, slot id", bytes: 16 };
/// A public name for a recovery key, so that people find the right one. No salt.
pub const RECOVERY_NAME: Label = Label { text: "edgekeep/v1/recovery-name", then: "", bytes: 8 };
/// The check digits of a recovery key's text. No salt.
pub const RECOVERY_CHECK: Label = Label { text: "edgekeep/v1/recovery-check", then: "", bytes: 3 };
/// The user of a login that is computed from the key shares of a store. No salt.
pub const SHARES_NAME: Label = Label { text: "edgekeep/v1/shares-name", then: "", bytes: 8 };
/// Its password. No salt.
pub const SHARES_LOGIN: Label = Label { text: "edgekeep/v1/shares-login", then: "", bytes: 32 };
/// The key that wraps a new store's first root token until that login is there. No salt.
pub const SHARES_ROOT: Label = Label { text: "edgekeep/v1/shares-root", then: "", bytes: 32 };
/// What wraps the key shares of a store that we keep for somebody else. Salt: the slot set's store id; key: the root
/// key.
pub const CUSTODY: Label = Label { text: "edgekeep/v1/custody", then: "", bytes: 32 };
/// What tells the octets of a TPM's index from others that were put in their place. No salt.
pub const TPM_NV_CHECK: Label = Label { text: "edgekeep/v1/tpm-nv-check", then: "", bytes: 16 };
/// The key material of `all`: no salt; each part's octets behind their length, u16, in the order of the slot.
pub const ALL: Label = Label { text: "edgekeep/v1/all", then: "", bytes: 32 };
/// The key that a part of `threshold` seals its share under. Salt: the slot's, random at each provisioning.
pub const THRESHOLD_SHARE: Label = Label { text: "edgekeep/v1/threshold-share", then: "point", bytes: 32 };
/// What tells an escrowed key from any other. No salt.
pub const ESCROW_CHECK: Label = Label { text: "edgekeep/v1/escrow-check", then: "", bytes: 16 };
/// What `edgekeep ikm` prints. Salt: the hook file's.
pub const HOOK_KEY: Label = Label { text: "edgekeep/v1/hook-key", then: "digest", bytes: 32 };
/// What tells a wrong IKM from a changed hook file. Salt: the hook file's.
pub const HOOK_VERIFY: Label = Label { text: "edgekeep/v1/hook-verify", then: "digest", bytes: 16 };
/// EdgeX's key for share N, from version 4.0 on. Salt: `kdf-salt.dat`.
pub const EDGEX_V4: Label = Label { text: "secretstore", then: "share index, decimal", bytes: 32 };
/// EdgeX's key for share N, versions 1.3 to 3.1. Salt: `kdf-salt.dat`.
pub const EDGEX_V1: Label = Label { text: "vault", then: "share index, decimal", bytes: 32 };

/// All of them.
pub const TABLE: [Label; 16] = [
    KEK,
    VERIFY,
    RECOVERY_NAME,
    RECOVERY_CHECK,
    SHARES_NAME,
    SHARES_LOGIN,
    SHARES_ROOT,
    CUSTODY,
    TPM_NV_CHECK,
    ALL,
    THRESHOLD_SHARE,
    ESCROW_CHECK,
    HOOK_KEY,
    HOOK_VERIFY,
    EDGEX_V4,
    EDGEX_V1,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table below "## HKDF labels", as (label, bytes, crate).
    fn documented() -> Vec<(String, String, String)> {
        let docs = include_str!("../../../docs/formats.md");
        let section = docs.split("\n## HKDF labels").nth(1).expect("the section is there");
        let section = section.split("\n## ").next().unwrap();
        section
            .lines()
            .filter(|l| l.starts_with("| `"))
            .map(|l| {
                let cells: Vec<&str> = l.trim_matches('|').split('|').map(str::trim).collect();
                let label = cells[0].trim_matches('`').trim_end_matches("<N>");
                (label.to_owned(), cells[2].to_owned(), cells[4].trim_matches('`').to_owned())
            })
            .collect()
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let mut here: Vec<_> = TABLE.iter().map(|l| (l.text.to_owned(), l.bytes.to_string())).collect();
        let mut there: Vec<_> =
            documented().into_iter().filter(|r| r.2 == "seal").map(|(label, bytes, _)| (label, bytes)).collect();
        here.sort();
        there.sort();
        assert_eq!(here, there);
    }

    #[test]
    fn no_label_begins_another() {
        let all: Vec<String> = documented().into_iter().map(|r| r.0).collect();
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert!(i == j || !a.starts_with(b.as_str()), "{b} begins {a}");
            }
        }
    }
}
