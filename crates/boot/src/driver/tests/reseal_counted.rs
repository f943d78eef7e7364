//! A slot that is made anew under another release limit: a counter comes into the TPM and one goes, and power is cut at
//! each step.

use api::PeerAddress;
use seal::{SlotFiles, SourceKind};
use testkit::Swtpm;

use super::bus::Bus;
use super::*;
use crate::plan::SourceSpec;

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

/// What the TPM kept, from which event of the disk on: one entry for each change of it.
pub(super) type Tape = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// A bus that looks after each answer whether the TPM keeps something else.
pub(super) fn recorded_bus(tpm: &Swtpm, disk: &testkit::CrashDisk, tape: &Tape) -> Bus {
    let (memory, disk, tape) = (tpm.memory(), disk.clone(), Arc::clone(tape));
    Bus::watched(tpm, move || {
        let state = std::fs::read(&memory).unwrap();
        let mut tape = tape.lock().unwrap();
        if tape.last().is_none_or(|(_, last)| *last != state) {
            tape.push((disk.events(), state));
        }
    })
}

/// Each moment of the disk's story and of the TPM's: what the disk had seen, and what the TPM kept.
pub(super) fn moments(begun: usize, ended: usize, tape: &[(usize, Vec<u8>)]) -> Vec<(usize, usize)> {
    let last_by = |at: usize| tape.iter().rposition(|(from, _)| *from <= at).unwrap();
    let mut moments: Vec<(usize, usize)> = (begun..=ended).map(|at| (at, last_by(at))).collect();
    for (state, (at, _)) in tape.iter().enumerate().filter(|(_, (at, _))| *at >= begun) {
        // Before it and after it.
        moments.extend([(*at, state.saturating_sub(1)), (*at, state)]);
    }
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// The store is open by its key file, and the TPM has released nothing in this boot: the slot of two releases becomes
/// one of three. Whatever the moment of the cut, the TPM alone opens the store; and of the two counters none is there
/// without a slot but in the two gaps that docs/hardware.md names.
#[tokio::test]
async fn a_power_cut_at_any_step_of_a_new_limit_leaves_a_tpm_that_opens() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let tape: Tape = Tape::default();
    let bus = recorded_bus(&tpm, &disk, &tape);
    let file = |plan: &Plan| SourceSpec::Software { file: plan.data_dir.join("one.key") };
    let counted = |releases| crate::testing::counted_tpm(&bus.socket(), releases);
    let (mut plan, env) = recorded(&disk, &clock, 7);
    plan.sources = vec![file(&plan), counted(2)];
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    assert_eq!((running.halted(), tpm.nv_indices().len()), (None, 1));
    plan.sources = vec![file(&plan), counted(3)];
    running.adopt_sources(&plan);
    let begun = disk.events();
    let change = running.reseal_slots(Some(2), ROOT).await.unwrap();
    assert_eq!((change.added, change.removed, change.kept), (vec![3], vec![2], vec![]));
    let ended = disk.events();
    drop(running);

    let tape = std::mem::take(&mut *tape.lock().unwrap());
    let (mut by_old, mut by_new, mut left_behind) = (0, 0, 0);
    let moments = moments(begun, ended, &tape);
    for (cut, (at, state)) in cuts(&disk, moments.iter().map(|(at, _)| *at)).zip(&moments) {
        let (at, state) = (*at, *state);
        let when = format!("{cut} of {begun}..={ended}, TPM {state} of {}", tape.len());
        cut.restore(&disk, &plan);
        tpm.power_cut_at(&tape[state].1);
        tpm.extend(7, 0x77);
        clock.reboot();
        let (mut plan, env) = recorded(&disk, &clock, 1000 + at as u64);
        plan.sources = vec![counted(3)];
        let running = up(plan.clone(), unrecorded(env), Box::new(Quiet)).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        running.shutdown().await;

        let set = SlotFiles::new(&OsDisk, plan.state_dir()).read().unwrap().set;
        let slots: Vec<u16> = set.slots_of(SourceKind::Tpm).map(|slot| slot.id().0).collect();
        assert!(at < ended || slots == [3], "{when}: {slots:?}");
        by_old += usize::from(slots.contains(&2));
        by_new += usize::from(slots.contains(&3));
        let behind = tpm.nv_indices().len().checked_sub(slots.len()).expect("a slot has its counter");
        assert!(behind <= 1, "{when}: {slots:?}, {:x?}", tpm.nv_indices());
        assert!(behind == 0 || slots.len() == 1, "{when}: between a slot that comes and the one that goes");
        assert!(
            behind == 0 || (at, state) != (ended, tape.len() - 1),
            "{when}: nothing is left of a change that has ended"
        );
        left_behind += behind;
    }
    assert!(by_old > 10 && by_new > 10 && left_behind > 0, "{by_old}, {by_new}, {left_behind}");
}
