//! Key shares from clear to wrapped and back, from one hook to another; and those that lay in clear replaced by the
//! real store.

use std::process::Output;
use std::time::Duration;

use serde_json::json;

use crate::bao::Bao;
use crate::place::{IKM, Place};
use crate::runs::only_our_root;

const OTHER_IKM: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn seal(place: &Place, arguments: &[&str]) -> (i32, String) {
    let all: Vec<&str> = ["seal"].iter().chain(arguments).chain(&["--configDir", "res"]).copied().collect();
    let output = place.run("edgekeep", &all);
    (output.status.code().unwrap(), said(&output))
}

fn hex_shares(place: &Place) -> Vec<String> {
    place.held().shares.hex().map(|h| h.to_string()).collect()
}

/// Whether these shares open the store, which is sealed for it.
fn open(bao: &mut Bao, shares: &[String]) -> bool {
    bao.restart();
    bao.call("GET", "sys/health", None, None);
    shares.iter().any(|share| {
        let (status, answer) = bao.call("POST", "sys/unseal", None, Some(json!({ "key": share })));
        status == 200 && answer["sealed"] == json!(false)
    })
}

#[test]
fn encrypt_existing_wraps_the_shares_and_the_store_replaces_them() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK");
    place.must_set_up();
    let old = hex_shares(&place);
    let token = place.token("core-data");
    let place = place.hook(&format!("echo {IKM}"));
    let (code, told) = seal(&place, &["encrypt-existing"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("they lay in clear until now") && told.contains("new key shares"), "{told}");
    let text = place.shares_text();
    assert!(text.contains("encrypted_keys") && !text.contains("\"keys\""), "{text}");
    let new = hex_shares(&place);
    assert_eq!(new.len(), old.len());
    assert!(old.iter().all(|share| !new.contains(share)));
    assert!(bao.knows(&token), "no service hears of it");
    only_our_root(&place, &bao);
    let (code, told) = seal(&place, &["encrypt-existing"]);
    assert!(code == 0 && told.contains("wrapped already"), "{told}");
    assert_eq!(hex_shares(&place), new, "nothing is done twice");

    assert!(!open(&mut bao, &old), "shares of a disk of before open nothing");
    place.must_set_up();
    only_our_root(&place, &bao);
}

/// The store is away while the shares are wrapped: the set-up goes on with it, by itself.
#[test]
fn a_rekey_that_found_no_store_is_done_by_the_next_set_up() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK");
    place.must_set_up();
    let old = hex_shares(&place);
    let place = place.hook(&format!("echo {IKM}"));
    bao.stop();
    let mut child = place.start("edgekeep", &["seal", "encrypt-existing", "--configDir", "res"]);
    place.until("the shares are wrapped", || place.shares_text().contains("encrypted_keys"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(hex_shares(&place), old);
    bao.restart();
    let told = place.must_set_up();
    assert!(told.contains("new key shares"), "{told}");
    assert!(hex_shares(&place).iter().all(|share| !old.contains(share)));
    assert!(!place.must_set_up().contains("new key shares"), "once");
}

/// Killed at random moments, as often as `EDGEKEEP_TEST_KILLS` says: the store can always be had again, and ends with
/// new shares.
#[test]
fn encrypt_existing_killed_at_random_moments() {
    let Some(mut bao) = Bao::new() else { return };
    let mut place = Place::small(&bao).without("EDGEX_IKM_HOOK");
    place.must_set_up();
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut longest = Duration::from_millis(300);
    for kill in 0..crate::kills::kills().min(40) {
        let old = hex_shares(&place);
        place = place.hook(&format!("echo {IKM}"));
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = place.start("edgekeep", &["seal", "encrypt-existing", "--configDir", "res"]);
        std::thread::sleep(longest.mul_f64(((state >> 33) % 1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        if kill % 2 == 1 {
            bao.restart();
        }
        let begun = std::time::Instant::now();
        let (code, told) = seal(&place, &["encrypt-existing"]);
        assert_eq!(code, 0, "kill {kill}: {told}");
        if kill % 2 == 0 {
            longest = longest.max(begun.elapsed());
        }
        let new = hex_shares(&place);
        assert!(old.iter().all(|share| !new.contains(share)), "kill {kill}");
        assert!(
            !place.path("assets/resp-init.json.next").exists() && !place.path("assets/.edgekeep-rekey.due").exists()
        );
        place.must_set_up();
        let (code, told) = seal(&place, &["decrypt-existing", "--yes-plaintext"]);
        assert_eq!(code, 0, "{told}");
        place = place.without("EDGEX_IKM_HOOK");
    }
    place.must_set_up();
    only_our_root(&place, &bao);
}

#[test]
fn decrypt_existing_needs_somebody_who_says_so() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    let wrapped = place.shares_text();
    let (code, told) = seal(&place, &["decrypt-existing"]);
    assert!(code == 1 && told.contains("nothing was done") && told.contains("--yes-plaintext"), "{told}");
    assert_eq!(place.shares_text(), wrapped);
    let required = place.with("EDGEKEEP_REQUIRE_ENCRYPTION", "true");
    let (code, told) = seal(&required, &["decrypt-existing", "--yes-plaintext"]);
    assert!(code == 1 && told.contains("stay wrapped"), "{told}");
    let place = required.without("EDGEKEEP_REQUIRE_ENCRYPTION");
    let (code, told) = seal(&place, &["decrypt-existing", "--yes-plaintext"]);
    assert_eq!(code, 0, "{told}");
    assert!(place.shares_text().contains("\"keys\""));
    place.without("EDGEX_IKM_HOOK").must_set_up();
}

#[test]
fn key_material_that_was_replaced_is_told_with_the_command_that_helps() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    place.program("former", &format!("echo {IKM}"));
    let place = place.hook(&format!("echo {OTHER_IKM}"));
    let (code, told) = place.set_up();
    assert!(code == 1 && told.contains("edgekeep seal encrypt-existing --former-hook"), "{told}");
    let former = place.path("former").display().to_string();
    let (code, told) = seal(&place, &["encrypt-existing", "--former-hook", &former]);
    assert_eq!(code, 0, "{told}");
    place.must_set_up();
}

/// A store of EdgeX, where OpenBao lets nobody in with shares: the root token in the file does, once.
#[test]
fn a_store_of_edgex_whose_file_has_a_root_token_needs_no_switch() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let (status, init) = bao.call("POST", "sys/init", None, Some(json!({"secret_shares": 5, "secret_threshold": 3})));
    assert_eq!(status, 200);
    place.lay("assets/resp-init.json", init.to_string().as_bytes());
    let (code, told) = seal(&place, &["encrypt-existing"]);
    assert_eq!(code, 0, "{told}");
    assert!(!place.shares_text().contains("root_token"));
    assert!(!bao.knows(init["root_token"].as_str().unwrap()), "it has ended");
    let old: Vec<&str> = init["keys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    assert!(hex_shares(&place).iter().all(|share| !old.contains(&share.as_str())));
    place.must_set_up();
    only_our_root(&place, &bao);
}
