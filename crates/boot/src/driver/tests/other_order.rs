//! A configuration that gets other sources, or another order of them, while the device waits for one: what was refused
//! is known again wherever it stands, and who stands in its place is asked.

use seal::PcrSet;

use super::*;
use crate::plan::{PinPlace, SourceSpec};

/// A hook that gives junk is refused; the key file, which is away, is what the device waits for.
#[tokio::test]
async fn a_refused_source_is_known_again_wherever_it_stands_and_a_new_one_in_its_place_is_asked() {
    let (hooks, others) = (testkit::scratch_dir(), testkit::scratch_dir());
    let (hook, runs, broken) = sources::hook(hooks.path());
    let (other, asked, _) = sources::hook(others.path());
    let mut device = Device::new();
    let key = device.plan.data_dir.join("one.key");
    let file = SourceSpec::Software { file: key.clone() };
    device.plan.sources = vec![hook.clone(), file.clone()];
    device.up().await.shutdown().await;
    broken(true);
    OsDisk.remove_file(&key).unwrap();
    let before = runs();
    let mut running = device.up().await;
    let mut turn = async |sources: Vec<SourceSpec>| {
        running.adopt_sources(&Plan { sources, ..device.plan.clone() });
        device.clock.advance(Duration::from_secs(100));
        running.tick().await;
        (matches!(running.state(), State::Releasing(_)), open(&running).len())
    };
    assert_eq!(turn(vec![file.clone(), hook.clone()]).await, (true, 0));
    assert_eq!(runs() - before, 1, "it was refused in the other place");
    // It gives what the first was made with.
    assert_eq!(turn(vec![other, file, hook]).await, (false, 2));
    assert_eq!((runs() - before, asked()), (1, 1));
}

/// What is remembered of a source that the plan has no more says nothing of those that it has.
#[tokio::test]
async fn a_source_that_is_gone_is_no_reason_any_more() {
    let (hooks, others) = (testkit::scratch_dir(), testkit::scratch_dir());
    let (hook, _, broken) = sources::hook(hooks.path());
    let (other, asked, other_broken) = sources::hook(others.path());
    let mut device = Device::new();
    let file = SourceSpec::Software { file: device.plan.data_dir.join("one.key") };
    device.plan.sources = vec![hook.clone(), file];
    device.up().await.shutdown().await;
    [&broken, &other_broken].iter().for_each(|set| set(true));
    OsDisk.remove_file(&device.plan.data_dir.join("one.key")).unwrap();
    let mut running = device.up().await;
    assert_eq!(running.halted(), None);
    running.adopt_sources(&Plan { sources: vec![other.clone()], ..device.plan.clone() });
    device.clock.advance(Duration::from_secs(100));
    running.tick().await;
    let fact = running.halted().unwrap().to_string();
    assert_eq!((asked(), fact.contains(&hook.to_string())), (1, false), "{fact}");
}

/// By the count that the TPM keeps of wrong ones: with one try less it would not be asked at the end, since its last
/// one is kept.
#[tokio::test]
async fn a_refused_pin_is_not_tried_again_wherever_its_source_stands() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = testkit::Swtpm::start();
    predict::boot(&mut tpm, 0xbb);
    let pins = testkit::scratch_dir();
    let digits = |digits: &[u8]| OsDisk.replace(&pins.path().join("pin"), digits, 0o600, None).unwrap();
    digits(b"1234\n");
    let with_pin = |limit: u64| {
        let SourceSpec::Tpm(mut spec) = predict::source(&tpm, None) else { unreachable!("it is a TPM") };
        spec.pcrs = PcrSet::new([11]).unwrap();
        spec.pin = Some(PinPlace::File(pins.path().join("pin")));
        spec.deadline = Duration::from_secs(limit);
        SourceSpec::Tpm(spec)
    };
    let mut device = Device::new();
    let key = device.plan.data_dir.join("one.key");
    let file = SourceSpec::Software { file: key.clone() };
    device.plan.sources = vec![with_pin(20), file.clone()];
    device.up().await.shutdown().await;
    digits(b"9999\n");
    let away = key.with_extension("away");
    OsDisk.rename(&key, &away, true).unwrap();
    let mut running = device.up().await;
    let refused = |n: &Note| matches!(n, Note::Warning(t) if t.contains("refuses the PIN"));
    assert_eq!((running.halted(), device.ears.heard(refused)), (None, 1));
    // Moved; and with another deadline, which is still the same TPM.
    for sources in [vec![file.clone(), with_pin(20)], vec![with_pin(30), file.clone()]] {
        running.adopt_sources(&Plan { sources, ..device.plan.clone() });
        device.clock.advance(Duration::from_secs(100));
        running.tick().await;
        assert_eq!((running.halted(), device.ears.heard(refused)), (None, 1));
    }
    assert_eq!(running.pins_refused.len(), 1, "however often it was waited for");
    running.shutdown().await;
    digits(b"1234\n");
    device.clock.advance(Duration::from_secs(600));
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", running.halted());
}
