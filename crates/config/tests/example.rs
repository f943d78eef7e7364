//! docs/edgekeep.toml is what people copy from: it must have no fault, and it must not leave out a key.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use boot::plan::RecoverySpec;
use config::{Config, Environment, Faults, Inputs};
use host::{Disk, OsDisk};

const EXAMPLE: &str = include_str!("../../../docs/edgekeep.toml");

fn load(text: &str, environment: &Environment) -> Result<Config, Faults> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edgekeep.toml");
    OsDisk.write_new(&file, text.as_bytes(), 0o600, None).unwrap();
    let uid = OsDisk.meta(&file).unwrap().unwrap().owner.uid;
    config::load(&Inputs {
        disk: &OsDisk,
        environment,
        uid,
        file: &file,
        edgex_dir: None,
        data_dir: None,
        terminal: false,
    })
}

#[test]
fn the_documented_example_has_no_fault() {
    let plan = load(EXAMPLE, &Environment::default()).unwrap().plan;
    assert!(matches!(plan.recovery, Some(RecoverySpec::Age(_))));
    assert_eq!((plan.services.len(), plan.credentials.len(), plan.gates.len()), (2, 2, 2));
    assert_eq!(plan.data_dir, Path::new("/var/lib/edgekeep"));
}

/// The faults for an unknown key list the keys that are known: each of them stands in the example.
#[test]
fn the_example_leaves_no_key_out() {
    let sections = [
        "",
        "[store]",
        "[store.approle]",
        "[source]",
        "[recovery]",
        "[listen]",
        "[audit]",
        "[delivery]",
        "[edgex]",
        "[[service]]",
        "[[credential]]",
        "[[gate]]",
    ];
    for section in sections {
        let text = format!("{section}\nzzzzzzzzzzzzzzz = 1\nkind = \"exec\"\n");
        let faults = load(&text, &Environment::default()).unwrap_err();
        let known = faults
            .as_slice()
            .iter()
            .find(|f| f.what.contains("zzzz"))
            .and_then(|f| f.remedy.split_once("known are "))
            .map(|(_, known)| known.to_owned())
            // A credential of an unknown kind is not read further: its keys are listed here.
            .unwrap_or_else(|| "kind, services, name, user, source".to_owned());
        for key in known.split(", ") {
            let written = [format!("{key} = "), format!("[{key}]")].iter().any(|form| EXAMPLE.contains(form.as_str()));
            assert!(written, "{section} has {key}, which docs/edgekeep.toml does not show");
        }
    }
}

#[test]
fn variables_override_the_file() {
    let environment = Environment::of([
        ("EDGEKEEP_DATA_DIR", "/mnt/store"),
        ("EDGEKEEP_LISTEN_NAMES", "a.example, 10.0.0.1"),
        ("EDGEKEEP_AUDIT_SEGMENTS", "16"),
        ("EDGEKEEP_DELIVERY_DANGER_TOKENS_ON_DISK", "true"),
        ("EDGEKEEP_SOURCE_DEADLINE", "30s"),
    ]);
    let plan = load(EXAMPLE, &environment).unwrap().plan;
    assert_eq!(plan.data_dir, Path::new("/mnt/store"));
    assert_eq!(plan.listen.names, ["a.example", "10.0.0.1"]);
    assert_eq!(plan.audit.segments, 16);
    assert!(plan.dangers.tokens_on_disk);
}

#[test]
fn somebody_at_a_terminal_can_be_shown_the_recovery_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edgekeep.toml");
    let text = "[source]\nkind = \"exec\"\npath = \"/usr/lib/edgekeep/ikm\"\n";
    OsDisk.write_new(&file, text.as_bytes(), 0o600, None).unwrap();
    let environment = Environment::default();
    let uid = OsDisk.meta(&file).unwrap().unwrap().owner.uid;
    let with = |terminal| {
        config::load(&Inputs {
            disk: &OsDisk,
            environment: &environment,
            uid,
            file: &file,
            edgex_dir: None,
            data_dir: None,
            terminal,
        })
    };
    assert_eq!(with(true).unwrap().plan.recovery, Some(RecoverySpec::Terminal));
    assert!(with(false).unwrap_err().to_string().contains("recovery"), "nobody there, nothing chosen: nothing is made");
}

/// docs/hardware.md shows each source with all of its keys; people copy from there too.
#[test]
fn the_sources_in_the_manual_have_no_fault() {
    let manual = include_str!("../../../docs/hardware.md");
    let blocks = manual.split("```toml\n").skip(1).filter_map(|block| block.split_once("```"));
    let sources: Vec<_> = blocks.map(|(toml, _)| toml).filter(|toml| toml.starts_with("[source]")).collect();
    assert!(sources.len() >= 3, "tpm, tang and pkcs11 are there");
    for toml in sources {
        let text = format!("{toml}\n[recovery]\nnone = true\n");
        let plan = load(&text, &Environment::default()).unwrap_or_else(|e| panic!("{e}\n{toml}")).plan;
        // A key that the manual leaves out is one that the fault for an unknown key knows.
        let kind = toml.lines().find(|l| l.starts_with("kind")).unwrap();
        let faults = load(&format!("[source]\n{kind}\nzzzz = 1\n"), &Environment::default()).unwrap_err();
        let unknown = faults.as_slice().iter().find(|f| f.what.contains("zzzz")).unwrap();
        let (_, known) = unknown.remedy.split_once("known are ").unwrap();
        for key in known.split(", ") {
            assert!(toml.contains(&format!("{key} =")) || toml.contains(&format!("source.{key}]")), "{kind}: {key}");
        }
        drop(plan);
    }
}
