//! How many commands of the TPM a release takes: with every combination of what a policy can ask for.

use super::between::{Between, Listening, PCR_EXTEND, UNSEAL, code};
use super::*;

const POLICY_SECRET: u32 = 0x151;
const FLUSH_CONTEXT: u32 = 0x165;

/// A signature of the P-256 key for the image that runs, and two of the RSA key, one of which is for it.
const APPROVALS: [(Option<&str>, usize); 3] = [(None, 0), (Some("p256"), 4), (Some("rsa"), 5)];
const PIN: usize = 2;
const WINDOW: usize = 2;

/// What is added to a policy, and how many commands that is.
fn additions() -> impl Iterator<Item = (Option<&'static str>, PolicyRequest, usize)> {
    APPROVALS.into_iter().flat_map(|(key, approval)| {
        [(false, false), (true, false), (false, true), (true, true)].map(|(pin, window)| {
            let pcrs = if key.is_some() { PcrSet::new([7]).unwrap() } else { measured().pcrs };
            let window_of = window.then(|| Duration::from_secs(600));
            let policy = PolicyRequest { pcrs, pin, window: window_of, ..Default::default() };
            (key, policy, approval + if pin { PIN } else { 0 } + if window { WINDOW } else { 0 })
        })
    })
}

fn signing(key: Option<&str>) -> PcrSigning {
    let golden = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let public_key = key.map(|key| golden(&format!("pcr-{key}.pem")));
    PcrSigning { public_key, signature: golden("pcr-signature.json") }
}

/// The codes of a release, without those that only a bare socket needs: how many flushes there were is told apart.
fn heard(heard: &Listening, pin: bool) -> (Vec<u32>, usize) {
    let all = std::mem::take(&mut *heard.0.lock().unwrap());
    // At the first PIN of a boot the TPM notes that one was used, and has the command sent again (part 1, 19.8.6).
    let done = |answer: &[u8]| answer[6..10] != 0x922u32.to_be_bytes();
    let codes: Vec<u32> = all.iter().filter(|(_, answer)| done(answer)).map(|(c, _)| code(c)).collect();
    assert!(all.len() - codes.len() <= usize::from(pin), "{codes:x?}");
    let (flushes, codes): (Vec<u32>, Vec<u32>) = codes.iter().partition(|c| **c == FLUSH_CONTEXT);
    (codes, flushes.len())
}

/// Where the TPM keeps the storage key, behind a resource manager. The manual has this table, and what is added to it.
#[test]
fn of_a_sealed_object() {
    // (who counts, how often a boot, commands of the first release of a boot, of a later one)
    let table = [
        (Counting::Gate, None, 4, 4),
        (Counting::Index, Some(3), 8, 7),
        (Counting::Gate, Some(1), 6, 6),
        (Counting::Gate, Some(3), 8, 8),
    ];
    let mut most = 0;
    for (counting, limit, first, later) in table {
        let Some(mut device) = Device::counting(counting) else { return };
        let auth = device.pin_file("1234");
        for (key, policy, more) in additions() {
            let policy = PolicyRequest { releases_per_boot: limit.and_then(NonZeroU8::new), ..policy };
            let source = |device: &Device, at| device.source_at(at, Some(13)).signing(signing(key));
            let plain = |device: &Device| source(device, device.tpm.socket());
            let Provisioned { public, .. } = plain(&device).provision(&policy, &auth, soon()).unwrap();
            if counting == Counting::Index {
                // Its counter was tried, and is empty after a start.
                device.reboot();
            }
            let all = Listening::default();
            let bus = Between::new(&device.tpm, all.clone());
            for expected in [first, later].into_iter().take(limit.map_or(2, |n| usize::from(n.min(2)))) {
                source(&device, bus.socket()).release(&public, &auth, soon()).unwrap();
                let (codes, flushes) = heard(&all, policy.pin);
                assert_eq!(codes.len(), expected + more, "{counting:?} {policy:?} {key:?}: {codes:x?}");
                // The object's; and that of the vendor's key.
                assert_eq!(flushes, 1 + usize::from(key.is_some()), "{codes:x?}");
                most = most.max(codes.len());
                let at = |wanted| codes.iter().position(|c| *c == wanted);
                match (counting, limit) {
                    (_, None) => {}
                    (Counting::Gate, _) => assert!(at(UNSEAL) < at(PCR_EXTEND), "{codes:x?}"),
                    _ => {
                        assert!(at(POLICY_SECRET) < at(UNSEAL) && at(PCR_EXTEND) < at(POLICY_SECRET), "{codes:x?}");
                    }
                }
            }
            drop(bus);
            plain(&device).discard(&public, &[], &NoAuth, soon()).unwrap();
            if limit.is_some() {
                device.reboot();
            }
        }
    }
    assert_eq!(most, 17, "the manual names it");
}

#[test]
fn of_an_index() {
    let Some(device) = Device::new() else { return };
    let auth = device.pin_file("1234");
    for (limit, commands) in [(None, 5), (Some(1), 8)] {
        for (key, policy, more) in additions() {
            let policy = PolicyRequest { releases_per_boot: limit.and_then(NonZeroU8::new), ..policy };
            let source = |at: PathBuf| super::nv::source_at(&device, at).signing(signing(key));
            let Provisioned { public, .. } = source(device.tpm.socket()).provision(&policy, &auth, soon()).unwrap();
            let all = Listening::default();
            let bus = Between::new(&device.tpm, all.clone());
            source(bus.socket()).release(&public, &auth, soon()).unwrap();
            let (codes, _) = heard(&all, policy.pin);
            assert_eq!(codes.len(), commands + more, "{policy:?} {key:?}: {codes:x?}");
            drop(bus);
            source(device.tpm.socket()).discard(&public, &[], &NoAuth, soon()).unwrap();
        }
    }
}
