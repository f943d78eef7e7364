//! Sources that are closed when the store is open: a real TPM 2.0 in software, and the order of it all.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seal::{SlotKek, StoreId};
use secret::{Kek, Secret};
use testkit::{Swtpm, is_skipped};

use super::bus::Bus;
use super::*;
use crate::driver::{KekKeeper, OnGuard, ReleaseGuard, Watch};
use crate::plan::AfterClose;

/// Keeps a KEK as the process would, and writes down what happens.
#[derive(Clone, Default)]
struct Beside {
    story: Arc<Mutex<Vec<&'static str>>>,
    kept: Arc<Mutex<Option<Kept>>>,
    /// When somebody ends the guard.
    killed: Arc<Mutex<Option<Killed>>>,
}

/// Before a source is asked, or while it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    Before,
    Meanwhile,
}

/// Store, slot and KEK.
type Kept = ([u8; 16], seal::SlotId, [u8; 32]);

impl Beside {
    fn note(&self, what: &'static str) {
        self.story.lock().unwrap().push(what);
    }

    fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.story.lock().unwrap())
    }
}

impl KekKeeper for Beside {
    fn keep(&self, store: &StoreId, kek: &SlotKek) -> io::Result<()> {
        self.note("kept");
        *self.kept.lock().unwrap() = Some((store.0, kek.slot, *kek.kek.expose()));
        Ok(())
    }

    fn fetch(&self, store: &StoreId) -> io::Result<Option<SlotKek>> {
        let kept = *self.kept.lock().unwrap();
        Ok(kept.filter(|(of, ..)| *of == store.0).map(|(_, slot, key)| {
            self.note("fetched");
            SlotKek { slot, kek: Kek::new(Secret::init_with(|k| k.copy_from_slice(&key))) }
        }))
    }

    fn forget(&self) -> io::Result<()> {
        if self.kept.lock().unwrap().take().is_some() {
            self.note("forgotten");
        }
        Ok(())
    }
}

impl ReleaseGuard for Beside {
    fn start(&self, _limit: Duration) -> io::Result<Box<dyn OnGuard>> {
        self.note("on guard");
        Ok(Box::new(AtPost { beside: self.clone(), dismissed: false }))
    }
}

struct AtPost {
    beside: Beside,
    dismissed: bool,
}

impl Drop for AtPost {
    fn drop(&mut self) {
        if !self.dismissed {
            self.beside.note("closes");
        }
    }
}

impl OnGuard for AtPost {
    fn watch(&mut self) -> Watch {
        let mut killed = self.beside.killed.lock().unwrap();
        match *killed {
            None => Watch::Stands,
            // The next one is left alone.
            Some(Killed::Before) => {
                *killed = None;
                Watch::Killed
            }
            Some(Killed::Meanwhile) => Watch::Killed,
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.beside.note("begun");
        Ok(())
    }

    fn rest(&mut self) -> io::Result<()> {
        self.beside.note("rests");
        Ok(())
    }

    fn dismiss(mut self: Box<Self>) {
        self.dismissed = true;
        self.beside.note("dismissed");
    }

    fn relieve(mut self: Box<Self>) {
        self.dismissed = true;
        self.beside.note("relieved");
    }
}

/// A device that eight releases are agreed for, and that closes its TPM when it is open.
fn device(tpm: &Swtpm, after: AfterClose) -> Device {
    let mut device = Device::new();
    device.plan.sources = vec![crate::testing::counted_tpm(&tpm.socket(), 8)];
    device.plan.release.after_close = Some(after);
    device
}

async fn start(device: &mut Device, beside: &Beside) -> Running {
    device.ears = Ears::default();
    let keeper: Arc<dyn KekKeeper> = Arc::new(beside.clone());
    let guard: Arc<dyn ReleaseGuard> = Arc::new(beside.clone());
    let env = Environment { keeper: Some(keeper), guard: Some(guard), ..device.environment() };
    up(device.plan.clone(), env, Box::new(device.ears.clone())).await.unwrap()
}

fn is_used_up(running: &Running) -> bool {
    running.halted().is_some_and(|h| h.to_string().contains("gives nothing more in this boot"))
}

#[tokio::test]
async fn sources_are_closed_behind_a_guard_once_the_key_is_kept() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Keeper), Beside::default());
    let running = start(&mut device, &beside).await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
    assert_eq!(beside.told(), ["on guard", "begun", "kept", "dismissed"]);
    let token = device.token("sensor");
    running.shutdown().await;
    assert_eq!(beside.told(), [""; 0], "a restart is no seal");

    // Of eight releases one was used, and none is left; the keeper has what is needed.
    let mut running = start(&mut device, &beside).await;
    assert!(lives(&running, &token).await);
    assert_eq!(beside.told(), ["fetched", "kept"], "no source was asked, so nobody stands guard");
    running.seal().await;
    assert_eq!(beside.told(), ["forgotten"]);
    drop(running);
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running), "{:?}", running.halted());
    assert_eq!(beside.told(), ["on guard", "begun", "rests"], "and it is not dismissed while the store is shut");
}

#[tokio::test]
async fn what_a_keeper_has_that_opens_nothing_is_no_way_in_and_no_way_out() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Keeper), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    tpm.reboot();
    tpm.extend(7, 0x77);
    if let Some((_, _, key)) = beside.kept.lock().unwrap().as_mut() {
        key[0] ^= 1;
    }
    let running = start(&mut device, &beside).await;
    assert_eq!(open(&running), BOTH, "the TPM was asked");
    running.shutdown().await;
}

/// Somebody ends the guard while the TPM is asked, and the store does not open: the TPM is closed all the same, by
/// whoever is left.
#[tokio::test]
async fn sources_are_closed_before_a_release_is_used_when_the_guard_is_gone() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    tpm.reboot();
    tpm.extend(7, 0x77);
    let whole = OsDisk.read(&device.state("store.db"), 1 << 24).unwrap().to_vec();
    OsDisk.replace(&device.state("store.db"), b"no database", 0o600, None).unwrap();
    *beside.killed.lock().unwrap() = Some(Killed::Meanwhile);
    let running = start(&mut device, &beside).await;
    assert!(!is_used_up(&running) && running.halted().is_some(), "{:?}", running.halted());
    let alarm = |n: &Note| matches!(n, Note::Alarm(t) if t.contains("was ended by somebody"));
    assert_eq!(device.ears.heard(alarm), 1);
    drop(running);
    OsDisk.replace(&device.state("store.db"), &whole, 0o600, None).unwrap();
    *beside.killed.lock().unwrap() = None;
    device.clock.advance(Duration::from_secs(3600));
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running), "seven releases are left by count: {:?}", running.halted());
}

/// Ended while a source is waited for: nothing is released before another stands there.
#[tokio::test]
async fn a_guard_that_was_ended_is_replaced_before_anything_is_released() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    tpm.reboot();
    tpm.extend(7, 0x77);
    let mut elsewhere = device.plan.clone();
    elsewhere.sources = vec![crate::testing::counted_tpm(Path::new("/nonexistent/sock"), 8)];
    let here = std::mem::replace(&mut device.plan, elsewhere);
    beside.told();
    let mut running = start(&mut device, &beside).await;
    assert_eq!((running.halted(), beside.told()), (None, vec!["on guard", "begun", "rests"]));
    // Its time stands still for as long as nothing was released: the device waits, however long.
    device.clock.advance(Duration::from_secs(7));
    running.tick().await;
    assert_eq!(beside.told(), ["begun", "rests"]);
    *beside.killed.lock().unwrap() = Some(Killed::Before);
    running.adopt_sources(&here);
    device.clock.advance(Duration::from_secs(10));
    running.tick().await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
    assert_eq!(beside.told(), ["on guard", "closes", "begun", "dismissed"]);
}

/// A device that waits for its TPM is ended and started again: nothing was released, and the boot has its releases
/// still. Only an orderly end says so.
#[tokio::test]
async fn an_orderly_end_before_anything_was_released_costs_the_boot_nothing() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    tpm.reboot();
    tpm.extend(7, 0x77);
    let here = device.plan.sources.clone();
    device.plan.sources = vec![crate::testing::counted_tpm(Path::new("/nonexistent/sock"), 8)];
    beside.told();
    for (orderly, last) in [(true, "relieved"), (false, "closes")] {
        let running = start(&mut device, &beside).await;
        assert_eq!((running.halted(), beside.told()), (None, vec!["on guard", "begun", "rests"]));
        if orderly {
            running.shutdown().await
        } else {
            drop(running)
        }
        assert_eq!(beside.told(), [last]);
        device.clock.advance(Duration::from_secs(60));
    }
    device.plan.sources = here;
    let running = start(&mut device, &beside).await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
    running.shutdown().await;
    assert_eq!(beside.told(), ["on guard", "begun", "dismissed"], "the sources are closed already");
}

/// The answer to what may have been a release is lost: nobody knows, so it counts as one.
#[tokio::test]
async fn an_orderly_end_after_a_command_that_may_have_released_closes_the_sources() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    for (lost, last) in [(UNSEAL, "closes"), (LOAD, "relieved")] {
        tpm.reboot();
        tpm.extend(7, 0x77);
        let bus = Bus::losing_the_answer_to(&tpm, lost);
        device.plan.sources = vec![crate::testing::counted_tpm(&bus.socket(), 8)];
        beside.told();
        let running = start(&mut device, &beside).await;
        assert_eq!((running.halted(), beside.told()), (None, vec!["on guard", "begun", "rests"]), "it may pass");
        running.shutdown().await;
        assert_eq!(beside.told(), [last], "{lost:#x}");
        device.clock.advance(Duration::from_secs(3600));
    }
}

#[tokio::test]
async fn with_nobody_to_stand_guard_nothing_is_released() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    let running = device.up().await;
    let halt = running.halted().map(ToString::to_string).unwrap_or_default();
    assert!(halt.contains("nobody is there to stand guard"), "{:?}", running.state());
    running.shutdown().await;
    let running = start(&mut device, &beside).await;
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn a_device_that_is_to_restart_does_so_where_that_helps_and_not_at_once() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Reboot), Beside::default());
    let running = start(&mut device, &beside).await;
    assert!(!running.restart_is_due(), "it is open");
    running.shutdown().await;
    assert!(!beside.told().contains(&"kept"));
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running) && !running.restart_is_due(), "a boot that is seconds old");
    device.clock.advance(Duration::from_secs(600));
    assert!(running.restart_is_due());
    drop(running);
    device.plan.release.after_close = Some(AfterClose::StaySealed);
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running) && !running.restart_is_due());
}

/// What the sources gave no more is over with a recovery: a device that is erased afterwards is not restarted for it.
#[tokio::test]
async fn a_device_that_was_recovered_is_not_restarted_for_the_limit_of_before() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Reboot), Beside::default());
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let running = start(&mut device, &beside).await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    running.shutdown().await;
    let mut running = start(&mut device, &beside).await;
    device.clock.advance(Duration::from_secs(600));
    assert!(is_used_up(&running) && running.restart_is_due());
    let by = api::PeerAddress::Unix { uid: 0, pid: 77 };
    running.recover(&key, by.clone()).await.unwrap();
    assert_eq!(open(&running), BOTH);
    running.erase(by).await.unwrap();
    assert!(running.halted().is_some() && !running.restart_is_due(), "{:?}", running.halted());
}

/// TPM2_Load and TPM2_Unseal (TPM 2.0 part 2, 6.5.2).
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;

#[tokio::test]
async fn what_could_not_be_closed_is_told_guarded_and_tried_again() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let bus = Bus::refusing_to_close(&tpm);
    let (mut device, beside) = (device(&tpm, AfterClose::StaySealed), Beside::default());
    device.plan.sources = vec![crate::testing::counted_tpm(&bus.socket(), 8)];
    let mut running = start(&mut device, &beside).await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "it serves all the same");
    let open_still = |n: &Note| matches!(n, Note::Alarm(t) if t.starts_with("the key sources are not closed"));
    // Once only: what a connection that was cut leaves behind is in the TPM's way, without a resource manager.
    device.clock.advance(Duration::from_secs(6));
    running.tick().await;
    assert_eq!((device.ears.heard(open_still), beside.told()), (1, vec!["on guard", "begun"]), "the guard stays");
    bus.cuts.store(false, Ordering::SeqCst);
    device.clock.advance(Duration::from_secs(11));
    running.tick().await;
    assert_eq!(beside.told(), ["dismissed"]);
    running.shutdown().await;
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running), "{:?}", running.halted());
}

/// An update has changed what is measured. Who recovers and makes the slot anew has it tried before the TPM is closed:
/// so the old one, which opens for the old image, goes, and the root key with it.
#[tokio::test]
async fn a_recovery_that_reseals_ends_the_slot_of_the_old_image_and_then_closes() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Keeper), Beside::default());
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let running = start(&mut device, &beside).await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    running.shutdown().await;
    *beside.kept.lock().unwrap() = None;
    tpm.reboot();
    tpm.extend(7, 0x78);
    let mut running = start(&mut device, &beside).await;
    assert!(running.halted().is_some() && !is_used_up(&running), "{:?}", running.halted());
    beside.told();
    let (_, change) = running.recover_and(&key, api::PeerAddress::Unix { uid: 0, pid: 77 }, true).await.unwrap();
    let change = change.unwrap();
    assert_eq!((change.added, change.removed, change.kept, change.told), (vec![3], vec![1], vec![], vec![]));
    assert_eq!(beside.told(), ["begun", "dismissed"], "the key of a slot that is spent is kept by nobody");
    running.shutdown().await;
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running), "closed behind it: {:?}", running.halted());
}

#[tokio::test]
async fn what_was_kept_under_a_plan_of_before_is_forgotten() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let (mut device, beside) = (device(&tpm, AfterClose::Keeper), Beside::default());
    start(&mut device, &beside).await.shutdown().await;
    assert!(beside.kept.lock().unwrap().is_some());
    device.plan.release.after_close = Some(AfterClose::StaySealed);
    let running = start(&mut device, &beside).await;
    assert!(is_used_up(&running) && beside.kept.lock().unwrap().is_none(), "{:?}", running.halted());
}

/// Whoever seals means it, whatever the plan says of a keeper.
#[tokio::test]
async fn a_seal_has_the_keeper_forget_whatever_the_plan_says() {
    let (mut device, beside) = (Device::new(), Beside::default());
    let mut running = start(&mut device, &beside).await;
    *beside.kept.lock().unwrap() = Some(([7; 16], seal::SlotId(1), [1; 32]));
    running.seal().await;
    assert!(beside.kept.lock().unwrap().is_none());
}
