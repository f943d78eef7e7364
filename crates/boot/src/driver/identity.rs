//! Which machine this is: a store remembers under the barrier where it was made, so that an image captured after the
//! first boot is noticed on every machine but one.
//!
//! ```text
//! hardware   /sys/class/dmi/id/product_uuid, or /proc/device-tree/serial-number     decides where it was and is readable
//! system     /etc/machine-id                                                        else
//! ```
//! Not a secret and no proof: whoever controls a machine writes these as he likes. It finds the slip of a golden image;
//! against a thief stands the key source. So a source that is bound to its device settles it, and so does the recovery
//! key; what cannot be read is warned of, and no reason to stay sealed.

use std::path::Path;

use host::Disk;
use secret::{SecretBytes, crypto};
use serde::{Deserialize, Serialize};
use store::{Batch, Op, Store, StorePath};

/// Codes of what a machine says of itself, 64 hexadecimal digits each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineId {
    format: u8,
    /// Of the board.
    pub hardware: Option<String>,
    /// Of the installed system.
    pub system: Option<String>,
}

/// What a store says of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    This,
    Another,
    /// Nothing that both have.
    Unknown,
}

impl MachineId {
    /// As the files below `root` have it; `root` is `/`, but for tests.
    pub fn read(disk: &dyn Disk, root: &Path) -> Self {
        let text = |path: &str| {
            let bytes = disk.read(&root.join(path), MAX_BYTES).ok()?;
            let text = String::from_utf8(bytes.to_vec()).ok()?;
            let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_ascii_lowercase();
            says_something(&text).then_some(text)
        };
        let code = |kind: &str, text: String| {
            hex::encode(crypto::sha256(&[b"edgekeep/v1/machine/", kind.as_bytes(), &[0], text.as_bytes()]))
        };
        let hardware = HARDWARE.iter().find_map(|path| text(path));
        Self {
            format: FORMAT,
            hardware: hardware.map(|text| code("hardware", text)),
            system: text("etc/machine-id").map(|text| code("system", text)),
        }
    }

    fn is_that_of(&self, kept: &Self) -> Whose {
        let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) if a == b => Whose::This,
            (Some(_), Some(_)) => Whose::Another,
            _ => Whose::Unknown,
        };
        match same(&self.hardware, &kept.hardware) {
            Whose::Unknown => same(&self.system, &kept.system),
            decided => decided,
        }
    }
}

/// Whose machine the store was made on. A store that does not know yet is told that it is this one.
///
/// # Errors
/// If the store cannot be read or written.
pub(super) async fn check(store: &Store, now: &MachineId) -> Result<Whose, store::CommitError> {
    let kept = store.get(&path()).await.map_err(|e| store::CommitError::OutcomeUnknown(std::io::Error::other(e)))?;
    match kept.map(|entry| serde_json::from_slice::<MachineId>(entry.value.expose())) {
        Some(Ok(kept)) if kept.format == FORMAT => Ok(now.is_that_of(&kept)),
        // Of a later version, or none yet: bound from here on.
        _ => bind(store, now).await.map(|()| Whose::This),
    }
}

/// From now on the store is this machine's.
pub(super) async fn bind(store: &Store, now: &MachineId) -> Result<(), store::CommitError> {
    let text = serde_json::to_vec(now).expect("three plain fields are JSON");
    let ops = vec![Op::Put(path(), SecretBytes::new(text))];
    store.commit(Batch { conds: Vec::new(), ops }).await.map(drop)
}

fn path() -> StorePath {
    StorePath::new(["boot", "machine"]).expect("two short words are a path")
}

/// What vendors and installers write where nothing was written.
fn says_something(text: &str) -> bool {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let alike = digits.windows(2).all(|w| w[0] == w[1]);
    digits.len() >= 8 && !alike && !["uninitialized", "03000200-0400-0500-0006-000700080009"].contains(&text)
}

const FORMAT: u8 = 1;
const MAX_BYTES: usize = 4096;
const HARDWARE: [&str; 2] = ["sys/class/dmi/id/product_uuid", "proc/device-tree/serial-number"];

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> MachineId {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            OsDisk.write_new(&path, text.as_bytes(), 0o644, None).unwrap();
        }
        MachineId::read(&OsDisk, root.path())
    }

    const BOARD: &str = "sys/class/dmi/id/product_uuid";
    const TREE: &str = "proc/device-tree/serial-number";
    const SYSTEM: &str = "etc/machine-id";

    #[test]
    fn the_board_decides_where_both_have_one_and_the_system_else() {
        let both = machine(&[(BOARD, "4C4C4544-0042-3510\n"), (SYSTEM, "aaaabbbbcccc0001\n")]);
        let same_board = machine(&[(BOARD, "4c4c4544-0042-3510"), (SYSTEM, "aaaabbbbcccc0002\n")]);
        let other_board = machine(&[(BOARD, "4c4c4544-0042-3511"), (SYSTEM, "aaaabbbbcccc0001\n")]);
        let system_alone = machine(&[(SYSTEM, "aaaabbbbcccc0001")]);
        let other_system = machine(&[(SYSTEM, "aaaabbbbcccc0003")]);
        assert_eq!(same_board.is_that_of(&both), Whose::This, "a new image of the system on the same board");
        assert_eq!(other_board.is_that_of(&both), Whose::Another);
        assert_eq!(system_alone.is_that_of(&both), Whose::This);
        assert_eq!(other_system.is_that_of(&both), Whose::Another);
        assert_eq!(machine(&[]).is_that_of(&both), Whose::Unknown);
        assert_eq!(machine(&[(TREE, "1000000012345678\0")]).is_that_of(&system_alone), Whose::Unknown);
    }

    #[test]
    fn what_says_nothing_is_no_name() {
        for nothing in
            ["", "\n", "uninitialized\n", "00000000-0000-0000-0000-000000000000", "FFFFFFFFFFFF", "0", "\0\0"]
        {
            assert_eq!(machine(&[(BOARD, nothing), (SYSTEM, nothing)]), machine(&[]), "{nothing:?}");
        }
        assert!(machine(&[(BOARD, "To Be Filled"), (TREE, "1000000012345678")]).hardware.is_some());
    }
}
