//! Our certificates as others read them: OpenSSL's command and webpki, in 1970, today and in 9998.

// Scratch files for another program: nothing of them is to survive.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use host::OsEntropy;
use pki::{Ca, Scope, ServerCertificate, ServerNames};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

const NAMES: [&str; 4] = ["localhost", "edgex-secret-store", "127.0.0.1", "::1"];
const MOMENTS: [u64; 4] = [1, 1_795_000_000, 4_102_444_800, 253_370_764_800]; // 1970, 2026, 2100, 9999

fn names(texts: &[&str]) -> ServerNames {
    ServerNames::parse(texts.iter().copied()).unwrap()
}

fn issue(scope: &Scope) -> (Ca, ServerCertificate) {
    let ca = Ca::create(scope, &OsEntropy).unwrap();
    let leaf = ca.issue_server(&names(&NAMES), &OsEntropy).unwrap();
    (ca, leaf)
}

/// Whether webpki takes `leaf` for `name` at `moment`, trusting `ca` alone.
fn webpki(ca: &[u8], leaf: &[u8], name: &str, moment: u64) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    verifier
        .verify_server_cert(
            &CertificateDer::from(leaf.to_vec()),
            &[],
            &ServerName::try_from(name.to_owned()).unwrap(),
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(moment)),
        )
        .map(|_| ())
}

fn openssl(arguments: &[&str], dir: &Path) -> (bool, String) {
    let out = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("openssl is missing: apt-get install openssl, or EDGEKEEP_TEST_SKIP=openssl");
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn webpki_takes_every_name_at_every_time() {
    for scope in [Scope::Any, Scope::Only(names(&NAMES))] {
        let (ca, leaf) = issue(&scope);
        for moment in MOMENTS {
            for name in NAMES {
                webpki(ca.der(), leaf.der(), name, moment).unwrap_or_else(|e| panic!("{name} at {moment}: {e}"));
            }
            assert!(webpki(ca.der(), leaf.der(), "other", moment).is_err());
        }
    }
}

#[test]
fn webpki_refuses_another_devices_ca() {
    let (ca, leaf) = issue(&Scope::Any);
    let (other, _) = issue(&Scope::Any);
    assert!(webpki(ca.der(), leaf.der(), "localhost", MOMENTS[1]).is_ok());
    assert!(webpki(other.der(), leaf.der(), "localhost", MOMENTS[1]).is_err());
}

#[test]
fn openssl_verifies_the_chain_strictly() {
    if testkit::is_skipped("openssl") {
        return;
    }
    for scope in [Scope::Any, Scope::Only(names(&NAMES))] {
        let (ca, leaf) = issue(&scope);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(dir.path().join("leaf.der"), leaf.der()).unwrap();
        for moment in ["1", "1795000000", "4102444800"] {
            for name in [["-verify_hostname", "edgex-secret-store"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"]]
            {
                let fixed = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "-attime", moment];
                let arguments = [&fixed[..], &name[..], &["leaf.der"]].concat();
                let (good, said) = openssl(&arguments, dir.path());
                assert!(good, "{arguments:?}: {said}");
            }
        }
        let (good, said) =
            openssl(&["verify", "-CAfile", "ca.pem", "-verify_hostname", "elsewhere", "leaf.der"], dir.path());
        assert!(!good && said.contains("ostname mismatch"), "{said}");
    }
}

#[test]
fn openssl_reads_the_fields_that_we_mean() {
    if testkit::is_skipped("openssl") {
        return;
    }
    let (ca, leaf) = issue(&Scope::Only(names(&NAMES)));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.path().join("leaf.der"), leaf.der()).unwrap();
    let (_, text) = openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", "leaf.der"], dir.path());
    for part in [
        "Version: 3 (0x2)",
        "ecdsa-with-SHA256",
        "Not Before: Jan  1 00:00:00 1970 GMT",
        "Not After : Dec 31 23:59:59 9999 GMT",
        "DNS:edgex-secret-store, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
        "TLS Web Server Authentication",
        "Digital Signature",
        "CA:FALSE",
        "CN=edgex-secret-store",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (_, text) = openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", "ca.pem"], dir.path());
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "X509v3 Name Constraints: critical"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.contains("CN=edgekeep device CA "), "{text}");
}

/// What the name constraints are for: whoever steals the CA's key signs for a name outside with other tools.
#[test]
fn a_stolen_key_cannot_speak_for_other_names() {
    if testkit::is_skipped("openssl") {
        return;
    }
    let ca = Ca::create(&Scope::Only(names(&["localhost"])), &OsEntropy).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.path().join("ca.key.der"), ca.key().expose_pkcs8()).unwrap();
    std::fs::write(dir.path().join("san.cnf"), "subjectAltName=DNS:bank.example\n").unwrap();
    let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k.pem"];
    let (good, said) = openssl(&[&request[..], &["-subj", "/O=x", "-out", "r.pem"]].concat(), dir.path());
    assert!(good, "{said}");
    let sign =
        ["x509", "-req", "-in", "r.pem", "-CA", "ca.pem", "-CAkey", "ca.key.der", "-CAcreateserial", "-days", "40000"];
    let (good, said) = openssl(&[&sign[..], &["-extfile", "san.cnf", "-out", "forged.pem"]].concat(), dir.path());
    assert!(good, "{said}");
    let (good, said) = openssl(&["verify", "-CAfile", "ca.pem", "forged.pem"], dir.path());
    assert!(!good && said.contains("permitted subtree violation"), "{said}");
    let (good, said) = openssl(&["x509", "-in", "forged.pem", "-outform", "der", "-out", "forged.der"], dir.path());
    assert!(good, "{said}");
    let forged = std::fs::read(dir.path().join("forged.der")).unwrap();
    let refusal = webpki(ca.der(), &forged, "bank.example", MOMENTS[2]).unwrap_err();
    assert!(format!("{refusal:?}").contains("NameConstraint"), "{refusal:?}");
}
