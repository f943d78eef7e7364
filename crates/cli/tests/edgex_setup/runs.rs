//! The runs that go well: the first, a second on an open store, one after a restart; with hook and without.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::bao::{Bao, in_venv};
use crate::place::{IKM, Place};

/// EdgeX's 18 services: made, open, restarted; each time with new tokens, and without those of before.
#[test]
fn first_second_and_restarted_with_a_hook() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::new(&bao);
    let said = place.must_set_up();
    assert!(said.contains("the store was made"), "{said}");
    let text = place.shares_text();
    assert!(text.contains("encrypted_keys") && !text.contains("\"keys\"") && !text.contains("root_token"), "{text}");
    assert!(place.held().shares.hex().all(|share| !text.contains(share.as_str())));
    assert_eq!(place.services().len(), 18);
    let first: Vec<String> = place.services().iter().map(|s| place.token(s)).collect();
    assert!(first.iter().all(|t| bao.knows(t)));
    assert_eq!(
        bao.call("POST", "secret/edgex/core-data/x", Some(&place.token("core-data")), Some(json!({"a": "b"}))).0,
        204
    );
    assert_eq!(bao.call("GET", "secret/edgex/core-data/x", Some(&place.token("core-metadata")), None).0, 403);

    // B2: Go's set-up has no shares here, and ends.
    place.must_set_up();
    let second: Vec<String> = place.services().iter().map(|s| place.token(s)).collect();
    assert!(second.iter().all(|t| bao.knows(t)), "the new ones live");
    assert!(first.iter().all(|t| !bao.knows(t)), "and the old ones do not");

    bao.restart();
    let said = place.must_set_up();
    assert!(said.contains("the store was unsealed"), "{said}");
    assert_eq!(place.shares_text(), text, "the shares stay as they are");
    assert_eq!(bao.call("GET", "secret/edgex/core-data/x", Some(&place.token("core-data")), None).1["data"]["a"], "b");
    only_our_root(&place, &bao);
}

/// A TPM behind EdgeX's hook: this executable, under the name of a hook.
#[test]
fn a_tpm_is_the_hook() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let Some(mut bao) = Bao::new() else { return };
    let mut tpm = testkit::Swtpm::start();
    let starts_with = |tpm: &mut testkit::Swtpm, firmware: u8| {
        tpm.reboot();
        tpm.extend(7, firmware);
    };
    starts_with(&mut tpm, 0x77);
    let place = Place::small(&bao);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_edgekeep"), place.path("edgekeep-ikm")).unwrap();
    let source = format!("[source]\nkind = \"tpm\"\ndevice = {:?}\npcrs = [7]\nreleases_per_boot = 1\n", tpm.socket());
    place.lay("hook.toml", source.as_bytes());
    let made = ["ikm", "provision", "--as-hook", "--config", "hook.toml", "--out", "hook.slot"];
    let output = place.run("edgekeep", &made);
    assert!(output.status.success(), "{output:?}");
    let at = |name: &str| place.path(name).display().to_string();
    let (hook, slot, config) = (at("edgekeep-ikm"), at("hook.slot"), at("hook.toml"));
    let place = place.with("EDGEX_IKM_HOOK", &hook).with("EDGEKEEP_IKM_SLOT", &slot);
    let place = place.with("EDGEKEEP_IKM_CONFIG", &config);

    place.must_set_up();
    let text = place.shares_text();
    assert!(text.contains("encrypted_keys") && !text.contains("\"keys\""), "{text}");
    bao.restart();
    starts_with(&mut tpm, 0x77);
    assert!(place.must_set_up().contains("the store was unsealed"));

    bao.restart();
    starts_with(&mut tpm, 0x78);
    let (code, said) = place.set_up();
    assert!(code == 1 && said.contains("PCR 7 is"), "{said}");
    assert_eq!(place.shares_text(), text);
    starts_with(&mut tpm, 0x77);
    assert!(place.must_set_up().contains("the store was unsealed"));
}

#[test]
fn without_a_hook_it_says_what_is_open() {
    let Some(mut bao) = Bao::legacy() else { return };
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK");
    let said = place.must_set_up();
    assert!(said.contains("WARN") && said.contains("opens the store and every secret in it"), "{said}");
    assert!(place.shares_text().contains("\"keys\"") && !place.shares_text().contains("root_token"));
    place.must_set_up();
    bao.restart();
    place.must_set_up();
    only_our_root(&place, &bao);
}

/// Shares on which EdgeX agrees with an implementation that has no line in common with ours.
#[test]
fn python_opens_what_we_wrote_and_we_open_what_it_wrote() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    let assets = place.path("assets").display().to_string();
    let opened = python(&["open", &assets, IKM, "secretstore"]);
    let ours: Vec<String> = place.held().shares.hex().map(|h| h.to_string()).collect();
    assert_eq!(opened.split_whitespace().collect::<Vec<_>>(), ours);
    // As EdgeX 3 would have written it: B6.
    for label in ["secretstore", "vault"] {
        let before = place.shares_text();
        python(&["write", &assets, IKM, label]);
        assert_ne!(place.shares_text(), before);
        bao.restart();
        place.must_set_up();
        only_our_root(&place, &bao);
    }
}

/// A store that Go's set-up made has no login for its shares: OpenBao 2.6 and later let in nobody then, and say so; one
/// run with the switch leaves the login behind.
#[test]
fn a_store_of_edgex_is_taken_over_with_the_switch_on_once() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao).without("EDGEX_IKM_HOOK");
    let (status, mut init) =
        bao.call("POST", "sys/init", None, Some(json!({"secret_shares": 5, "secret_threshold": 3})));
    assert_eq!(status, 200);
    // As EdgeX has it by the end of its first run.
    let root_token = init.as_object_mut().unwrap().remove("root_token").unwrap();
    place.lay("assets/resp-init.json", init.to_string().as_bytes());
    let (code, said) = place.set_up();
    assert_eq!(code, 1);
    assert!(said.contains("405") && said.contains("disable_unauthed_generate_root_endpoints = false"), "{said}");
    bao.restart_legacy(true);
    place.must_set_up();
    assert!(!bao.knows(root_token.as_str().unwrap()), "a root token of somebody's has ended");
    bao.restart_legacy(false);
    place.must_set_up();
    only_our_root(&place, &bao);
}

/// B12, and the copies of every credential; nothing is made twice.
#[test]
fn b12_a_credential_is_one_at_its_source_and_its_copies() {
    let Some(bao) = Bao::new() else { return };
    let place =
        Place::small(&bao).with("SECUREMESSAGEBUS_TYPE", "mqtt").with("EDGEX_ADD_KNOWN_SECRETS", "postgres[app]");
    place.must_set_up();
    let read =
        |root: &str, path: &str| bao.call("GET", &format!("secret/edgex/{path}"), Some(root), None).1["data"].clone();
    let all = |root: &str| {
        let source = "security-bootstrapper-postgres/core-data/postgres";
        [
            source,
            "core-data/postgres",
            "security-bootstrapper-postgres/app/postgres",
            "app/postgres",
            "security-bootstrapper-redis/redisdb",
            "core-data/redisdb",
            "security-bootstrapper-messagebus/message-bus",
            "core-data/message-bus",
            "security-bootstrapper-postgres/postgres",
        ]
        .map(|path| read(root, path))
    };
    let first = place.as_root(&bao, all);
    assert!(first.chunks_exact(2).all(|pair| pair[0] == pair[1]), "{first:?}");
    assert_eq!((&first[0]["username"], &first[2]["username"]), (&json!("core_data"), &json!("app")));
    assert!(first.iter().all(|c| c["password"].as_str().unwrap().len() == 44));
    place.must_set_up();
    assert_eq!(place.as_root(&bao, all), first, "a password that is there is never changed");
}

/// Go's set-up fails from the second run on.
#[test]
fn a_certificate_that_is_there_already_is_as_it_should_be() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    place.lay("proxy.crt", pem.as_bytes());
    place.lay("proxy.key", pem.replace("CERTIFICATE", "PRIVATE KEY").as_bytes());
    let place = place
        .with("SECRETSTORE_CERTPATH", "/v1/secret/edgex/proxy/tls")
        .with("SECRETSTORE_CERTFILEPATH", "proxy.crt")
        .with("SECRETSTORE_KEYFILEPATH", "proxy.key");
    place.must_set_up();
    place.must_set_up();
    let cert = place.as_root(&bao, |root| bao.call("GET", "secret/edgex/proxy/tls", Some(root), None).1);
    assert_eq!(cert["data"]["cert"], pem);
}

/// eKuiper's files, with the credential that stands in the store.
#[test]
fn ekuipers_files_have_the_credential_and_none_are_made() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao).with("SECUREMESSAGEBUS_TYPE", "mqtt");
    place.lay("kuiper/edgex.yaml", b"default: {}\n");
    let (source, connection) = (place.path("kuiper/edgex.yaml"), place.path("kuiper/connection.yaml"));
    let place = place
        .with("SECUREMESSAGEBUS_KUIPERCONFIGPATH", source.to_str().unwrap())
        .with("SECUREMESSAGEBUS_KUIPERCONNECTIONSPATH", connection.to_str().unwrap());
    place.must_set_up();
    let password = place.as_root(&bao, |root| {
        let path = "secret/edgex/security-bootstrapper-messagebus/message-bus";
        bao.call("GET", path, Some(root), None).1["data"]["password"].as_str().unwrap().to_owned()
    });
    assert!(std::fs::read_to_string(&source).unwrap().contains(&password));
    assert!(!connection.exists());
}

/// The one root token of this moment is the one that looks.
pub(crate) fn only_our_root(place: &Place, bao: &Bao) {
    place.as_root(bao, |root| {
        let accessors = bao.call("LIST", "auth/token/accessors", Some(root), None).1["data"]["keys"].clone();
        let policies = |accessor: &serde_json::Value| {
            let body = json!({ "accessor": accessor });
            bao.call("POST", "auth/token/lookup-accessor", Some(root), Some(body)).1["data"]["policies"].clone()
        };
        let all: Vec<_> = accessors.as_array().unwrap().iter().map(policies).collect();
        let of = |name: &str| all.iter().filter(|p| p.as_array().is_some_and(|p| p.contains(&json!(name)))).count();
        assert_eq!((of("root"), of("privileged-token-creator")), (1, 0), "{all:?}");
    });
}

fn python(arguments: &[&str]) -> String {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edgex_setup/shares.py");
    let output = Command::new(in_venv("python")).arg(script).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
