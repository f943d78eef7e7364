//! The end of a device.

use secret::crypto::{Curve, verify};

use super::*;
use crate::driver::{Receipt, SignedReceipt};
use crate::plan::SourceSpec;

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
    let SignedReceipt { receipt, signature, certificate } = running.erase(BY).await.unwrap();
    assert_eq!(certificate, pem);
    let signature = hex::decode(signature).unwrap();
    verify(Curve::P256, &point_of(&ca), receipt.as_bytes(), &signature).unwrap();
    let other = receipt.replace("\"format\":1", "\"format\":2");
    assert!(verify(Curve::P256, &point_of(&ca), other.as_bytes(), &signature).is_err());
    let told: Receipt = serde_json::from_str(&receipt).unwrap();
    assert_eq!(told.slots, ["software", "software", "recovery"]);
    assert!(told.unseal.starts_with("there are no slot files in ") && told.remains.len() == 3, "{told:?}");

    assert!(open(&running).is_empty() && running.store().is_none());
    assert_eq!(OsDisk.list(&device.plan.data_dir).unwrap(), ["lock"]);
    assert!(!running.token_directory(&"sensor".parse().unwrap()).exists());
    running.unseal().await;
    assert!(running.halted().unwrap().to_string().contains("there are no slot files"), "{:?}", running.halted());
    running.recover(&key, BY).await.unwrap_err();
    assert!(running.erase(BY).await.is_err(), "nothing is left to be erased, and no second receipt");
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
