//! `security-file-token-provider` by itself, and providers that are other programs.

use client::Bearer;
use external::IssuingToken;
use secret::Token;
use serde_json::json;

use crate::bao::Bao;
use crate::place::Place;
use crate::runs::only_our_root;

/// Puts an issuing token where the provider finds it.
fn grant(place: &Place, bao: &Bao) {
    place.as_root(bao, |root| {
        let runtime = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let vault = bao.vault();
                        let token = Token::parse(root).unwrap();
                        let issuing = IssuingToken::create(&Bearer::new(&vault, &token)).await.unwrap();
                        json!({ "auth": { "client_token": issuing.auth().client_token.expose() } }).to_string()
                    })
                })
                .join()
                .unwrap()
        });
        place.lay("privileged.json", runtime.as_bytes());
    });
}

#[test]
fn another_token_for_one_service() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    grant(&place, &bao);
    let before = place.token_file("core-data");
    let entity = before["auth"]["entity_id"].as_str().unwrap();
    let output = place.run(
        "security-file-token-provider",
        &["-configDir", "res-file-token-provider", "createToken", "-entityId", entity],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = place.token("core-data");
    assert_ne!(json!(token), before["auth"]["client_token"]);
    assert_eq!(bao.call("POST", "secret/edgex/core-data/x", Some(&token), Some(json!({"a": "b"}))).0, 204);
    assert_eq!(bao.call("GET", "secret/edgex/core-metadata/x", Some(&token), None).0, 403);
    let auth = &place.token_file("core-data")["auth"];
    assert_eq!((&auth["orphan"], &auth["renewable"]), (&json!(true), &json!(true)));
}

/// B8: Go's provider ends with 0 whatever happened. B9: it empties the file before it asks for a token.
#[test]
fn b8_b9_a_token_that_is_not_made_is_an_error_and_leaves_the_file_alone() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    grant(&place, &bao);
    let before = place.token_file("core-data");
    let again = |entity: &str| {
        let output = place.run(
            "security-file-token-provider",
            &["-configDir", "res-file-token-provider", "createToken", "-entityId", entity],
        );
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (entity, wanted) in [("00000000-0000-0000-0000-000000000000", "there is no such entity"), ("../x", "is no id")]
    {
        let (code, said) = again(entity);
        assert!(code == 1 && said.contains(wanted), "{said}");
    }
    bao.stop();
    let (code, said) = again(before["auth"]["entity_id"].as_str().unwrap());
    assert!(code == 1 && said.contains("does not answer"), "{said}");
    assert_eq!(place.token_file("core-data"), before);
}

/// A provider of somebody else's finds its token in a file while it runs, and neither outlives it.
#[test]
fn a_provider_that_is_another_program() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.program("provider", "test \"$1\" = one && cp run/token.json seen.json");
    let token = place.path("run/token.json");
    let place = place
        .with("SECRETSTORE_TOKENPROVIDER", "provider")
        .with("SECRETSTORE_TOKENPROVIDERARGS", "one,two")
        .with("SECRETSTORE_TOKENPROVIDERADMINTOKENPATH", token.to_str().unwrap());
    place.must_set_up();
    assert!(!token.exists());
    let seen: serde_json::Value = serde_json::from_slice(&std::fs::read(place.path("seen.json")).unwrap()).unwrap();
    assert!(!bao.knows(seen["auth"]["client_token"].as_str().unwrap()), "it has ended");
    only_our_root(&place, &bao);
    // One that fails ends the run, and no old token with it.
    place.program("provider", "exit 7");
    let (code, said) = place.set_up();
    assert!(code == 1 && said.contains("exit status: 7"), "{said}");
    assert!(!token.exists());
    only_our_root(&place, &bao);
}

/// Go's set-up ends all tokens first; a provider that fails then leaves the device without any.
#[test]
fn a_provider_that_fails_half_way_takes_nobodys_token() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    place.must_set_up();
    let before: Vec<String> = place.services().iter().map(|s| place.token(s)).collect();
    // The second service's directory is something else.
    std::fs::remove_dir_all(place.path("secrets/core-data")).unwrap();
    place.lay("secrets/core-data", b"a file");
    let (code, said) = place.set_up();
    assert!(code == 1 && said.contains("core-data is a file"), "{said}");
    assert!(before.iter().all(|t| bao.knows(t)), "all of them are alive still");
    std::fs::remove_file(place.path("secrets/core-data")).unwrap();
    place.must_set_up();
    assert!(before.iter().all(|t| !bao.knows(t)));
}
