//! Whole devices: real files, real SQLite, real engines; the clock alone is held.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{ApiPath, Body, Operation, Request, Status};
use delivery::{Backing, Medium};
use host::{Clock as _, Disk, OsDisk, WallTime};
use seal::RecoveryKey;
use secret::Token;
use tempfile::TempDir;
use testkit::{FakeClock, SeededEntropy};
use zeroize::Zeroizing;

use super::*;
use crate::machine::{Halt, State};
use crate::plan::{AuditPlan, CredentialPlan, Plan, Profile, RecoverySpec};
use crate::testing::demo_plan;
use device::{BOTH, Device, Ears, ask, chain, lives, open, recorded};
use ends::{By, cuts, ends, unrecorded};

mod backoff;
mod bus;
mod clones;
mod closing;
mod cuts;
mod destroy;
mod device;
mod door;
mod ends;
mod erase;
mod factory;
mod month;
mod old_copies;
mod other_order;
mod predict;
mod predict_index;
mod recovery;
mod reseal;
mod reseal_counted;
mod sealing;
mod slots;
mod sources;
mod taken_back;
mod wrong_pin;

#[tokio::test]
async fn a_bare_device_becomes_one_with_open_gates() {
    let mut device = Device::new();
    let running = device.up().await;
    assert_eq!(running.halted(), None);
    assert_eq!(open(&running), BOTH);
    let (sensor, uploader) = (device.token("sensor"), device.token("uploader"));
    let own = "secret/edgex/sensor/x";
    assert_eq!(ask(&running, &sensor, Operation::Write, own, r#"{"a":"1"}"#).await, Status::NO_CONTENT);
    assert_eq!(ask(&running, &sensor, Operation::Read, own, "").await, Status::OK);
    assert_eq!(ask(&running, &uploader, Operation::Read, own, "").await, Status::FORBIDDEN);
    assert_eq!(ask(&running, &sensor, Operation::Read, "secret/edgex/sensor/redisdb", "").await, Status::OK);
    assert_eq!(ask(&running, &sensor, Operation::Read, "identity/oidc/token/sensor", "").await, Status::OK);
    running.shutdown().await;
}

#[tokio::test]
async fn the_story_of_a_first_boot() {
    let mut device = Device::new();
    let running = device.up().await;
    let mut story = String::new();
    for note in device.ears.notes.lock().unwrap().iter() {
        // The clock stands still, so every time is 0 and the order alone is told.
        match note {
            Note::Phase { name, .. } => writeln!(story, "phase      {name}"),
            Note::Token { service, place, issued } => {
                let how = if *issued { "issued" } else { "kept" };
                writeln!(story, "token      {service} {how} {}", place.display())
            }
            Note::GateOpen { gate, .. } => writeln!(story, "gate open  {gate}"),
            other => writeln!(story, "{other:?}"),
        }
        .unwrap();
    }
    running.shutdown().await;
    let story = story.replace(&device.dir.path().display().to_string(), "");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/boot/first-boot.txt");
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        OsDisk.replace(&golden, story.as_bytes(), 0o644, None).unwrap();
    }
    let wanted = OsDisk.read(&golden, 100_000).unwrap();
    assert_eq!(story, std::str::from_utf8(&wanted).unwrap(), "EDGEKEEP_BLESS=1 writes it anew");
}

#[tokio::test]
async fn a_restart_within_a_boot_keeps_every_token_and_issues_none() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    let before = device.token("sensor");
    let running = device.up().await;
    assert_eq!(open(&running), BOTH);
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Token { issued: true, .. })), 0);
    assert_eq!(device.token("sensor").expose(), before.expose());
    assert!(lives(&running, &before).await);
    // A crash instead of a shutdown: dropped as it stands.
    drop(running);
    let running = device.up().await;
    assert_eq!(device.token("sensor").expose(), before.expose());
    assert!(lives(&running, &before).await);
}

#[tokio::test]
async fn a_new_boot_refuses_every_older_token_and_issues_anew() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    let old = device.token("sensor");
    device.clock.reboot();
    let running = device.up().await;
    assert_eq!(open(&running), BOTH);
    assert_ne!(device.token("sensor").expose(), old.expose());
    assert!(!lives(&running, &old).await);
    assert!(lives(&running, &device.token("sensor")).await);
}

#[tokio::test]
async fn a_token_file_that_is_removed_shuts_the_gate_and_is_issued_anew() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let old = device.token("sensor");
    OsDisk.remove_tree(&running.token_directory(&"sensor".parse().unwrap())).unwrap();
    device.clock.advance(Duration::from_secs(1));
    running.tick().await;
    assert_eq!(device.ears.heard(|n| matches!(n, Note::GateShut { .. })), 2);
    assert_eq!(open(&running), BOTH, "and open again, in the same tick");
    assert!(!lives(&running, &old).await, "the lost token is revoked when the new one is receipted");
    assert!(lives(&running, &device.token("sensor")).await);
}

#[tokio::test]
async fn a_service_that_was_off_for_200_hours_finds_a_live_token() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let token = device.token("uploader");
    for _ in 0..200 * 6 {
        device.clock.advance(Duration::from_secs(600));
        running.tick().await;
    }
    assert_eq!(device.token("uploader").expose(), token.expose());
    assert!(lives(&running, &token).await);
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn sealing_shuts_the_gates_and_unsealing_kills_no_token() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let token = device.token("sensor");
    running.seal().await;
    assert!(matches!(running.state(), State::Sealed) && running.core().is_none() && running.store().is_none());
    assert!(open(&running).is_empty());
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
    assert!(lives(&running, &token).await);
}

#[tokio::test]
async fn two_cannot_work_on_one_directory() {
    let mut device = Device::new();
    let _running = device.up().await;
    let second = up(device.plan.clone(), device.environment(), Box::new(Quiet)).await;
    assert!(matches!(second, Err(UpError::InUse { .. })), "{second:?}");
}

#[tokio::test]
async fn a_plan_with_faults_makes_nothing() {
    let mut device = Device::new();
    device.plan.recovery = None;
    let refused = up(device.plan.clone(), device.environment(), Box::new(Quiet)).await;
    assert!(matches!(refused, Err(UpError::Plan(_))), "{refused:?}");
    assert_eq!(OsDisk.list(device.dir.path()).unwrap().len(), 0);
}

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in OsDisk.list(dir).unwrap() {
        let path = dir.join(name);
        if OsDisk.meta(&path).unwrap().unwrap().kind == host::FileKind::Dir {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), OsDisk.read(&path, 1 << 24).unwrap().to_vec());
        }
    }
    all
}

#[tokio::test]
async fn every_deleted_subset_is_refused_by_name_and_nothing_is_lost() {
    let parts = ["slots.a", "slots.b", "store.db", "audit"];
    for bits in 1u8..15 {
        let mut device = Device::new();
        device.up().await.shutdown().await;
        for (i, part) in parts.iter().enumerate() {
            if bits & (1 << i) != 0 {
                OsDisk.remove_tree(&device.state(part)).unwrap();
            }
        }
        let before = files(&device.plan.data_dir);
        let running = device.up().await;
        let deleted = |p: &str| bits & (1 << parts.iter().position(|q| *q == p).unwrap()) != 0;
        let (a, b, store, audit) = (deleted("slots.a"), deleted("slots.b"), deleted("store.db"), deleted("audit"));
        let halt = running.halted().cloned();
        match (a && b, store, audit) {
            (false, false, false) => {
                assert_eq!((halt, open(&running)), (None, BOTH.map(String::from).to_vec()));
                let (x, y) = (device.state("slots.a"), device.state("slots.b"));
                assert_eq!(OsDisk.read(&x, 10_000).unwrap(), OsDisk.read(&y, 10_000).unwrap(), "healed");
                assert!(device.ears.heard(|n| matches!(n, Note::Warning(_))) > 0, "and said so");
                continue;
            }
            (false, false, true) => assert_eq!(halt, Some(Halt::AuditMissing)),
            (false, true, _) => assert_eq!(halt, Some(Halt::StoreMissing)),
            (true, false, _) => assert_eq!(halt, Some(Halt::SlotsMissing)),
            (true, true, _) => assert!(matches!(halt, Some(Halt::OnlyRemains { .. })), "{halt:?}"),
        }
        assert!(open(&running).is_empty());
        drop(running);
        assert_eq!(files(&device.plan.data_dir), before, "nothing was made, changed or removed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_removed_is_put_back_and_the_token_lives_on() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let (token, ca) = (device.token("sensor"), device.plan.run_dir.join("secrets/sensor/ca.pem"));
    let before = OsDisk.read(&ca, 10_000).unwrap();
    let put_back = |running: &Running, device: &Device| {
        assert_eq!(OsDisk.read(&ca, 10_000).unwrap(), before);
        assert_eq!(device.token("sensor").expose(), token.expose(), "the same token");
        assert_eq!(open(running), BOTH, "and no gate was shut");
    };
    OsDisk.remove_file(&ca).unwrap();
    device.clock.advance(Duration::from_secs(1));
    running.tick().await;
    put_back(&running, &device);
    assert!(lives(&running, &token).await);
    // Between two runs of the same boot.
    OsDisk.remove_file(&ca).unwrap();
    running.shutdown().await;
    let running = device.up().await;
    put_back(&running, &device);
    assert!(lives(&running, &token).await);
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_cannot_be_put_back_is_told_once() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let ca = device.plan.run_dir.join("secrets/sensor/ca.pem");
    let warnings =
        |device: &Device| device.ears.heard(|n| matches!(n, Note::Warning(text) if text.contains("the CA beside")));
    for told in [1, 2] {
        OsDisk.remove_file(&ca).unwrap();
        OsDisk.create_dir(&ca, 0o700).unwrap();
        for _ in 0..5 {
            device.clock.advance(Duration::from_secs(1));
            running.tick().await;
        }
        assert_eq!(warnings(&device), 2 * told - 1, "in five seconds");
        OsDisk.remove_dir(&ca).unwrap();
        device.clock.advance(Duration::from_secs(1));
        running.tick().await;
        assert_eq!(warnings(&device), 2 * told, "that it is back");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_worn_data_key_is_replaced_at_a_start() {
    let mut device = Device::new();
    let running = device.up().await;
    let used = |running: &Running| running.store().unwrap().head().unwrap().sealed_values;
    let before = used(&running);
    let token = device.token("sensor");
    running.shutdown().await;
    let wear = store::KeyWear { replace: before, end: before + 100 };
    let env = Environment { key_wear: wear, ..device.environment() };
    let running = up(device.plan.clone(), env, Box::new(Quiet)).await.unwrap();
    assert!(used(&running) < before, "{} of {before}", used(&running));
    assert!(lives(&running, &token).await, "what the old key encrypted is still read");
    for _ in 0..50 {
        let written = ask(&running, &token, Operation::Write, "secret/edgex/sensor/x", r#"{"a":"1"}"#).await;
        assert_eq!(written, Status::NO_CONTENT);
    }
    let half = used(&running);
    running.shutdown().await;

    // Nobody replaced it for so long that half of its life is over: said once.
    let env = Environment { key_wear: store::KeyWear { replace: u64::MAX, end: 2 * half }, ..device.environment() };
    let ears = Ears::default();
    let mut running = up(device.plan.clone(), env, Box::new(ears.clone())).await.unwrap();
    for _ in 0..3 {
        device.clock.advance(Duration::from_secs(1));
        running.tick().await;
    }
    assert_eq!(ears.heard(|n| matches!(n, Note::Alarm(text) if text.contains("restart edgekeep"))), 1);
    running.shutdown().await;
}

#[tokio::test]
async fn a_demo_store_is_not_opened_by_production() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    device.plan.profile = Profile::Production;
    // A production plan has no software key, so the refusal of the plan comes first; by the recovery key it would not.
    let refused = up(device.plan.clone(), device.environment(), Box::new(Quiet)).await;
    assert!(matches!(refused, Err(UpError::Plan(_))), "{refused:?}");
}

#[tokio::test]
async fn another_key_a_foreign_store_and_an_old_slot_set_are_told_apart() {
    let (mut one, mut two) = (Device::new(), Device::new());
    two.entropy = Arc::new(SeededEntropy::new(8));
    one.up().await.shutdown().await;
    two.up().await.shutdown().await;
    let copy = |from: PathBuf, to: PathBuf| {
        let bytes = OsDisk.read(&from, 1 << 24).unwrap();
        OsDisk.replace(&to, &bytes, 0o600, None).unwrap();
    };
    // The store of the other device under these slots.
    let kept = OsDisk.read(&one.state("store.db"), 1 << 24).unwrap().to_vec();
    copy(two.state("store.db"), one.state("store.db"));
    let running = one.up().await;
    let fact = running.halted().unwrap().to_string();
    assert!(fact.contains("is that of store"), "{fact}");
    drop(running);
    OsDisk.replace(&one.state("store.db"), &kept, 0o600, None).unwrap();
    // The key of the other device.
    copy(two.plan.data_dir.join("software.key"), one.plan.data_dir.join("software.key"));
    let running = one.up().await;
    let fact = running.halted().unwrap().to_string();
    assert!(fact.contains("is not the one that the slot was made with"), "{fact}");
    // The slots of before a change: both copies whole, and their key is the device's own.
    let mut three = Device::new();
    let mut running = three.up().await;
    let slots =
        ["slots.a", "slots.b"].map(|name| (three.state(name), OsDisk.read(&three.state(name), 10_000).unwrap()));
    let mut plan = running.plan().clone();
    plan.sources.push(crate::plan::SourceSpec::Software { file: plan.data_dir.join("second.key") });
    running.adopt_sources(&plan);
    running.add_slots(None, api::PeerAddress::Internal).await.unwrap();
    running.shutdown().await;
    for (path, bytes) in &slots {
        OsDisk.replace(path, bytes, 0o600, None).unwrap();
    }
    let running = three.up().await;
    let fact = running.halted().unwrap().to_string();
    assert!(fact.contains("have generation 1, and the store expects generation 2"), "{fact}");
    assert!(running.store().is_none() && open(&running).is_empty(), "refused before anything is served");
}

#[tokio::test]
async fn what_was_unsealed_is_let_go_when_it_is_sealed() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let services = Arc::downgrade(running.core().unwrap().services());
    assert!(services.upgrade().is_some());
    running.seal().await;
    assert!(services.upgrade().is_none(), "tables and engines of a sealed store are in memory");
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
    let services = Arc::downgrade(running.core().unwrap().services());
    running.shutdown().await;
    assert!(services.upgrade().is_none());
}

#[tokio::test]
async fn the_recovery_key_opens_a_device_whose_source_is_lost() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up().await.shutdown().await;
    let text = device.ears.key.lock().unwrap().take().unwrap();
    OsDisk.remove_file(&device.plan.data_dir.join("software.key")).unwrap();
    let mut running = device.up().await;
    assert!(open(&running).is_empty());
    let by = api::PeerAddress::Internal;
    running.recover(&RecoveryKey::generate(&SeededEntropy::new(99)), by.clone()).await.unwrap_err();
    assert!(open(&running).is_empty());
    running.recover(&RecoveryKey::parse(&text).unwrap(), by).await.unwrap();
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn no_terminal_no_store() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let running = up(device.plan.clone(), device.environment(), Box::new(Quiet)).await.unwrap();
    assert!(matches!(running.halted(), Some(Halt::Refused { .. })));
    assert_eq!(OsDisk.list(&device.plan.data_dir).unwrap(), ["lock"], "nothing else is there");
}
