//! A state that a vendor has signed: updates with nobody there, and images that nobody has signed.

use ::tpm::PolicyDigest;

use super::*;
use crate::source::PcrFound;

const SIGNED: &str = include_str!("../../../../tests/golden/pcr-signature.json");
const OTHERS: &str = include_str!("../../../../tests/golden/pcr-signature-other.json");
const UNMEASURED: &str = include_str!("../../../../tests/golden/pcr-signature-unmeasured.json");
const FORGED: &str = include_str!("../../../../tests/golden/pcr-signature-forged.json");

/// Bound to a vendor's key for register 11; 7 is fixed as it is here.
struct Signed {
    device: Device,
    signing: PcrSigning,
}

impl Signed {
    fn new(counting: Counting, key: &str) -> Option<Self> {
        let device = Device::counting(counting)?;
        let signing = PcrSigning {
            public_key: Some(device.dir.path().join("vendor.pem")),
            signature: device.dir.path().join("signature.json"),
        };
        let this = Self { device, signing };
        this.is_bound_to(key);
        this.image_brings(SIGNED);
        Some(this)
    }

    /// As an operator puts it there: of a checkout's files nobody says whose they are.
    fn is_bound_to(&self, key: &str) {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let pem = OsDisk.read(&golden.join(format!("pcr-{key}.pem")), 10_000).unwrap();
        OsDisk.replace(self.signing.public_key.as_ref().unwrap(), &pem, 0o644, None).unwrap();
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

    fn index(&self) -> TpmNvSource {
        super::nv::source(&self.device).signing(self.signing.clone())
    }

    fn provision(&self, policy: &PolicyRequest) -> Result<Provisioned, SourceError> {
        self.source().provision(policy, &NoAuth, soon())
    }

    fn release(&self, slot: &SlotPublic) -> Result<Released, SourceError> {
        self.source().release(slot, &NoAuth, soon())
    }

    /// How many signatures the key has, and the image that none of them is for, by the value of its register.
    fn not_signed(&self, slot: &SlotPublic) -> (usize, u8) {
        match self.release(slot) {
            Err(SourceError::NotSigned { signatures, found, .. }) => {
                let image = (0..=255).find(|image| found == [PcrFound { pcr: 11, value: after(*image) }]);
                (signatures, image.unwrap_or_else(|| panic!("{found:?}")))
            }
            other => panic!("{other:?}"),
        }
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
            assert_eq!(signed.not_signed(&public), (2, 0xdd));
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
    assert_eq!(signed.not_signed(&public), (1, 0xcc));
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
        Err(e @ (SourceError::NotApproved { .. } | SourceError::NotPresent { .. })) => e.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&signed).contains("no signature of the key"));
    signed.is_bound_to("rsa3072");
    assert!(refused(&signed).contains("RSA of 2048 bits or P-256"));
    signed.signing.public_key = Some(signed.device.dir.path().join("nowhere.pem"));
    assert!(refused(&signed).contains("nowhere.pem"));
}

/// A signature for registers that nobody extends is for every image that measures nothing.
#[test]
fn a_signature_for_registers_that_say_nothing_binds_nothing() {
    let Some(mut signed) = Signed::new(Counting::Gate, "unmeasured") else { return };
    signed.image_brings(UNMEASURED);
    signed.device.tpm.reboot();
    signed.device.tpm.extend(7, 0x77);
    for source in [&mut signed.source() as &mut dyn KeySource, &mut signed.index()] {
        let made = source.provision(&firmware(), &NoAuth, soon());
        let Err(SourceError::PolicyEmpty { defect }) = made else { panic!("{made:?}") };
        assert_eq!(defect, "PCR 11 was never extended: nothing is measured into it on this device");
    }
}

/// A slot that is made anew is made for what the vendor has signed, as the first one was.
#[test]
fn a_slot_is_not_made_anew_in_a_state_that_nobody_has_signed() {
    let Some(mut signed) = Signed::new(Counting::Index, "rsa") else { return };
    let old = signed.provision(&firmware()).unwrap().public;
    let beside = |signed: &Signed| signed.source().provision_beside(&old, Board::Same, &firmware(), &NoAuth, soon());
    signed.boot(0xdd);
    assert!(matches!(beside(&signed), Err(SourceError::NotSigned { .. })));
    signed.image_brings(FORGED);
    assert!(matches!(beside(&signed), Err(SourceError::NotApproved { .. })), "the TPM looks at the signature");
    signed.image_brings(SIGNED);
    signed.boot(0xcc);
    let new = beside(&signed).unwrap();
    assert!(signed.release(&new.public).unwrap().ikm.ct_eq(&new.ikm));
}

#[test]
fn an_index_can_be_bound_to_a_vendor_too() {
    let Some(mut signed) = Signed::new(Counting::Index, "rsa") else { return };
    let once = PolicyRequest { releases_per_boot: NonZeroU8::new(1), ..firmware() };
    let Provisioned { public, ikm } = signed.index().provision(&once, &NoAuth, soon()).unwrap();
    signed.boot(0xcc);
    assert!(signed.index().release(&public, &NoAuth, soon()).unwrap().ikm.ct_eq(&ikm));
    signed.boot(0xdd);
    assert!(matches!(signed.index().release(&public, &NoAuth, soon()), Err(SourceError::NotSigned { .. })));
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
