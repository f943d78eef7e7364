//! A state that a vendor has signed: updates with nobody there, and images that nobody has signed.

use ::tpm::PolicyDigest;

use super::*;

const SIGNED: &str = include_str!("../../../../tests/golden/pcr-signature.json");
const OTHERS: &str = include_str!("../../../../tests/golden/pcr-signature-other.json");
const FORGED: &str = include_str!("../../../../tests/golden/pcr-signature-forged.json");

/// Bound to a vendor's key for register 11; 7 is fixed as it is here.
struct Signed {
    device: Device,
    signing: PcrSigning,
}

impl Signed {
    fn new(counting: Counting, key: &str) -> Option<Self> {
        let device = Device::counting(counting)?;
        let public_key = format!("{}/tests/golden/pcr-{key}.pem", env!("CARGO_MANIFEST_DIR"));
        let signing =
            PcrSigning { public_key: Some(public_key.into()), signature: device.dir.path().join("signature.json") };
        let this = Self { device, signing };
        this.image_brings(SIGNED);
        Some(this)
    }

    fn image_brings(&self, signatures: &str) {
        OsDisk.replace(&self.signing.signature, signatures.as_bytes(), 0o644, None).unwrap();
    }

    /// Another start, of an image that extends 11 by `byte`.
    fn boot(&mut self, byte: u8) {
        self.device.tpm.reboot();
        self.device.tpm.extend(7, 0x77);
        self.device.tpm.extend(11, byte);
    }

    fn source(&self) -> TpmSource {
        self.device.source().signing(self.signing.clone())
    }

    fn provision(&self, policy: &PolicyRequest) -> Result<Provisioned, SourceError> {
        self.source().provision(policy, &NoAuth, soon())
    }

    fn release(&self, slot: &SlotPublic) -> Result<Released, SourceError> {
        self.source().release(slot, &NoAuth, soon())
    }

    fn refused(&self, slot: &SlotPublic) -> String {
        match self.release(slot) {
            Err(SourceError::NotApproved { defect, .. }) => defect,
            other => panic!("{other:?}"),
        }
    }
}

fn firmware() -> PolicyRequest {
    PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..Default::default() }
}

#[test]
fn what_the_vendor_signed_opens_after_an_update_with_nobody_there() {
    for counting in BOTH {
        for policy in [firmware(), PolicyRequest { releases_per_boot: NonZeroU8::new(2), ..firmware() }] {
            let Some(mut signed) = Signed::new(counting, "rsa") else { return };
            let Provisioned { public, ikm } = signed.provision(&policy).unwrap();
            for image in [0xbb, 0xcc, 0xbb] {
                signed.boot(image);
                assert!(signed.release(&public).unwrap().ikm.ct_eq(&ikm), "{image:#x}");
            }
            // Nobody has signed this one; and what is fixed stays fixed, whoever signs.
            signed.boot(0xdd);
            assert_eq!(signed.refused(&public), "none of the key's 2 signatures is for what PCR 11 hold now");
            signed.boot(0xbb);
            signed.device.tpm.extend(7, 1);
            assert!(matches!(signed.release(&public), Err(SourceError::PolicyMismatch { .. })));
        }
    }
}

#[test]
fn an_ecdsa_key_is_as_good() {
    let Some(mut signed) = Signed::new(Counting::Index, "p256") else { return };
    let Provisioned { public, ikm } = signed.provision(&firmware()).unwrap();
    signed.boot(0xbb);
    assert!(signed.release(&public).unwrap().ikm.ct_eq(&ikm));
    signed.boot(0xcc);
    assert_eq!(signed.refused(&public), "none of the key's 1 signatures is for what PCR 11 hold now");
}

#[test]
fn signatures_of_another_key_open_nothing() {
    let Some(mut signed) = Signed::new(Counting::Index, "rsa") else { return };
    let public = signed.provision(&firmware()).unwrap().public;
    signed.boot(0xdd);
    signed.image_brings(OTHERS);
    assert_eq!(signed.refused(&public), "it has no signature of the key that the slot is bound to");
    // By its name it is the right key's: the TPM finds out.
    signed.image_brings(FORGED);
    let told = signed.refused(&public);
    assert!(told.contains("the signature is not the key's"), "{told}");
    for (what, file) in [("no JSON", "{"), ("nothing", "{}")] {
        signed.image_brings(file);
        assert!(!signed.refused(&public).is_empty(), "{what}");
    }
    OsDisk.remove_file(&signed.signing.signature).unwrap();
    assert!(signed.refused(&public).contains("it cannot be read"));
}

#[test]
fn a_slot_is_not_bound_to_a_key_that_has_not_signed_what_runs() {
    let Some(mut signed) = Signed::new(Counting::Index, "other") else { return };
    let refused = |signed: &Signed| match signed.provision(&firmware()) {
        Err(e @ SourceError::NotApproved { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&signed).contains("no signature of the key"));
    signed.signing.public_key = Some(signed.device.dir.path().join("nowhere.pem"));
    assert!(refused(&signed).contains("nowhere.pem"));
    let large = format!("{}/tests/golden/pcr-rsa3072.pem", env!("CARGO_MANIFEST_DIR"));
    signed.signing.public_key = Some(large.into());
    assert!(refused(&signed).contains("RSA of 2048 bits or P-256"));
}

#[test]
fn an_index_can_be_bound_to_a_vendor_too() {
    let Some(mut signed) = Signed::new(Counting::Index, "rsa") else { return };
    let source = |signed: &Signed| {
        let clock = Arc::new(OsClock::new().unwrap());
        let lock = signed.device.dir.path().join("tpm.lock");
        TpmNvSource::new(signed.device.tpm.socket(), lock, Arc::new(OsDisk), clock, Arc::new(OsEntropy))
            .signing(signed.signing.clone())
    };
    let once = PolicyRequest { releases_per_boot: NonZeroU8::new(1), ..firmware() };
    let Provisioned { public, ikm } = source(&signed).provision(&once, &NoAuth, soon()).unwrap();
    signed.boot(0xcc);
    assert!(source(&signed).release(&public, &NoAuth, soon()).unwrap().ikm.ct_eq(&ikm));
    signed.boot(0xdd);
    assert!(matches!(source(&signed).release(&public, &NoAuth, soon()), Err(SourceError::NotApproved { .. })));
}

#[test]
fn the_next_image_may_be_predicted_beside_what_is_signed() {
    let Some(mut signed) = Signed::new(Counting::Index, "rsa") else { return };
    let old = signed.provision(&firmware()).unwrap();
    let values = PcrValues::new([(7, after(0x78))]);
    let new = signed.source().predict(&old.public, &values, &NoAuth, soon()).unwrap();
    signed.device.tpm.reboot();
    signed.device.tpm.extend(7, 0x78);
    signed.device.tpm.extend(11, 0xcc);
    assert!(signed.release(&new.public).unwrap().ikm.ct_eq(&new.ikm));
    assert!(signed.release(&old.public).is_err());
}

/// Made by `systemd-measure sign --bank=sha256` and `calculate`, of systemd 252: a signature for each phase of a boot.
#[test]
fn what_systemd_measure_signs_is_what_the_tpm_takes() {
    let Some(device) = Device::new() else { return };
    let key = parse_public_key(include_bytes!("../../../../tests/golden/systemd-measure.pem")).unwrap();
    let file = include_bytes!("../../../../tests/golden/systemd-measure.json");
    let approvals = PcrSignatures::parse(file).unwrap().of(&key);
    let calculated: Vec<PcrValues> = include_str!("../../../../tests/golden/systemd-measure.pcrs")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!((approvals.len(), calculated.len()), (4, 4));
    let mut tpm = device.source().chip.open(soon()).unwrap();
    let storage = tpm.storage_key().unwrap().pin();
    for (approval, values) in approvals.iter().zip(&calculated) {
        assert_eq!(PolicyDigest::default().pcr(approval.pcrs, values), Some(approval.policy));
        let trial = tpm.trial_session(&storage).unwrap();
        tpm.policy_authorize(&trial, &approval.policy, &key, &approval.signature).unwrap();
        assert_eq!(tpm.policy_digest(&trial).unwrap(), PolicyDigest::authorized_by(&key.name()));
        // Each is for its own phase alone.
        let other = approvals.iter().find(|a| a.policy != approval.policy).unwrap();
        let crossed = tpm.policy_authorize(&trial, &approval.policy, &key, &other.signature).unwrap_err();
        assert_eq!(crossed.refusal(), Some(Refusal::Signature));
        tpm.end(trial).unwrap();
    }
}
