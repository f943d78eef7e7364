//! The end of a device.

use secret::crypto::{Curve, verify};

use super::*;
use crate::driver::{Beginning, Receipt, SignedReceipt};
use crate::plan::{SourceSpec, TpmKeeping, TpmSpec};

const BY: api::PeerAddress = api::PeerAddress::Unix { uid: 0, pid: 77 };

fn point_of(certificate: &[u8]) -> Vec<u8> {
    // An uncompressed point of P-256 in a SubjectPublicKeyInfo: BIT STRING of 66 bytes, no bits unused, 4, x, y.
    let at = certificate.windows(4).position(|w| w == [0x03, 0x42, 0x00, 0x04]).unwrap();
    certificate[at + 3..at + 3 + 65].to_vec()
}

#[tokio::test]
async fn an_erased_device_opens_by_nothing_and_its_receipt_is_signed_by_the_device() {
    let mut device = Device::new();
    let second = SourceSpec::Software { file: device.plan.data_dir.join("second.key") };
    device.plan.sources.push(second);
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    let ca = running.ca().unwrap().der().to_vec();
    let pem = running.ca().unwrap().pem();
    let signed = running.erase(BY).await.unwrap();
    is_golden(&signed, device.dir.path(), "erased.txt");
    let SignedReceipt { receipt, signature, certificate, begun } = signed;
    assert_eq!((certificate, begun), (pem, None));
    let signature = hex::decode(signature).unwrap();
    verify(Curve::P256, &point_of(&ca), receipt.as_bytes(), &signature).unwrap();
    let other = receipt.replace("\"format\":1", "\"format\":2");
    assert!(verify(Curve::P256, &point_of(&ca), other.as_bytes(), &signature).is_err());
    let told: Receipt = serde_json::from_str(&receipt).unwrap();
    assert_eq!(told.erased.slots, ["software", "software", "recovery"]);
    assert!(told.unseal.starts_with("there are no slot files in ") && told.remains.len() == 3, "{told:?}");
    assert_eq!(told.sources.len(), 2, "{told:?}");
    assert!(told.sources.iter().all(|s| s.contains(".key is not there; asked for its key: ")), "{told:?}");

    assert!(open(&running).is_empty() && running.store().is_none());
    let mut left = OsDisk.list(&device.plan.data_dir).unwrap();
    left.sort();
    assert_eq!(left, ["erased.json", "lock"]);
    assert!(!running.token_directory(&"sensor".parse().unwrap()).exists());
    assert!(matches!(running.halted(), Some(Halt::Erased { .. })), "{:?}", running.halted());
    running.unseal().await;
    assert!(running.store().is_none());
    let halt = running.recover(&key, BY).await.unwrap_err();
    assert!(halt.to_string().contains("there are no slot files"), "{halt}");
    assert_eq!(running.erase(BY).await.unwrap().receipt, receipt, "the receipt of then, and no second one");
    running.shutdown().await;

    // An erased device makes no other by itself.
    let running = device.up().await;
    assert!(matches!(running.halted(), Some(Halt::Erased { .. })), "{:?}", running.halted());
    running.shutdown().await;
    destroy_state(&OsDisk, &device.plan).unwrap();
    let running = device.up().await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
    assert_ne!(running.ca().unwrap().der(), ca);
}

/// A receipt as people get it, with what is of one device alone struck out.
fn is_golden(signed: &SignedReceipt, dir: &Path, name: &str) {
    let struck = |text: &str| {
        let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
        for (key, value) in json.as_object_mut().unwrap() {
            if ["store", "receipt_key"].contains(&key.as_str()) {
                *value = format!("<{} digits>", value.as_str().unwrap().len()).into();
            } else if key == "machine" {
                *value = "<as boot/machine>".into();
            }
        }
        // In the order in which they stand.
        let mut keys: Vec<&str> = Vec::new();
        for word in text.split('"').filter(|word| json.get(word).is_some()) {
            if !keys.contains(&word) {
                keys.push(word);
            }
        }
        let lines: Vec<String> = keys.iter().map(|key| format!("    {key}: {}", json[key])).collect();
        lines.join("\n").replace(dir.to_str().unwrap(), "")
    };
    let mut text = format!("receipt\n{}\nsignature {} digits\n", struck(&signed.receipt), signed.signature.len());
    text.push_str(&format!("certificate {}\n", signed.certificate.lines().next().unwrap()));
    if let Some(begun) = &signed.begun {
        text.push_str(&format!("begun\n  beginning\n{}\n", struck(&begun.beginning)));
        text.push_str(&format!("  signature {} digits\n", begun.signature.len()));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/boot").join(name);
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        OsDisk.replace(&golden, text.as_bytes(), 0o644, None).unwrap();
    }
    let wanted = OsDisk.read(&golden, 100_000).unwrap();
    assert_eq!(text, std::str::from_utf8(&wanted).unwrap(), "EDGEKEEP_BLESS=1 writes it anew");
}

/// Who has signed, by the certificate alone.
fn signer(signed: &SignedReceipt, ca: &[u8]) -> Vec<u8> {
    let Some(begun) = &signed.begun else { return point_of(ca) };
    verify(Curve::P256, &point_of(ca), begun.beginning.as_bytes(), &hex::decode(&begun.signature).unwrap()).unwrap();
    let beginning: Beginning = serde_json::from_str(&begun.beginning).unwrap();
    hex::decode(beginning.receipt_key).unwrap()
}

/// The device is ended after every event of its erasure, by a cut and by a kill, and started again. While a slot copy
/// can be read it lives, and takes the command once more; else it goes on by itself. Both end without a slot, a key
/// file or a journal, and with a receipt that its CA, or whom the CA has named, has signed. No image has a receipt
/// beside something that opens.
#[tokio::test]
async fn an_end_at_any_moment_of_an_erasure_leaves_a_device_that_lives_or_a_receipt() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    // Not beside the store: no sync of the data directory syncs its name.
    disk.create_dir(&disk.path("keys"), 0o700).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.sources = vec![SourceSpec::Software { file: disk.path("keys/one.key") }];
        (plan, env)
    };
    let (plan, env) = start(7);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let ca = running.ca().unwrap().der().to_vec();
    let begun = disk.events();
    running.erase(BY).await.unwrap();
    drop(running);

    let (mut lived, mut went_on, mut by_another) = (0, 0, 0);
    for end in ends(&disk, begun..=disk.events()) {
        let when = format!("{end} of {begun}..={}", disk.events());
        end.restore(&disk, &plan);
        let (plan, env) = start(1000 + end.at as u64);
        let env = unrecorded(env);
        let receipt = plan.data_dir.join("erased.json");
        let key = || OsDisk.read(&disk.path("keys/one.key"), 100).is_ok_and(|b| b.iter().any(|b| *b != 0));
        if receipt.exists() {
            assert!(!key() && seal::SlotFiles::new(&OsDisk, plan.state_dir()).read().is_err(), "{when}");
        }
        let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
        let signed = match running.halted() {
            None => {
                assert_eq!(open(&running), BOTH, "{when}");
                assert_eq!(running.ca().unwrap().der(), ca, "{when}: the same device");
                assert!(!receipt.exists() && !plan.data_dir.join("erasing.key").exists(), "{when}: it was given up");
                lived += 1;
                running.erase(BY).await.unwrap()
            }
            Some(Halt::Erased { .. }) => {
                went_on += 1;
                running.erase(BY).await.unwrap()
            }
            other => panic!("{when}: {other:?}"),
        };
        if signed.begun.is_some() && by_another == 0 {
            is_golden(&signed, disk.root(), "erased-after-a-cut.txt");
        }
        by_another += usize::from(signed.begun.is_some());
        let signature = hex::decode(&signed.signature).unwrap();
        verify(Curve::P256, &signer(&signed, &ca), signed.receipt.as_bytes(), &signature).unwrap();
        let told: Receipt = serde_json::from_str(&signed.receipt).unwrap();
        assert_eq!((told.sources.len(), told.remains.len()), (1, 3), "{when}: {told:?}");
        let mut left = OsDisk.list(&plan.data_dir).unwrap();
        left.sort();
        assert_eq!(left, ["erased.json", "lock"], "{when}");
        assert!(!key() && OsDisk.list(&disk.path("keys")).unwrap().is_empty(), "{when}");
    }
    assert!(lived > 5 && went_on > 20 && by_another > 10, "{lived} {went_on} {by_another}");
}

/// What a TPM keeps is destroyed too, by whichever run comes to it, and the TPM is asked again: a counter, and an index
/// that holds the key.
#[tokio::test]
async fn an_erasure_goes_on_until_the_tpm_keeps_nothing() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    for (keeping, kind) in [(TpmKeeping::Sealed, "tpm"), (TpmKeeping::Index, "tpm-nv")] {
        let tpm = testkit::Swtpm::start();
        tpm.extend(7, 0x77);
        let disk = testkit::CrashDisk::new();
        let clock = Arc::new(FakeClock::at(0));
        let source = |device: &Path| {
            let SourceSpec::Tpm(tpm) = crate::testing::counted_tpm(device, 1) else { unreachable!("it is a TPM") };
            vec![SourceSpec::Tpm(TpmSpec { keeping, ..tpm })]
        };
        let start = |seed| {
            let (mut plan, env) = recorded(&disk, &clock, seed);
            plan.sources = source(&tpm.socket());
            (plan, env)
        };
        let (plan, env) = start(7);
        let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{kind}");
        let [index] = tpm.nv_indices()[..] else { panic!("{kind}: {:x?}", tpm.nv_indices()) };
        // The TPM is away at the moment when it is to destroy what it keeps.
        let mut away = plan.clone();
        away.sources = source(Path::new("/nonexistent/sock"));
        running.adopt_sources(&away);
        let halt = running.erase(BY).await.unwrap_err();
        assert!(halt.hint().contains("repeat edgekeep erase when it answers"), "{halt}: {}", halt.hint());
        assert!(matches!(running.halted(), Some(Halt::Erasing)) && !plan.data_dir.join("erased.json").exists());
        assert!(running.erase(BY).await.is_err(), "no receipt while the TPM was not asked");
        assert_eq!(tpm.nv_indices(), [index], "{kind}");
        drop(running);

        let (_, env) = start(8);
        let mut running = up(plan, env, Box::new(Quiet)).await.unwrap();
        assert!(matches!(running.halted(), Some(Halt::Erased { .. })), "{:?}", running.halted());
        let told: Receipt = serde_json::from_str(&running.erase(BY).await.unwrap().receipt).unwrap();
        let [said] = &told.sources[..] else { panic!("{told:?}") };
        let gone = format!("has no NV index 0x{index:08x} any more; asked for its key: ");
        assert!(said.contains(&gone) && said.contains("was tampered with"), "{said}");
        assert_eq!((told.remains.len(), &told.erased.slots[..]), (3, &[kind.to_owned()][..]));
        assert_eq!(tpm.nv_indices(), [0; 0], "{kind}");
    }
}

/// A journal that somebody has laid beside a device that lives erases nothing.
#[tokio::test]
async fn a_journal_laid_beside_a_whole_device_erases_nothing() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    OsDisk.write_new(&device.plan.data_dir.join("erasing"), b"{}", 0o600, None).unwrap();
    OsDisk.write_new(&device.plan.data_dir.join("erased.json"), b"{}", 0o600, None).unwrap();
    let running = device.up().await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Warning(t) if t.contains("ask for it again"))), 1);
    running.shutdown().await;
    assert!(!device.plan.data_dir.join("erasing").exists());
}

/// An erasure that was cut short before its first slot, and then a disk that gives neither copy today.
#[tokio::test]
async fn slots_that_cannot_be_read_are_not_slots_that_were_destroyed() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    let (state, journal) = (device.plan.state_dir(), device.plan.data_dir.join("erasing"));
    OsDisk.write_new(&journal, b"{}", 0o600, None).unwrap();
    let away = |copy: &str| state.join(format!("{copy}.away"));
    for copy in ["slots.a", "slots.b"] {
        OsDisk.rename(&state.join(copy), &away(copy), false).unwrap();
        OsDisk.create_dir(&state.join(copy), 0o700).unwrap(); // EISDIR, as good as EIO
    }
    let running = device.up().await;
    let halt = running.halted().unwrap().to_string();
    assert!(halt.contains("cannot be seen"), "{halt}");
    running.shutdown().await;
    for copy in ["slots.a", "slots.b"] {
        std::fs::remove_dir(state.join(copy)).unwrap();
        OsDisk.rename(&away(copy), &state.join(copy), false).unwrap();
    }
    let running = device.up().await;
    assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "the device lives");
}

/// A keeper that nobody can tell to forget.
#[derive(Debug)]
struct Deaf;

impl crate::driver::KekKeeper for Deaf {
    fn keep(&self, _: &seal::StoreId, _: &seal::SlotKek) -> std::io::Result<()> {
        Ok(())
    }

    fn fetch(&self, _: &seal::StoreId) -> std::io::Result<Option<seal::SlotKek>> {
        Ok(None)
    }

    fn forget(&self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::TimedOut.into())
    }
}

#[tokio::test]
async fn what_the_keeper_may_still_have_is_in_the_receipt() {
    let device = Device::new();
    let env = Environment { keeper: Some(Arc::new(Deaf)), ..device.environment() };
    let mut running = up(device.plan.clone(), env, Box::new(device.ears.clone())).await.unwrap();
    let receipt: Receipt = serde_json::from_str(&running.erase(BY).await.unwrap().receipt).unwrap();
    assert!(receipt.remains.iter().any(|fact| fact.contains("keeper of this boot may still")), "{receipt:?}");
    assert!(matches!(running.halted(), Some(Halt::Erased { .. })));
}

/// The bytes of slots and key files are written over before the names go.
#[tokio::test]
async fn slots_and_key_files_are_overwritten_before_they_are_removed() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let (plan, env) = recorded(&disk, &clock, 7);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let names = ["data/slots.a", "data/slots.b", "software.key"].map(|n| PathBuf::from("device").join(n));
    let begun = disk.events();
    running.erase(BY).await.unwrap();
    for name in names {
        // Killed at the last moment at which the name is there, the file holds zeros alone.
        let last = (begun..=disk.events())
            .rev()
            .map(|at| disk.killed(at))
            .find_map(|image| image.file(name.to_str().unwrap()).map(<[u8]>::to_vec));
        let bytes = last.unwrap();
        assert!(!bytes.is_empty() && bytes.iter().all(|b| *b == 0), "{}", name.display());
    }
}
