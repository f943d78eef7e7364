//! Shares that lay in clear, wrapped and replaced; with the power cut at every moment of it.

use std::sync::{Arc, Mutex};

use host::{Clock as _, Disk, OsDisk};
use seal::edgex::PlainSharesAllowed;
use testkit::{CrashDisk, Cut, FakeClock, Fault, NameRule, SeededEntropy, Unsynced};

use super::*;
use crate::custody::{Encrypted, Keeping};
use crate::fake::FakeStore;
use crate::place::{FILE, Place, SHARES, hex_of, hooked, ikm, plain, plain_text, us};
use crate::reopen::{Reunseal, reopen};
use crate::root::{RootError, RootToken};

/// Wraps and replaces, as a run does.
async fn run(custody: &Custody<'_>, store: &FakeStore) -> Result<ClearShares, RekeyError> {
    custody.encrypt_existing(None)?;
    let (root, shares) = RootToken::for_custody(store, custody, custody.load()?.shares).await.unwrap();
    let outcome = match custody.rekey_is_due()? {
        true => rekey(&root.over(store), custody, &shares).await,
        false => Ok(shares),
    };
    root.revoke(store).await.unwrap();
    outcome
}

#[tokio::test]
async fn shares_that_lay_in_clear_open_nothing_any_more() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    let custody = place.custody(hooked());
    let new = run(&custody, &store).await.unwrap();
    assert_eq!(hex_of(&new), store.state().shares, "the new ones are in force");
    assert!(store.state().shares.iter().all(|s| !SHARES.contains(&s.as_str())));
    assert_eq!(hex_of(&custody.load().unwrap().shares), hex_of(&new));
    assert_eq!(place.names(), [seal::edgex::SALT_FILE, FILE], "nothing else is left");
    let users: Vec<String> = store
        .state()
        .objects
        .keys()
        .filter_map(|k| k.strip_prefix("auth/edgekeep-custody/users/"))
        .map(str::to_owned)
        .collect();
    assert_eq!(users, [new.login().user], "the old shares log in nowhere");
    assert!(store.was_asked("sys/rotate"), "what is written from now on is under another data key");
    assert!(store.state().alive.is_empty());
}

#[tokio::test]
async fn a_cut_between_wrapping_and_rekeying_is_remembered() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    assert_eq!(place.custody(hooked()).encrypt_existing(None).unwrap(), Encrypted::Now);
    let custody = place.custody(hooked());
    assert_eq!(custody.encrypt_existing(None).unwrap(), Encrypted::Already);
    assert!(custody.rekey_is_due().unwrap());
    run(&custody, &store).await.unwrap();
    assert!(!custody.rekey_is_due().unwrap());
    assert!(SHARES.iter().all(|s| !store.state().shares.contains(&(*s).to_owned())));
}

/// The power goes at every write of the whole of it, with the store as it stood then; whatever it takes is on the disk,
/// and the next run ends with new shares.
#[tokio::test]
async fn a_power_cut_at_any_moment_of_a_rekey_leaves_the_shares_that_are_in_force() {
    assert_eq!(losses(&recorded(None).await).await, 0);
}

/// The mutant that is kept: a sync that does nothing must be noticed by the test above.
#[tokio::test]
async fn a_missing_sync_of_the_new_shares_is_noticed() {
    assert!(losses(&recorded(Some(Fault::SyncsLie(format!(".{FILE}.next.new")))).await).await > 0);
}

struct Recording {
    disk: CrashDisk,
    /// Events of the disk when the new shares came into force.
    in_force_from: usize,
    new: Vec<String>,
}

async fn recorded(fault: Option<Fault>) -> Recording {
    let before = CrashDisk::new();
    before.create_dir(&before.path("assets"), 0o700).unwrap();
    before.replace(&before.path("assets").join(FILE), plain_text(&SHARES).as_bytes(), 0o600, None).unwrap();
    before.sync_dir(before.root()).unwrap();
    let disk = CrashDisk::holding(&before.everything());
    if let Some(fault) = fault {
        disk.inject(fault);
    }
    let store = FakeStore::made(&SHARES, false);
    let from = Arc::new(Mutex::new(None));
    {
        let (from, disk) = (Arc::clone(&from), disk.clone());
        store.state().at_rekey = Some(Box::new(move || {
            from.lock().unwrap().get_or_insert(disk.events());
        }));
    }
    let entropy = SeededEntropy::new(9);
    let custody = Custody::new(&disk, &entropy, &disk.path("assets"), FILE, us(), hooked());
    let new = hex_of(&run(&custody, &store).await.unwrap());
    let in_force_from = from.lock().unwrap().expect("the store was rekeyed");
    Recording { disk, in_force_from, new }
}

/// How many cuts leave a disk with which the store of that moment cannot be had again.
async fn losses(recording: &Recording) -> usize {
    let Recording { disk, in_force_from, new } = recording;
    let mut lost = 0;
    for at in 0..=disk.events() {
        for (unsynced, names) in Unsynced::ALL.iter().flat_map(|u| NameRule::ALL.iter().map(move |n| (*u, *n))) {
            // At the very moment it may be the one or the other.
            let mut states = vec![at >= *in_force_from];
            if at == *in_force_from {
                states.push(false);
            }
            for is_new in states {
                let in_force: Vec<&str> =
                    if is_new { new.iter().map(String::as_str).collect() } else { SHARES.to_vec() };
                let place = Place::new();
                disk.image(&Cut { at, unsynced, names, seed: at as u64 }).write_to(place.dir.parent().unwrap());
                lost += usize::from(!goes_on(&place, &in_force).await);
            }
        }
    }
    lost
}

async fn goes_on(place: &Place, in_force: &[&str]) -> bool {
    let store = FakeStore::made(in_force, true);
    let custody = place.custody(hooked());
    let boot = FakeClock::at(0).boot_id();
    if custody.encrypt_existing(None).is_err() || reopen(&store, &custody, Reunseal::Always, boot).await.is_err() {
        return false;
    }
    let Ok(new) = run(&custody, &store).await else { return false };
    let now = store.state().shares.clone();
    hex_of(&new) == now && !SHARES.contains(&now[0].as_str()) && !place.text().contains("\"keys\"")
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_both_sets_and_the_store_says_which() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    store.state().lose_verify = true;
    let custody = place.custody(hooked());
    assert!(matches!(run(&custody, &store).await, Err(RekeyError::Ask(AskError::Call(_)))));
    assert_eq!(hex_of(&custody.load().unwrap().shares), SHARES);
    assert!(
        matches!(
            custody.decrypt_existing(PlainSharesAllowed::danger_plain_shares()),
            Err(CustodyError::Unsettled { .. })
        ),
        "it is not known which"
    );
    let in_force = store.state().shares.clone();
    // The old ones are refused, and the new ones take their place.
    run(&custody, &store).await.unwrap();
    assert_eq!(hex_of(&custody.load().unwrap().shares), in_force);
    assert_eq!(store.state().shares, in_force, "it is not done twice");
}

#[tokio::test]
async fn new_shares_that_never_came_into_force_are_dropped() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    let custody = place.custody(hooked());
    custody.encrypt_existing(None).unwrap();
    let never = FakeStore::made(&["dd04", "ee05", "ff06"], false);
    custody.keep_next(&loaded(&never)).unwrap();
    run(&custody, &store).await.unwrap();
    assert_eq!(place.names(), [seal::edgex::SALT_FILE, FILE]);
    assert_eq!(hex_of(&custody.load().unwrap().shares), store.state().shares);
}

fn loaded(store: &FakeStore) -> ClearShares {
    let keys = store.state().shares.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(",");
    match Shares::parse(format!("{{\"keys\":[{keys}]}}").as_bytes()).unwrap() {
        Shares::Clear(clear) => clear,
        Shares::Wrapped(_) => unreachable!(),
    }
}

#[tokio::test]
async fn a_store_that_would_not_wait_or_lets_nobody_in_keeps_its_shares() {
    for (unverified, no_rotation) in [(true, false), (false, true)] {
        let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
        store.state().unverified = unverified;
        store.state().no_rotation = no_rotation;
        let custody = place.custody(hooked());
        let refused = run(&custody, &store).await;
        match refused {
            Err(RekeyError::Unverified) if unverified => {}
            Err(RekeyError::NoDoor { told }) if no_rotation => assert!(told.contains("405"), "{told}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.state().shares, SHARES);
        assert_eq!(hex_of(&custody.load().unwrap().shares), SHARES, "wrapped they are all the same");
        assert!(custody.rekey_is_due().unwrap(), "and it is not forgotten");
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_shares_in_force() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    let custody = place.custody(hooked());
    custody.encrypt_existing(None).unwrap();
    OsDisk.create_dir(&place.dir.join(format!("{FILE}.next")), 0o700).unwrap();
    let root = RootToken::generate(&store, &loaded(&store)).await.unwrap();
    let refused = rekey(&root.over(&store), &custody, &loaded(&store)).await;
    assert!(matches!(refused, Err(RekeyError::Custody(_))), "{refused:?}");
    assert_eq!(store.state().shares, SHARES);
    root.revoke(&store).await.unwrap();
}

#[test]
fn shares_go_back_in_clear_where_somebody_says_so() {
    let place = Place::keeping(plain());
    let custody = place.custody(hooked());
    assert!(!custody.decrypt_existing(PlainSharesAllowed::danger_plain_shares()).unwrap(), "they are in clear");
    custody.encrypt_existing(None).unwrap();
    assert!(custody.decrypt_existing(PlainSharesAllowed::danger_plain_shares()).unwrap());
    assert!(place.text().contains("\"keys\"") && !custody.rekey_is_due().unwrap());
    assert_eq!(hex_of(&place.custody(plain()).load().unwrap().shares), SHARES);
    let without_hook = place.custody(plain());
    custody.encrypt_existing(None).unwrap();
    assert!(matches!(
        without_hook.decrypt_existing(PlainSharesAllowed::danger_plain_shares()),
        Err(CustodyError::NoHook { .. })
    ));
}

#[test]
fn shares_go_from_one_hook_to_another() {
    let place = Place::keeping(plain());
    place.custody(hooked()).encrypt_existing(None).unwrap();
    let replaced = place.custody(Keeping::Wrapped(ikm(100)));
    let told = replaced.load().map(|_| ()).unwrap_err().hint();
    assert!(told.contains("edgekeep seal encrypt-existing --former-hook"), "{told}");
    assert!(matches!(replaced.encrypt_existing(Some(&ikm(50))), Err(CustodyError::NotOpened { .. })));
    assert_eq!(replaced.encrypt_existing(Some(&ikm(1))).unwrap(), Encrypted::Rewrapped);
    assert_eq!(hex_of(&replaced.load().unwrap().shares), SHARES);
    assert!(place.custody(hooked()).load().is_err(), "the key material of before opens nothing");
}

/// Nobody has another door then, and it is as good as any until it is revoked at the end of the run.
#[tokio::test]
async fn the_root_token_of_the_file_serves_where_no_door_is_open() {
    let (place, store) = (Place::keeping(plain()), FakeStore::made(&SHARES, false));
    store.state().open_door = false;
    let token = store.state().token(&["root"]);
    let text = plain_text(&SHARES).replace('}', &format!(",\"root_token\":\"{token}\"}}"));
    OsDisk.replace(&place.dir.join(FILE), text.as_bytes(), 0o600, None).unwrap();
    let custody = place.custody(hooked());
    custody.encrypt_existing(None).unwrap();
    assert!(place.text().contains(&token), "wrapping the shares takes nobody's last resort");
    let held = custody.load().unwrap().shares;
    let (root, mut shares) = RootToken::for_custody(&store, &custody, held).await.unwrap();
    keep_login(&root.over(&store), &shares).await.unwrap();
    assert!(custody.drop_root_token(&mut shares).unwrap());
    root.revoke(&store).await.unwrap();
    // It has ended; the login of the shares is there instead.
    RootToken::generate(&store, &shares).await.unwrap().revoke(&store).await.unwrap();
    let mut dead = loaded(&store);
    dead.root_token = Some(secret::Token::parse(&token).unwrap());
    store.state().objects.clear();
    assert!(matches!(RootToken::for_custody(&store, &custody, dead).await, Err(RootError::NoDoor { .. })));
}
