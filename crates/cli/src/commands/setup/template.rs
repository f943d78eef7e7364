//! The text of a first edgekeep.toml: what was found is filled in, what only a person can decide is left open with its
//! reasons.

use std::path::Path;

use super::probe::Findings;

pub(super) fn text(found: &Findings, edgex: Option<&Path>) -> String {
    let mut text = String::from(HEAD);
    let mut put = |part: &str| text.push_str(part);
    put("\n[source]\n");
    // A hook that somebody has set up is a choice; a TPM that happens to be there is an offer.
    match &found.hook {
        None if found.tpm => put(TPM),
        hook => {
            put(
                "# The program that reads this device's key material from its hardware and prints it in hexadecimal.\n",
            );
            if found.tpm {
                put("# A TPM was found at /dev/tpmrm0: with kind = \"tpm\" it needs no program.\n");
            }
            put("kind = \"exec\"\n");
            match hook {
                Some(hook) => put(&format!("path = {}\n", quoted(&hook.display().to_string()))),
                None => put("# path = \"/usr/lib/edgekeep/ikm-hook\"    # required, unless EDGEX_IKM_HOOK names it\n"),
            }
            put(
                "deadline = \"10s\"\n# env = { TPM2TOOLS_TCTI = \"device:/dev/tpmrm0\" }    # all that the program's environment has\n",
            );
        }
    }
    put(RECOVERY);
    put("\n[listen]\n# \"0.0.0.0:8200\" for other machines and containers; \"none\" for Unix sockets alone.\n");
    put("address = \"127.0.0.1:8200\"\nnames = [\"localhost\", \"127.0.0.1\"]\n");
    match edgex {
        Some(dir) => {
            put(
                "\n[edgex]\n# Services, credentials and times to live are taken from EdgeX's own files below this directory.\n",
            );
            put(&format!("config_dir = {}\n", quoted(&dir.display().to_string())));
            if found.edgex_user.is_none() {
                put(
                    "# EDGEX_USER and EDGEX_GROUP in the environment give all tokens to one user, as EdgeX's images do.\n",
                );
            }
        }
        None => put(SERVICES),
    }
    put(GATES);
    text
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

const TPM: &str = "\
# The TPM that was found: the key is of use to this device alone, and only while it boots what it boots today.
kind = \"tpm\"
device = \"/dev/tpmrm0\"
pcrs = [7]                  # 7: secure boot's state and keys; [] if this device measures nothing. See docs/hardware.md
releases_per_boot = 3       # the first, and two for crashes and upgrades; then none until the device restarts
";

const HEAD: &str = "\
# edgekeep.toml, begun by `edgekeep setup`. Every key is described in docs/edgekeep.toml.
# `edgekeep up --check` shows what it comes to, and changes nothing.

profile = \"production\"
# data_dir = \"/var/lib/edgekeep\"
# run_dir = \"/run/edgekeep\"
# preset = \"compose\"    # host names, ports and gates of EdgeX's docker-compose files
";

const RECOVERY: &str = "
[recovery]
# Who can open the store when the hardware is lost. Choose one; nothing is made before.
# age = [\"age1...\"]              # best: sealed to the fleet owner's public key, safe to collect
# out = \"/mnt/usb/recovery.key\"  # a file on another file system
# terminal = true                # shown once
# none = true                    # nobody: losing the hardware loses every secret
";

const SERVICES: &str = "
# One for each service. It reads and writes secret/edgex/<name>/, and its token is in <run_dir>/secrets/<name>/.
[[service]]
name = \"example\"
# uid = 1000
# gid = 1000
";

const GATES: &str = "
# Gates open when what they need is true; `edgekeep wait --gate ready-to-run` waits for one. These two are the usual ones.
[[gate]]
name = \"tokens-ready\"
needs = [\"services\", \"credentials\"]

[[gate]]
name = \"ready-to-run\"
needs = [\"gate:tokens-ready\"]
# probes = [\"tcp:127.0.0.1:5432\"]
";

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Environment, Inputs};
    use host::{Disk, OsDisk};

    fn found(hook: Option<&str>) -> Findings {
        Findings {
            tpm: true,
            card: false,
            hook: hook.map(Into::into),
            run_in_memory: true,
            systemd: true,
            clock: true,
            swap: false,
            edgex_user: None,
        }
    }

    fn faults_of(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("edgekeep.toml");
        OsDisk.write_new(&file, text.as_bytes(), 0o600, None).unwrap();
        let environment = Environment::default();
        let uid = crate::process::uid();
        let inputs = Inputs {
            disk: &OsDisk,
            environment: &environment,
            uid,
            file: &file,
            edgex_dir: None,
            data_dir: None,
            terminal: false,
        };
        config::load(&inputs).err().map(|f| f.to_string()).unwrap_or_default()
    }

    #[test]
    fn only_what_a_person_must_decide_is_left_open() {
        let open = faults_of(&text(&Findings { tpm: false, ..found(None) }, None));
        assert_eq!(open.matches("hint:").count(), 2, "the hook and the recovery: {open}");
        let offered = text(&found(None), None);
        assert_eq!(faults_of(&offered).matches("hint:").count(), 1, "the recovery alone: {offered}");
        assert!(offered.contains("kind = \"tpm\""));
        let hooked = faults_of(&text(&found(Some("/usr/bin/ikm \"x\"")), None));
        assert!(hooked.contains("recovery") && hooked.matches("hint:").count() == 1, "{hooked}");
        let chosen = text(&found(Some("/usr/bin/ikm")), None).replace("# none = true", "none = true");
        assert_eq!(faults_of(&chosen), "");
    }
}
