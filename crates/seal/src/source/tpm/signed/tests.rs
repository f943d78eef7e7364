//! Files of signatures and keys as OpenSSL and systemd make them, and what is none.

use proptest::prelude::*;

use super::*;

const RSA: &str = include_str!("../../../../tests/golden/pcr-rsa.pem");
const P256: &str = include_str!("../../../../tests/golden/pcr-p256.pem");
const SIGNATURES: &str = include_str!("../../../../tests/golden/pcr-signature.json");

#[test]
fn keys_in_pem() {
    let rsa = parse_public_key(RSA.as_bytes()).unwrap();
    assert!(matches!(rsa, AuthorityKey::Rsa2048(_)));
    // Of RSA: `openssl rsa -pubin -RSAPublicKey_out -outform DER | sha256sum`
    assert_eq!(hex::encode(fingerprint(&rsa)), include_str!("../../../../tests/golden/pcr-rsa.fingerprint").trim());
    let p256 = parse_public_key(P256.as_bytes()).unwrap();
    assert!(matches!(p256, AuthorityKey::P256(_)));
    assert_eq!(hex::encode(fingerprint(&p256)), include_str!("../../../../tests/golden/pcr-p256.fingerprint").trim());
}

/// Whoever can write there decides what opens the slot.
#[test]
fn a_key_that_somebody_else_can_write_is_not_taken() {
    let dir = testkit::scratch_dir();
    let file = dir.path().join("vendor.pem");
    let signing = PcrSigning { public_key: Some(file.clone()), ..PcrSigning::default() };
    host::OsDisk.write_new(&file, RSA.as_bytes(), 0o644, None).unwrap();
    assert!(signing.key(&host::OsDisk).unwrap().is_some());
    host::OsDisk.set_mode(&file, 0o666).unwrap();
    assert!(matches!(signing.key(&host::OsDisk), Err(SourceError::NotTrusted { .. })));
}

#[test]
fn keys_that_are_none() {
    for wrong in
        ["", "-----BEGIN PUBLIC KEY-----", &RSA[5..], &RSA.replace("MIIB", "MIIC"), &RSA.replace("PUBLIC", "PRIVATE")]
    {
        assert_eq!(parse_public_key(wrong.as_bytes()), Err(PcrSigningError::NoKey), "{wrong}");
    }
    // RSA of 3072 bits is no key for every TPM.
    let large = include_str!("../../../../tests/golden/pcr-rsa3072.pem");
    assert_eq!(parse_public_key(large.as_bytes()), Err(PcrSigningError::NoKey));
    assert_eq!(parse_public_key(&[0xff; 64]), Err(PcrSigningError::NoKey));
}

#[test]
fn signatures_of_a_key_are_found() {
    let all = PcrSignatures::parse(SIGNATURES.as_bytes()).unwrap();
    let (rsa, p256) = [RSA, P256].map(|pem| parse_public_key(pem.as_bytes()).unwrap()).into();
    for (key, entries) in [(&rsa, 2), (&p256, 1)] {
        let own = all.of(key);
        assert_eq!(own.len(), entries);
        assert_eq!(own[0].pcrs.to_string(), "11");
    }
    // By a name that is the P-256 key's an RSA signature is passed over: it has another form.
    let crossed = SIGNATURES.replace(&hex::encode(fingerprint(&rsa)), &hex::encode(fingerprint(&p256)));
    assert_eq!(PcrSignatures::parse(crossed.as_bytes()).unwrap().of(&p256).len(), 1);
}

#[test]
fn files_that_are_none() {
    let of = |entry: &str| PcrSignatures::parse(format!("{{\"sha256\":[{entry}]}}").as_bytes()).unwrap_err();
    let digits = "ab".repeat(32);
    let entry = |pcrs: &str, pkfp: &str, pol: &str, sig: &str| {
        format!("{{\"pcrs\":[{pcrs}],\"pkfp\":\"{pkfp}\",\"pol\":\"{pol}\",\"sig\":\"{sig}\"}}")
    };
    let wrong = |what| PcrSigningError::Entry { number: 1, what };
    assert_eq!(of(&entry("", &digits, &digits, "AAAA")), wrong("pcrs"));
    assert_eq!(of(&entry("24", &digits, &digits, "AAAA")), wrong("pcrs"));
    assert_eq!(of(&entry("11", &digits[2..], &digits, "AAAA")), wrong("pkfp"));
    assert_eq!(of(&entry("11", &digits, "zz", "AAAA")), wrong("pol"));
    assert_eq!(of(&entry("11", &digits, &digits, "***")), wrong("sig"));
    assert_eq!(of("{}"), PcrSigningError::NotJson);
    assert_eq!(of(&entry("256", &digits, &digits, "AAAA")), PcrSigningError::NotJson);
    let good = entry("11", &digits, &digits, "AAAA");
    assert_eq!(of(&vec![good.clone(); MAX_ENTRIES + 1].join(",")), PcrSigningError::TooLarge);
    assert_eq!(PcrSignatures::parse(&vec![b' '; MAX_JSON_BYTES + 1]), Err(PcrSigningError::TooLarge));
    for json in ["", "[1]", "{\"sha256\":{}}", "null"] {
        assert_eq!(PcrSignatures::parse(json.as_bytes()), Err(PcrSigningError::NotJson), "{json}");
    }
    // Other banks alone: there is no signature, and no fault.
    assert_eq!(PcrSignatures::parse(b"{\"sha384\":[{}]}").unwrap(), PcrSignatures(Vec::new()));
}

#[test]
fn ecdsa_signatures_in_der() {
    let der = |r: &[u8], s: &[u8]| {
        let int = |n: &[u8]| [&[2, n.len() as u8][..], n].concat();
        let body = [int(r), int(s)].concat();
        [&[0x30, body.len() as u8][..], &body].concat()
    };
    let both = ecdsa_from_der(&der(&[&[0][..], &[0x80; 32]].concat(), &[1; 31])).unwrap();
    assert_eq!((both[0], both[31], both[32], both[33]), (0x80, 0x80, 0, 1));
    for (what, wrong) in [
        ("negative", der(&[0x80; 32], &[1])),
        ("a zero too many", der(&[0, 1], &[1])),
        ("none", der(&[], &[1])),
        ("too long", der(&[1; 33], &[1])),
        ("more behind", [der(&[1], &[1]), vec![0]].concat()),
        ("cut short", der(&[1], &[1])[..5].to_vec()),
        ("empty", vec![]),
        ("a third", [&[0x30, 9][..], &[2, 1, 1, 2, 1, 1, 2, 1, 1]].concat()),
    ] {
        assert_eq!(ecdsa_from_der(&wrong), None, "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_signatures_or_an_error(bytes: Vec<u8>) {
        let _ = PcrSignatures::parse(&bytes);
        let _ = parse_public_key(&bytes);
        let _ = ecdsa_from_der(&bytes);
    }
}
