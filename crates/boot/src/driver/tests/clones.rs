//! An image that was captured after the first boot, on another machine.

use super::*;

impl Device {
    /// The files of a machine of this name.
    fn machine(&self, name: &str) -> PathBuf {
        let root = self.dir.path().join(format!("machine-{name}"));
        if !root.exists() {
            std::fs::create_dir_all(root.join("etc")).unwrap();
            OsDisk
                .write_new(&root.join("etc/machine-id"), format!("{name}-3d1219c7c4c5\n").as_bytes(), 0o644, None)
                .unwrap();
        }
        root
    }

    async fn up_on(&mut self, name: &str) -> Running {
        self.ears = Ears::default();
        let env = Environment { machine: self.machine(name), ..self.environment() };
        up(self.plan.clone(), env, Box::new(self.ears.clone())).await.unwrap()
    }
}

const BY: api::PeerAddress = api::PeerAddress::Internal;

#[tokio::test]
async fn an_image_captured_after_the_first_boot_is_refused_on_every_other_machine() {
    let mut device = Device::new();
    device.up_on("one").await.shutdown().await;
    let before = files(&device.plan.data_dir);
    let running = device.up_on("two").await;
    let halt = running.halted().unwrap();
    assert!(halt.to_string().contains("made on another machine"), "{halt}");
    assert!(halt.hint().contains("edgekeep generalize") && halt.hint().contains("edgekeep recover"), "{}", halt.hint());
    assert!(open(&running).is_empty() && running.store().is_none(), "nothing is served");
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Token { .. })), 0);
    drop(running);
    let running = device.up_on("one").await;
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    let after = files(&device.plan.data_dir);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_recovery_key_says_that_a_moved_disk_is_meant_to_be_there() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up_on("one").await.shutdown().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    let mut running = device.up_on("two").await;
    running.recover(&key, BY).await.unwrap();
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    let running = device.up_on("two").await;
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    assert!(device.up_on("one").await.halted().is_some(), "it is the other machine's now");
}

/// The disk of a board that broke, in another: another machine id, and another TPM. One command with the recovery key,
/// and the board starts by itself; the one that it came from is another machine then, be its TPM well again.
#[tokio::test]
async fn a_disk_moved_to_another_machine_and_another_tpm_takes_one_command() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (first, mut second) = (testkit::Swtpm::start(), testkit::Swtpm::start());
    let sources = |tpm: &testkit::Swtpm| vec![crate::testing::counted_tpm(&tpm.socket(), 2)];
    first.extend(7, 0x77);
    second.extend(7, 0x77);
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.plan.sources = sources(&first);
    device.up_on("one").await.shutdown().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();

    device.plan.sources = sources(&second);
    let mut running = device.up_on("two").await;
    assert!(running.halted().is_some() && open(&running).is_empty());
    let (_, change) = running.recover_and(&key, BY, true).await.unwrap();
    let change = change.unwrap();
    assert_eq!((&change.added, &change.removed, &change.told), (&vec![3], &vec![1], &vec![]));
    assert!(change.moved[0].starts_with("slot 3 hangs on the TPM with storage key "), "{change:?}");
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;

    second.reboot();
    second.extend(7, 0x77);
    device.clock.reboot();
    let running = device.up_on("two").await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "with nobody there");
    running.shutdown().await;
    device.plan.sources = sources(&first);
    let running = device.up_on("one").await;
    assert!(running.halted().is_some() && open(&running).is_empty(), "it has moved");
}

#[tokio::test]
async fn a_machine_that_says_nothing_is_warned_of_and_one_that_may_be_any_is_taken() {
    let mut device = Device::new();
    device.up_on("one").await.shutdown().await;
    std::fs::remove_file(device.machine("mute").join("etc/machine-id")).unwrap();
    let running = device.up_on("mute").await;
    assert_eq!(open(&running), BOTH);
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Warning(t) if t.contains("nothing tells"))), 1);
    running.shutdown().await;
    device.plan.dangers.any_machine = true;
    let running = device.up_on("two").await;
    assert_eq!(open(&running), BOTH);
}
