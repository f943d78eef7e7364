//! What a failed making has left in hardware: nothing.

use api::PeerAddress;
use seal::Counting;
use testkit::Swtpm;

use super::*;
use crate::driver::tests::predict::{boot, source};
use crate::driver::tests::sources::hook;
use crate::plan::{SourceSpec, TpmKeeping};

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };
const IMAGE: u8 = 0xbb;

/// A TPM whose releases an index counts, or one that keeps the key in an index.
fn tpm_source(tpm: &Swtpm, keeping: TpmKeeping, counting: Counting) -> SourceSpec {
    let mut spec = source(tpm, (keeping == TpmKeeping::Sealed).then_some(2));
    if let SourceSpec::Tpm(tpm) = &mut spec {
        (tpm.keeping, tpm.counting) = (keeping, counting);
    }
    spec
}

/// Each try of a first boot would use up some of the TPM's memory, until a store is made without its counter.
#[tokio::test]
async fn a_first_boot_that_fails_leaves_nothing_in_the_tpm() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (mut tpm, hooks) = (Swtpm::start(), testkit::scratch_dir());
    boot(&mut tpm, IMAGE);
    let (exec, _, broken) = hook(hooks.path());
    for counting in [Counting::Index, Counting::Best] {
        let mut device = Device::new();
        let before = tpm.nv_indices();
        device.plan.sources = vec![tpm_source(&tpm, TpmKeeping::Sealed, counting), exec.clone()];
        broken(true);
        for _ in 0..3 {
            let running = device.up().await;
            let fact = running.halted().unwrap().to_string();
            assert!(fact.contains("is not key material"), "{fact}");
            running.shutdown().await;
            assert_eq!(tpm.nv_indices(), before, "{counting:?}");
        }
        assert_eq!(device.ears.heard(|n| matches!(n, Note::Warning(_))), 0, "nothing stays, and nothing is to be told");
        broken(false);
        let running = device.up().await;
        assert_eq!(open(&running), BOTH, "{:?}", running.halted());
        assert_eq!(tpm.nv_indices().len(), before.len() + 1, "what is kept is there");
        running.shutdown().await;
    }
}

/// The key is in an index, and does not come back with its other part when the slot is tried.
#[tokio::test]
async fn a_slot_that_cannot_be_added_leaves_nothing_in_the_tpm() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (mut tpm, hooks) = (Swtpm::start(), testkit::scratch_dir());
    boot(&mut tpm, IMAGE);
    let (exec, runs, _) = hook(hooks.path());
    let mut device = Device::new();
    let mut running = device.up().await;
    let before = tpm.nv_indices();
    let mut plan = device.plan.clone();
    let parts = vec![tpm_source(&tpm, TpmKeeping::Index, Counting::Best), frail(&exec, hooks.path())];
    plan.sources.push(SourceSpec::Combined { threshold: None, parts });
    running.adopt_sources(&plan);
    let halt = running.add_slots(None, ROOT).await.unwrap_err().to_string();
    assert!(halt.contains("is not key material"), "{halt}");
    assert!(runs() >= 2, "it was made, and failed when it was tried");
    assert_eq!(tpm.nv_indices(), before);
    let slots = running.slots().await.unwrap();
    assert_eq!(slots.slots.len(), 1);
}

/// The hook, which breaks as soon as a slot was made with it.
fn frail(exec: &SourceSpec, dir: &Path) -> SourceSpec {
    let SourceSpec::Exec { path, env, deadline } = exec.clone() else { unreachable!() };
    let text = String::from_utf8(OsDisk.read(&path, 10_000).unwrap().to_vec()).unwrap();
    let runs = dir.join("runs");
    let mut frail = format!("#!/bin/sh\n[ -e {runs:?} ] && [ $(wc -l < {runs:?}) -ge 2 ] && echo junk && exit\n");
    frail.push_str(text.strip_prefix("#!/bin/sh\n").unwrap());
    testkit::lay_program(&path, &frail, 0o700);
    SourceSpec::Exec { path, env, deadline }
}
