//! Certificates that callers show, and the texts of roles and revocation lists: any bytes give a value or an error.
#![no_main]

use host::WallTime;
use libfuzzer_sys::fuzz_target;
use pki::peer::{Anchors, PeerFacts, revoked};
use rustls_pki_types::CertificateDer;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 4 {
        0 => drop(PeerFacts::parse(bytes)),
        1 => drop(revoked(bytes)),
        2 => drop(Anchors::from_pem(bytes)),
        // A chain of two, held against an authority.
        _ => {
            let authority = include_bytes!("../seeds/peer_certificate/authority.pem");
            let anchors = Anchors::from_pem(authority).expect("it is one");
            let (leaf, other) = bytes.split_at(bytes.len() / 2);
            let chain = [leaf, other].map(CertificateDer::from);
            assert!(anchors.vouch_for(&chain, WallTime(1_800_000_000_000_000_000)).is_err(), "nobody has signed for this");
        }
    }
});
