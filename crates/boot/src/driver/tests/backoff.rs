//! Starts that end before the store is served, again and again: what they may ask for, and when.

use host::Clock;
use testkit::{CrashDisk, Cut, NameRule, Swtpm, Unsynced};

use super::predict::{boot, source};
use super::sources::hook;
use super::*;
use crate::driver::backoff::Came;
use crate::driver::{backoff, claim, tries_before};
use crate::machine::Event;
use crate::plan::SourceSpec;

impl Device {
    /// After its first boot; the store is such that no start serves it, until it is mended.
    async fn broken(source: SourceSpec) -> (Self, impl Fn(&Self) + use<>) {
        let mut device = Self::new();
        device.plan.sources = vec![source];
        device.up().await.shutdown().await;
        let store = device.state("store.db");
        let whole = OsDisk.read(&store, 1 << 24).unwrap().to_vec();
        OsDisk.replace(&store, b"junk", 0o600, None).unwrap();
        (device, move |device| OsDisk.replace(&device.state("store.db"), &whole, 0o600, None).unwrap())
    }

    fn tried(&self) -> Option<String> {
        tries_before(&OsDisk, &*self.clock, &self.plan)
    }

    /// Time passes, a second or the rest of one at a time, until the sources are asked; how long that took.
    async fn until_asked(&self, running: &mut Running) -> Duration {
        let begun = self.clock.boottime();
        while running.resting().is_some() {
            self.clock.advance(Duration::from_millis(25));
            running.tick().await;
            assert!(self.clock.boottime().since(begun) < Duration::from_secs(1000), "it never asks");
        }
        self.clock.boottime().since(begun)
    }
}

fn about(found: Duration, wanted: Duration) -> bool {
    // A quarter is left to chance; the clock of these tests has steps of 25 ms.
    (wanted..=wanted + wanted / 4 + Duration::from_millis(25)).contains(&found)
}

#[tokio::test]
async fn starts_that_end_before_the_store_is_served_rest_ever_longer() {
    let hooks = testkit::scratch_dir();
    let (exec, runs, _) = hook(hooks.path());
    let (mut device, mend) = Device::broken(exec).await;
    assert_eq!(device.tried(), None, "a store that was served leaves nothing");
    let mut before = runs();
    for (start, rest_ms) in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].into_iter().enumerate() {
        let mut running = device.up().await;
        if start > 0 {
            assert!(matches!(running.state(), State::Releasing(_)) && runs() == before, "it is asked at once");
        }
        let rested = device.until_asked(&mut running).await;
        assert!(about(rested, Duration::from_millis(rest_ms)), "start {start}: {rested:?} for {rest_ms} ms");
        assert!(running.halted().is_some());
        assert_eq!(runs() - before, 1, "asked once by each start");
        before = runs();
    }
    let told = device.tried().unwrap();
    assert!(
        told.starts_with("10 starts in a row ended before the store was served, the last after a key source had given"),
        "{told}"
    );
    // What nobody asks for costs nothing: the rest is over while the device is off.
    device.clock.advance(Duration::from_secs(20));
    mend(&device);
    let running = device.up().await;
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    assert_eq!(device.tried(), None, "forgotten");
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "and the next one does not wait");
}

#[tokio::test]
async fn somebody_may_ask_at_once_and_that_counts_too() {
    let hooks = testkit::scratch_dir();
    let (exec, runs, _) = hook(hooks.path());
    let (mut device, _) = Device::broken(exec).await;
    for start in 1..5 {
        let before = runs();
        let claimed = claim(device.plan.clone(), device.environment(), Box::new(Quiet)).unwrap();
        let running = claimed.at_once(true).start(None).await;
        assert_eq!(runs() - before, 1, "start {start}");
        drop(running);
    }
    assert!(device.up().await.resting().is_some_and(|why| why.starts_with("4 starts in a row")));
}

/// The releases of a boot outlast a loop of crashes, and the next boot of the kernel has its own.
#[tokio::test]
async fn a_loop_of_crashes_spends_the_releases_of_a_boot_slowly() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, 0xbb);
    let (mut device, mend) = Device::broken(source(&tpm, Some(4))).await;
    assert!(device.up().await.halted().is_some(), "the second release of this boot");
    for _ in 0..20 {
        let running = device.up().await;
        assert!(running.halted().is_none() && running.resting().is_some(), "it rests, whoever starts it");
        device.clock.advance(Duration::from_secs(1));
    }
    let mut running = device.up().await;
    device.until_asked(&mut running).await;
    drop(running);
    let mut running = device.up().await;
    let rested = device.until_asked(&mut running).await;
    assert!(about(rested, Duration::from_secs(60)), "{rested:?}");
    drop(running);
    // All four are used up; that is no crash, and the next boot does not wait for it.
    device.clock.advance(Duration::from_secs(200));
    let running = device.up().await;
    let fact = running.halted().unwrap().to_string();
    assert!(fact.contains("has counted 4 releases in this boot"), "{fact}");
    drop(running);
    assert!(device.tried().unwrap().contains("no release was left in that boot"));
    tpm.reboot();
    tpm.extend(11, 0xbb);
    device.clock.reboot();
    let running = device.up().await;
    assert!(running.resting().is_none() && running.halted().is_some(), "the store is broken still");
    drop(running);
    // A power supply that fails again and again: from the start of the kernel, and not so long.
    for rest in [11, 27, 55, 55] {
        tpm.reboot();
        tpm.extend(11, 0xbb);
        device.clock.reboot();
        let mut running = device.up().await;
        let rested = device.until_asked(&mut running).await;
        let whole = Duration::from_secs(rest);
        assert!(about(rested, whole), "{rested:?} for {rest} s");
    }
    mend(&device);
    tpm.reboot();
    tpm.extend(11, 0xbb);
    device.clock.reboot();
    device.clock.advance(Duration::from_secs(60));
    assert_eq!(open(&device.up().await), BOTH);
}

/// Another process goes on at the pace at which the one before it asked.
#[tokio::test]
async fn a_source_that_is_away_is_asked_no_faster_by_another_process() {
    let mut device = Device::new();
    let hooks = testkit::scratch_dir();
    let (away, (exec, ..)) = (hooks.path().join("away"), hook(hooks.path()));
    device.plan.sources = vec![exec];
    device.up().await.shutdown().await;
    // A hook that is not there may come: that is waited for.
    let path = hooks.path().join("hook");
    OsDisk.rename(&path, &away, true).unwrap();
    let mut running = device.up().await;
    for _ in 0..6 {
        device.clock.advance(Duration::from_secs(10));
        running.tick().await;
    }
    assert!(matches!(running.state(), State::Releasing(_)) && running.halted().is_none());
    drop(running);
    let mut running = device.up().await;
    let rested = device.until_asked(&mut running).await;
    assert!(about(rested, Duration::from_millis(6400)), "as that one would have: {rested:?}");
    OsDisk.rename(&away, &path, true).unwrap();
    device.clock.advance(Duration::from_secs(9));
    running.tick().await;
    assert!(open(&running).is_empty(), "nor does it begin with the shortest pause");
    device.clock.advance(Duration::from_secs(1));
    running.tick().await;
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn a_record_that_is_damaged_is_the_longest_rest_and_not_for_ever() {
    let hooks = testkit::scratch_dir();
    let (exec, runs, _) = hook(hooks.path());
    let mut device = Device::new();
    device.plan.sources = vec![exec];
    device.up().await.shutdown().await;
    let before = runs();
    OsDisk.replace(&device.state("tries"), &[0xee; 700], 0o600, None).unwrap();
    for rest in [600, 400, 200] {
        let running = device.up().await;
        let told = running.resting().unwrap();
        let left: u64 = told.rsplit_once(" in ").unwrap().1.trim_end_matches(" s").parse().unwrap();
        assert!(about(Duration::from_secs(left), Duration::from_secs(rest)), "it goes on, and not anew: {told}");
        device.clock.advance(Duration::from_secs(200));
    }
    assert_eq!(runs(), before);
    let running = device.up().await;
    assert_eq!(open(&running), BOTH);
    assert_eq!(runs() - before, 1);
}

#[tokio::test]
async fn where_no_try_can_be_noted_the_source_is_asked_after_a_rest() {
    let hooks = testkit::scratch_dir();
    let (exec, runs, _) = hook(hooks.path());
    let mut device = Device::new();
    device.plan.sources = vec![exec];
    device.up().await.shutdown().await;
    let before = runs();
    OsDisk.remove_file(&device.state("tries")).unwrap();
    OsDisk.create_dir(&device.state("tries"), 0o700).unwrap();
    let mut running = device.up().await;
    let mut waited = 0;
    while runs() == before {
        waited += 1;
        device.clock.advance(Duration::from_secs(1));
        running.tick().await;
        assert!(waited < 1000, "it never asks");
    }
    // The longest, as for damage, and half a minute more.
    assert!((630..=785).contains(&waited), "{waited}");
    assert_eq!(open(&running), BOTH);
}

/// A key that was given and has opened nothing, in one process: a store of somebody else's that is there, sealed, and
/// takes no shares is looked at many times a second.
#[tokio::test]
async fn a_key_that_opens_nothing_is_not_asked_for_again_at_once() {
    let hooks = testkit::scratch_dir();
    let (exec, ..) = hook(hooks.path());
    let mut device = Device::new();
    device.plan.sources = vec![exec];
    let mut running = device.up().await;
    assert!(running.rest_first().is_none(), "the store was served since");
    running.note_try().unwrap();
    for rest in [100, 200, 400, 800] {
        running.note_outcome(Came::Given);
        let Some(Event::Rested { rest: found, .. }) = running.rest_first() else { panic!("it is asked at once") };
        assert!(about(found, Duration::from_millis(rest)), "{found:?}");
        device.clock.advance(found);
        running.note_try().unwrap();
    }
    running.note_outcome(Came::Later);
    assert!(running.rest_first().is_none(), "who gives nothing is asked again by the pace of the machine");
    running.note_outcome(Came::Given);
    running.forget_tries();
    assert!(running.rest_first().is_none());
    assert_eq!(device.tried(), None);
}

/// When the source is asked, the try is on the disk: at no cut from then on is it lost.
#[tokio::test]
async fn a_try_is_durable_before_it_is_made() {
    let (disk, clock) = (CrashDisk::new(), Arc::new(FakeClock::at(0)));
    let (mut plan, env) = recorded(&disk, &clock, 1);
    let hooks = testkit::scratch_dir();
    let (path, seen) = (hooks.path().join("hook"), hooks.path().join("seen"));
    // What lies on the disk while it is asked.
    let record = plan.state_dir().join("tries");
    let text = format!("#!/bin/sh\ncat {record:?} > {seen:?} 2>&1\nprintf %064d 7\n");
    testkit::lay_program(&path, &text, 0o700);
    plan.sources = vec![SourceSpec::Exec { path, env: [].into(), deadline: Duration::from_secs(10) }];
    let released = Arc::new(Mutex::new(None));
    let watch = Moment { disk: disk.clone(), at: Arc::clone(&released) };
    let running = up(plan.clone(), env, Box::new(watch)).await.unwrap();
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    let asked = backoff::starts_in(&OsDisk.read(&seen, 2000).unwrap());
    assert_eq!(asked, Some(1), "written before the hook was run");
    let at = released.lock().unwrap().expect("it has released");
    for names in NameRule::ALL {
        let image = disk.image(&Cut { at, unsynced: Unsynced::Dropped, names, seed: 7 });
        let kept = image.file("device/data/tries").map(backoff::starts_in);
        assert_eq!(kept, Some(Some(1)), "{names:?}: and synced");
    }
}

/// Where on the disk's record the source had released.
struct Moment {
    disk: CrashDisk,
    at: Arc<Mutex<Option<usize>>>,
}

impl Observer for Moment {
    fn note(&mut self, note: Note) {
        if matches!(note, Note::Phase { name: "released", .. }) {
            *self.at.lock().unwrap() = Some(self.disk.events());
        }
    }
}
