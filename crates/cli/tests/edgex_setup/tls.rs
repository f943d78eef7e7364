//! a1: the store is where its certificate says, whatever a hosts file, a name server or a router says.

use crate::bao::{Authority, Bao, Setup};
use crate::place::Place;
use crate::runs::only_our_root;

pub(crate) fn behind_tls(place: Place, authority: &Authority) -> Place {
    place.with("SECRETSTORE_PROTOCOL", "https").with("SECRETSTORE_CAFILEPATH", authority.file.to_str().unwrap())
}

#[test]
fn a1_the_store_is_who_the_pinned_ca_says() {
    let authority = Authority::new();
    let Some(mut bao) = Bao::with(Setup { authority: Some(authority.clone()), ..Setup::default() }) else { return };
    let place = behind_tls(Place::small(&bao), &authority);
    place.must_set_up();
    bao.restart();
    place.must_set_up();
    assert!(bao.knows(&place.token("core-data")));
    only_our_root(&place, &bao);
    // By its name, where the address is another's word.
    place.with("SECRETSTORE_SERVERNAME", "edgex-secret-store").must_set_up();
}

/// Another machine answers at the address: nothing is asked of it, no share is sent, and nobody waits for it to do
/// better.
#[test]
fn a1_a_server_of_another_ca_or_name_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(bao) = Bao::with(Setup { authority: Some(authority.clone()), ..Setup::default() }) else { return };
    bao.health();
    let refused = |place: &Place| {
        let begun = std::time::Instant::now();
        let (code, said) = place.set_up();
        assert!(code == 1 && said.contains("is not the server that this device trusts"), "{said}");
        assert!(said.contains("CaFilePath"), "{said}");
        assert!(begun.elapsed().as_secs() < 120, "nobody waits for it, as for a store that comes late");
        assert_eq!(bao.health(), 501, "it was not made");
        assert!(!place.path("assets/resp-init.json").exists());
    };
    refused(&behind_tls(Place::small(&bao), &other));
    refused(&behind_tls(Place::small(&bao), &authority).with("SECRETSTORE_SERVERNAME", "another-store"));

    // With shares in hand: a sealed store that is not ours gets none of them.
    let place = behind_tls(Place::small(&bao), &authority);
    place.must_set_up();
    let shares = place.shares_text();
    drop(bao);
    let Some(impostor) = Bao::with(Setup { authority: Some(other), ..Setup::default() }) else { return };
    impostor.health();
    let place = place.with("SECRETSTORE_HOST", &impostor.ip);
    let (code, said) = place.set_up();
    assert!(code == 1 && said.contains("is not the server that this device trusts"), "{said}");
    let (status, seen) = impostor.call("GET", "sys/seal-status", None, None);
    assert_eq!((status, &seen["initialized"]), (200, &serde_json::json!(false)));
    assert_eq!(place.shares_text(), shares);
}
