//! What is refused, and that nothing was done then. Names as in the list of EdgeX's defects.

use crate::bao::Bao;
use crate::place::Place;

/// The set-up refuses, names what it should, and has not touched the store.
fn refused(place: &Place, bao: &Bao, wanted: &[&str]) {
    let (code, said) = place.set_up();
    assert_eq!(code, 1, "{said}");
    assert!(wanted.iter().all(|w| said.contains(w)), "{said}");
    assert_eq!(bao.health(), 501, "the store was not made");
    assert!(!place.path("assets/resp-init.json").exists());
}

/// B1: with no key material at all the shares would be wrapped under a key that everybody can compute.
#[test]
fn b1_a_hook_that_gives_nothing_little_or_zeros_is_refused() {
    let Some(bao) = Bao::new() else { return };
    for (script, wanted) in [
        ("echo", "is not key material"),
        ("echo 00112233", "4 octets"),
        ("printf %064d 0; echo", "same octet"),
        ("exit 3", "exit status: 3"),
        ("head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo", "different key material"),
    ] {
        refused(&Place::small(&bao).hook(script), &bao, &[wanted]);
    }
    let place = Place::small(&bao).with("EDGEX_IKM_HOOK", "/nowhere/hook");
    refused(&place, &bao, &["/nowhere/hook is not there"]);
}

#[test]
fn encryption_that_is_required_is_never_left_out() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK").with("EDGEKEEP_REQUIRE_ENCRYPTION", "true");
    refused(&place, &bao, &["EDGEKEEP_REQUIRE_ENCRYPTION is set, and there is no hook"]);
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK").with("EDGEKEEP_REQUIRE_ENCRYPTON", "true");
    refused(&place, &bao, &["overrides nothing", "did you mean EDGEKEEP_REQUIRE_ENCRYPTION?"]);
}

/// Go's set-up warns, and goes on with passwords of its own.
#[test]
fn a_password_provider_that_is_not_there_is_an_error() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao).with("SECRETSTORE_PASSWORDPROVIDER", "no-such-program");
    refused(&place, &bao, &["no-such-program is not there, nor anywhere on PATH"]);
    for script in ["true", "echo short", "printf 'two\\nlines-of-it\\n'", "exit 1"] {
        let place = Place::small(&bao);
        place.program("passwords", script);
        refused(&place.with("SECRETSTORE_PASSWORDPROVIDER", "passwords"), &bao, &["PasswordProvider"]);
    }
}

#[test]
fn a_way_that_nothing_protects_is_refused() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao).with("SECRETSTORE_HOST", "edgex-secret-store");
    refused(&place, &bao, &["plain http to \"edgex-secret-store\"", "EDGEKEEP_DANGER_PLAIN_HTTP=true"]);
    let place = Place::small(&bao).with("SECRETSTORE_PROTOCOL", "https");
    refused(&place, &bao, &["CaFilePath is blank"]);
    // OpenBao here speaks no TLS: what answers is not believed.
    let place = Place::small(&bao).with("SECRETSTORE_HOST", "192.0.2.1").with("EDGEKEEP_DANGER_PLAIN_HTTP", "maybe");
    refused(&place, &bao, &["set it to true or false"]);
    let place = Place::small(&bao).with("EDGEKEEP_REUNSEAL", "sometimes");
    refused(&place, &bao, &["EDGEKEEP_REUNSEAL", "set it to always or once-per-boot"]);
}

/// B5, from outside: the hook is turned on for a file in clear, and off for a wrapped one.
#[test]
fn b5_a_hook_turned_on_or_off_is_told_at_once() {
    let Some(bao) = Bao::new() else { return };
    let plain = Place::small(&bao).without("EDGEX_IKM_HOOK");
    plain.must_set_up();
    let text = plain.shares_text();
    let plain = plain.hook(&format!("echo {}", crate::place::IKM));
    let (code, said) = plain.set_up();
    assert!(code == 1 && said.contains("edgekeep seal encrypt-existing"), "{said}");
    assert_eq!(plain.shares_text(), text);
    let output = plain.run("security-secretstore-setup", &["-configDir", "res", "--encryptExisting"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(plain.shares_text().contains("encrypted_keys") && !plain.shares_text().contains("\"keys\""));
    plain.must_set_up();

    let Some(bao) = Bao::new() else { return };
    let hooked = Place::small(&bao);
    hooked.must_set_up();
    let hooked = hooked.without("EDGEX_IKM_HOOK");
    let (code, said) = hooked.set_up();
    assert!(code == 1 && said.contains("is wrapped, and no hook is configured"), "{said}");
    assert!(hooked.shares_text().contains("encrypted_keys"), "never a plaintext downgrade");
    let hooked = hooked.hook("echo ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100");
    let (code, said) = hooked.set_up();
    assert!(code == 1 && said.contains("other key material"), "{said}");
}

#[test]
fn without_arguments_nothing_is_done_and_that_is_no_success() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let output = place.run("security-secretstore-setup", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--secretStoreInterval"));
    assert_eq!(bao.health(), 501);
}
