//! An update of a device whose key is in an index of its TPM: the disk and the TPM each keep something of it, and power
//! is cut at each step of either.

use testkit::Swtpm;

use super::predict::{NEW, OLD, ROOT, boot, ids, source, values};
use super::reseal_counted::{Tape, moments, recorded_bus};
use super::*;
use crate::plan::{SourceSpec, TpmKeeping, TpmSpec};

/// The old image opens the store until it is given up, the new one from when it was told to be there, and never
/// neither; a boot has one release; and an index is left without a slot in the two gaps alone that docs/hardware.md
/// names.
#[tokio::test]
async fn a_power_cut_at_any_step_of_an_update_leaves_an_index_that_opens() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let tape: Tape = Tape::default();
    let bus = recorded_bus(&tpm, &disk, &tape);
    let SourceSpec::Tpm(spec) = source(&tpm, Some(1)) else { unreachable!("it is a TPM") };
    let index = SourceSpec::Tpm(TpmSpec { keeping: TpmKeeping::Index, device: bus.socket(), ..spec });
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.sources = vec![index.clone()];
        (plan, env)
    };
    let (plan, env) = start(7);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let begun = disk.events();
    running.predict_slot(&values(NEW), ROOT).await.unwrap();
    let predicted = disk.events();
    running.shutdown().await;
    boot(&mut tpm, NEW);
    running = up(plan.clone(), start(8).1, Box::new(Quiet)).await.unwrap();
    let updated = disk.events();
    running.commit_slots(ROOT).await.unwrap();
    let committed = disk.events();
    drop(running);

    let tape = std::mem::take(&mut *tape.lock().unwrap());
    let (mut early, mut late, mut left_behind) = (0, 0, 0);
    let moments = [moments(begun, predicted, &tape), moments(updated, committed, &tape)].concat();
    let moments: Vec<_> = moments.into_iter().filter(|(at, _)| *at <= predicted || *at >= updated).collect();
    for (cut, (at, state)) in cuts(&disk, moments.iter().map(|(at, _)| *at)).zip(&moments) {
        let (at, state) = (*at, *state);
        let when = format!("{cut} of {begun}, {predicted}, {updated}, {committed}, TPM {state} of {}", tape.len());
        let mut opens = [false; 2];
        for (image, opened) in [OLD, NEW].into_iter().zip(&mut opens) {
            cut.restore(&disk, &plan);
            tpm.power_cut_at(&tape[state].1);
            tpm.extend(11, image);
            clock.reboot();
            let (plan, env) = start(1000 + at as u64);
            let running = up(plan.clone(), unrecorded(env), Box::new(Quiet)).await.unwrap();
            *opened = open(&running) == BOTH;
            drop(running);
            let again = up(plan, unrecorded(start(2000 + at as u64).1), Box::new(Quiet)).await.unwrap();
            let told = again.halted().map(ToString::to_string).unwrap_or_default();
            assert!(!*opened || told.contains("was read, or closed, in this boot"), "{when}, {image:#x}: {told}");
            again.shutdown().await;
        }
        let [old, new] = opens;
        assert!(if at < updated { old } else { new }, "{when}: {opens:?}");
        assert!(at < predicted || new, "{when}: what was told is there");
        assert!(at < committed || !old, "{when}: what was told to be gone is gone");
        let behind = tpm.nv_indices().len().checked_sub(ids(&plan).len()).expect("a slot has its index");
        assert!(behind <= 1, "{when}: {:x?}", tpm.nv_indices());
        assert!(behind == 0 || (at, state) != (committed, tape.len() - 1), "{when}: of an update that has ended");
        early += usize::from(!new);
        late += usize::from(!old);
        left_behind += behind;
    }
    assert!(early > 0 && late > 0 && left_behind > 0, "{early}, {late}, {left_behind}");
}
