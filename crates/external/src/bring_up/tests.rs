//! Every state that a store and its shares can be found in. The names B1 to B5 are those of the defects of EdgeX's
//! set-up that each test would meet there.

use std::sync::{Arc, Mutex};

use host::{Disk, OsClock, OsDisk};
use seal::Ikm;
use seal::edgex::{EdgexLabel, EdgexSalt, OpenSharesError, SALT_FILE, SaltError};
use secret::SecretBytes;
use testkit::{CrashDisk, Cut, Fault, NameRule, SeededEntropy, Unsynced};

use super::*;
use crate::custody::{Encrypted, Keeping};
use crate::fake::{FakeStore, clear_shares};
use crate::place::{FILE, Place, SHARES, hex_of, hooked, ikm, plain, plain_text, us};
use crate::stop::stop;

fn wish(limit: Duration) -> Wish {
    Wish {
        counts: ShareCounts { shares: 3, threshold: 2 },
        limit,
        longest_pause: Duration::from_millis(5),
        reunseal: Reunseal::Always,
    }
}

impl Place {
    async fn up(&self, store: &FakeStore, keeping: Keeping) -> Result<Opened, BringUpError> {
        let custody = self.custody(keeping);
        let (_halt, stop) = stop();
        bring_up(store, &custody, wish(Duration::from_secs(5)), &OsClock::new().unwrap(), &stop).await
    }
}

async fn ends(opened: Opened, store: &FakeStore) {
    if let Some(root) = opened.initial_root {
        root.revoke(store).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_store_is_made_kept_and_opened() {
    for keeping in [hooked as fn() -> Keeping, plain] {
        let (place, store) = (Place::new(), FakeStore::default());
        let opened = place.up(&store, keeping()).await.unwrap();
        assert_eq!(opened.done, Done::Made);
        assert_eq!(hex_of(&opened.shares), store.state().shares);
        assert_eq!(hex_of(&place.custody(keeping()).load().unwrap().shares), store.state().shares);
        assert!(!place.text().contains("root_token"), "it is on no disk");
        let in_clear = store.state().shares.iter().any(|s| place.text().contains(s.as_str()));
        assert_eq!(in_clear, matches!(keeping(), Keeping::Plain(_)));
        let names = OsDisk.list(&place.dir).unwrap();
        assert!(!names.iter().any(|n| n.contains("intent")), "{names:?}");
        ends(opened, &store).await;
        assert!(store.state().alive.is_empty());
    }
}

/// OpenBao 2.6 and later: the store is made, its shares are kept, and the run is killed, or stopped, before their login
/// is there.
#[tokio::test]
async fn a_run_that_ends_before_the_login_is_there_is_gone_on_with() {
    let (place, store) = (Place::new(), FakeStore::default());
    let opened = place.up(&store, hooked()).await.unwrap();
    let custody = place.custody(hooked());
    std::mem::forget(opened.initial_root);
    store.state().refuse = Some(("sys/policies/acl/edgekeep-custody", 500));
    let (root, held) = RootToken::for_custody(&store, &custody, custody.load().unwrap().shares).await.unwrap();
    // A store that fails at that very moment leaves the token for the next run.
    assert!(root.with_login(&store, &custody, &held).await.is_err());
    store.state().refuse = None;
    let (root, held) = RootToken::for_custody(&store, &custody, held).await.unwrap();
    let root = root.with_login(&store, &custody, &held).await.unwrap();
    root.revoke(&store).await.unwrap();
    assert!(!OsDisk.list(&place.dir).unwrap().iter().any(|n| n.contains("first-root")), "it is needed no more");
    RootToken::generate(&store, &held).await.unwrap().revoke(&store).await.unwrap();
    assert!(store.state().alive.is_empty());
}

/// Go's set-up loads the wrapped file of a store that is open, and goes on without a share.
#[tokio::test]
async fn b2_a_second_run_on_an_open_store_has_its_shares() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&SHARES, false));
    let opened = place.up(&store, hooked()).await.unwrap();
    assert_eq!((opened.done, opened.on_disk), (Done::Nothing, Some(OnDisk::Wrapped(EdgexLabel::SecretStore))));
    assert_eq!(hex_of(&opened.shares), SHARES);
    let root = RootToken::generate(&store, &opened.shares).await.unwrap();
    root.revoke(&store).await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_restarted_is_unsealed() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&SHARES, true));
    assert_eq!(place.up(&store, hooked()).await.unwrap().done, Done::Unsealed);
    assert!(!store.state().sealed);
}

/// Go's set-up unseals first and saves later: a full disk, or a cut, takes the only shares.
#[tokio::test]
async fn b3_nothing_is_unsealed_by_shares_that_are_not_on_the_disk() {
    let disk = CrashDisk::new();
    let lost = losses(&disk).await;
    assert_eq!(lost, 0, "a power cut after the first unseal left no shares");
}

/// The mutant that is kept: a sync that does nothing must be noticed by the test above.
#[tokio::test]
async fn b3_a_missing_sync_is_noticed() {
    let disk = CrashDisk::new();
    disk.inject(Fault::SyncsLie(format!(".{FILE}.new")));
    assert!(losses(&disk).await > 0);
}

/// Makes a store, cuts the power at every moment from the first unseal on, and counts the cuts that left no shares that
/// open.
async fn losses(disk: &CrashDisk) -> usize {
    let (store, entropy) = (FakeStore::default(), SeededEntropy::new(3));
    let first = Arc::new(Mutex::new(None));
    {
        let (first, disk) = (Arc::clone(&first), disk.clone());
        store.state().at_unseal = Some(Box::new(move || {
            first.lock().unwrap().get_or_insert(disk.events());
        }));
    }
    let custody = Custody::new(disk, &entropy, &disk.path("assets"), FILE, us(), hooked());
    let (_halt, stop) = stop();
    let clock = OsClock::new().unwrap();
    let opened = bring_up(&store, &custody, wish(Duration::from_secs(5)), &clock, &stop).await.unwrap();
    let wanted = hex_of(&opened.shares);
    ends(opened, &store).await;
    let from = first.lock().unwrap().expect("it was unsealed");
    let mut lost = 0;
    for at in from..=disk.events() {
        for (unsynced, names) in Unsynced::ALL.iter().flat_map(|u| NameRule::ALL.iter().map(move |n| (*u, *n))) {
            let place = Place::new();
            disk.image(&Cut { at, unsynced, names, seed: at as u64 }).write_to(place.dir.parent().unwrap());
            let found = place.custody(hooked()).load();
            lost += usize::from(!found.is_ok_and(|held| hex_of(&held.shares) == wanted));
        }
    }
    lost
}

#[tokio::test]
async fn b3_a_place_that_takes_no_shares_is_found_before_the_store_is_made() {
    let store = FakeStore::default();
    let place = Place::new();
    OsDisk.write_new(&place.dir, b"a file where the directory should be", 0o600, None).unwrap();
    assert!(matches!(place.up(&store, hooked()).await, Err(BringUpError::Custody(CustodyError::Disk { .. }))));
    let disk = CrashDisk::new();
    disk.inject(Fault::FullAfterWrites(1));
    let entropy = SeededEntropy::new(3);
    let custody = Custody::new(&disk, &entropy, &disk.path("assets"), FILE, us(), hooked());
    let (_halt, stop) = stop();
    let clock = OsClock::new().unwrap();
    let refused = bring_up(&store, &custody, wish(Duration::from_secs(5)), &clock, &stop).await;
    assert!(matches!(refused, Err(BringUpError::Custody(CustodyError::Disk { .. } | CustodyError::Salt(_)))));
    assert!(!store.was_asked("sys/init"), "{:?}", store.state().asked);
}

#[tokio::test]
async fn a_reply_of_init_that_is_lost_is_told_as_that() {
    let (place, store) = (Place::new(), FakeStore::default());
    store.state().lose_init = true;
    let told = place.up(&store, hooked()).await.err().unwrap();
    assert!(matches!(told, BringUpError::Custody(CustodyError::Missing { cut_short: true, .. })), "{told:?}");
    assert!(told.hint().contains("nothing was ever kept"));
    // The next run says the same, and makes nothing.
    let again = place.up(&store, hooked()).await.err().unwrap();
    assert_eq!(again.to_string(), told.to_string());
}

#[tokio::test]
async fn an_init_that_was_refused_leaves_no_such_note() {
    let (place, store) = (Place::new(), FakeStore::default());
    store.state().refuse = Some(("sys/init", 400));
    assert!(matches!(place.up(&store, hooked()).await, Err(BringUpError::Init(_))));
    let other = FakeStore::made(&SHARES, true);
    let told = place.up(&other, hooked()).await.err().unwrap();
    assert!(matches!(told, BringUpError::Custody(CustodyError::Missing { cut_short: false, .. })));
}

/// A killed run's request is still at work in the store when the next run comes.
#[tokio::test]
async fn a_note_of_an_earlier_run_outlives_a_refusal() {
    let (place, store) = (Place::new(), FakeStore::default());
    place.custody(hooked()).prepare().unwrap();
    store.state().refuse = Some(("sys/init", 400));
    assert!(matches!(place.up(&store, hooked()).await, Err(BringUpError::Init(_))));
    let made_meanwhile = FakeStore::made(&SHARES, true);
    let told = place.up(&made_meanwhile, hooked()).await.err().unwrap();
    assert!(matches!(told, BringUpError::Custody(CustodyError::Missing { cut_short: true, .. })));
}

/// A process beside makes the store: whoever wanted it may be killed at any moment, and the next run has the shares.
#[tokio::test(start_paused = true)]
async fn a_store_that_another_process_makes_is_gone_on_with_from_the_disk() {
    for keeping in [hooked as fn() -> Keeping, plain] {
        let (place, store) = (Place::new(), FakeStore::default());
        let (custody, maker) = (place.custody(keeping()), place.custody(keeping()));
        let clock = OsClock::new().unwrap();
        let (_halt, stop) = stop();
        let wish = wish(Duration::from_secs(5));
        let beside = async || crate::make_and_keep(&store, &maker, wish.counts).await;
        let opened = bring_up_beside(&store, &custody, wish, &clock, &stop, beside).await.unwrap();
        assert_eq!((opened.done, hex_of(&opened.shares)), (Done::Made, store.state().shares.clone()));
        // Its first root token is the one that serves, and the only one there is.
        let (root, _) = RootToken::for_custody(&store, &custody, opened.shares).await.unwrap();
        assert_eq!(store.state().alive.len(), 1);
        root.revoke(&store).await.unwrap();
        assert!(store.state().alive.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_is_still_at_it_is_waited_for_and_a_second_one_makes_nothing() {
    let (place, store) = (Place::new(), FakeStore::made(&SHARES, true));
    let custody = place.custody(hooked());
    let at_it = custody.claim_making().unwrap().expect("nobody else is");
    let kept = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!store.was_asked("sys/unseal"), "it has no shares yet");
        assert!(make(&store, &custody, wish(Duration::ZERO).counts).await.unwrap().is_none());
        custody.save(&clear_shares(&SHARES)).unwrap();
        drop(at_it);
    };
    let (opened, ()) = tokio::join!(place.up(&store, hooked()), kept);
    assert_eq!(opened.unwrap().done, Done::Unsealed);
    assert!(!store.was_asked("sys/init"));
    // One that was started late, for somebody who is no more.
    crate::make_and_keep(&store, &place.custody(hooked()), wish(Duration::ZERO).counts).await.unwrap();
    assert!(!store.was_asked("sys/init"));
}

/// OpenBao that dies in the middle of its own init: its health is 500 for ever.
#[tokio::test(start_paused = true)]
async fn a_store_that_died_while_it_was_made_is_told_in_seconds_by_what_is_known_of_it() {
    let half = || {
        let store = FakeStore::default();
        store.state().half_made = u32::MAX;
        store
    };
    let (noted, holding) = (Place::new(), Place::keeping(hooked()));
    noted.custody(hooked()).prepare().unwrap();
    let file = holding.dir.join(FILE);
    for (place, wanted, advice) in [
        (noted, Remains::OurNote, "no key share of it was ever given to anybody"),
        (Place::new(), Remains::Nothing, "if no store was ever in use in its storage"),
        (holding, Remains::Shares { file }, "delete neither"),
    ] {
        let (store, begun) = (half(), tokio::time::Instant::now());
        let told = place.up(&store, hooked()).await.err().unwrap();
        assert!(matches!(&told, BringUpError::HalfMade { remains, .. } if *remains == wanted), "{told:?}");
        assert!(told.hint().contains(advice), "{}", told.hint());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(!store.was_asked("sys/init") && !store.was_asked("sys/unseal"));
    }
}

/// So does one that somebody else's init is at work in.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_half_made_for_a_moment_is_waited_for() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&SHARES, true));
    store.state().half_made = 5;
    assert_eq!(place.up(&store, hooked()).await.unwrap().done, Done::Unsealed);
}

/// And one that raft has a state of, and no barrier is in: a run before this one had asked for its making, or nobody of
/// here.
#[tokio::test]
async fn a_store_that_died_before_it_had_a_barrier_is_told_by_its_answer_to_init() {
    let answer = "could not bootstrap clustered storage: error bootstrapping cluster: cluster already has state";
    for (noted, wanted) in [(true, Remains::OurNote), (false, Remains::Nothing)] {
        let (place, store) = (Place::new(), FakeStore::default());
        if noted {
            place.custody(hooked()).prepare().unwrap();
        }
        store.state().refuse_init = Some(answer);
        let told = place.up(&store, hooked()).await.err().unwrap();
        assert!(matches!(&told, BringUpError::HalfMade { remains, .. } if *remains == wanted), "{told:?}");
    }
}

#[tokio::test]
async fn shares_of_another_store_are_never_displaced() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::default());
    let before = place.text();
    let refused = place.up(&store, hooked()).await;
    assert!(matches!(refused, Err(BringUpError::Custody(CustodyError::OtherStores { .. }))));
    assert!(!store.was_asked("sys/init"));
    assert_eq!(place.text(), before);
}

#[tokio::test]
async fn shares_of_another_store_open_nothing() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&["0101", "0202", "0303"], true));
    let refused = place.up(&store, hooked()).await;
    assert!(matches!(refused, Err(BringUpError::Unseal(UnsealError::NotItsShares { .. }))));
    let open = FakeStore::made(&["0101", "0202", "0303"], false);
    let opened = place.up(&open, hooked()).await.unwrap();
    let refused = RootToken::generate(&open, &opened.shares).await;
    assert!(matches!(refused, Err(crate::RootError::NotItsShares { .. })));
}

/// Go's set-up would write the shares back in clear.
#[tokio::test]
async fn b4_a_root_token_leaves_a_wrapped_file_and_the_file_stays_wrapped() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&SHARES, false));
    let with_token = place.text().replace("}\n", ",\"root_token\":\"s.old\"}\n");
    place.write(FILE, with_token.as_bytes());
    let mut opened = place.up(&store, hooked()).await.unwrap();
    let custody = place.custody(hooked());
    assert!(custody.drop_root_token(&mut opened.shares).unwrap());
    assert!(!place.text().contains("root_token") && place.text().contains("encrypted_keys"));
    assert!(SHARES.iter().all(|s| !place.text().contains(&format!("\"{s}\""))));
    assert!(!custody.drop_root_token(&mut opened.shares).unwrap(), "there is none any more");
    assert_eq!(hex_of(&custody.load().unwrap().shares), SHARES);
}

/// Go's set-up retries for ever, and says nothing.
#[tokio::test]
async fn b5_what_does_not_fit_the_hook_is_refused_at_once_and_stays_as_it_is() {
    let refused = |place: &Place, keeping: Keeping| {
        let before = place.text();
        let error = place.custody(keeping).load().map(|_| ()).unwrap_err();
        assert_eq!(place.text(), before);
        error
    };
    let clear = Place::holding(&plain_text(&SHARES));
    let error = refused(&clear, hooked());
    assert!(matches!(error, CustodyError::ClearWithHook { .. }));
    assert!(error.hint().contains("edgekeep seal encrypt-existing"));
    assert!(matches!(refused(&Place::keeping(hooked()), plain()), CustodyError::WrappedWithoutHook { .. }));
    let other = refused(&Place::keeping(hooked()), Keeping::Wrapped(ikm(100)));
    assert!(matches!(other, CustodyError::NotOpened { source: OpenSharesError::WrongIkmOrSalt, .. }));

    let store = FakeStore::made(&SHARES, true);
    let told = clear.up(&store, hooked()).await.err().unwrap();
    assert!(matches!(told, BringUpError::Custody(CustodyError::ClearWithHook { .. })));
    assert!(!store.was_asked("sys/unseal"));
}

#[test]
fn shares_in_clear_are_wrapped_where_somebody_asks_for_it() {
    let clear = Place::holding(&plain_text(&SHARES).replace('}', ",\"root_token\":\"s.old\"}"));
    assert!(matches!(clear.custody(plain()).encrypt_existing(None), Err(CustodyError::NoHook { .. })));
    assert_eq!(clear.custody(hooked()).encrypt_existing(None).unwrap(), Encrypted::Now);
    assert!(clear.text().contains("encrypted_keys") && !clear.text().contains("\"keys\""));
    assert_eq!(hex_of(&clear.custody(hooked()).load().unwrap().shares), SHARES);
    assert_eq!(clear.custody(hooked()).encrypt_existing(None).unwrap(), Encrypted::Already);
    let other = clear.custody(Keeping::Wrapped(ikm(100))).encrypt_existing(None);
    assert!(matches!(other, Err(CustodyError::NotOpened { .. })));
}

#[test]
fn a_power_cut_while_shares_are_wrapped_leaves_them_in_one_form_or_the_other() {
    let before = CrashDisk::new();
    before.create_dir(&before.path("assets"), 0o700).unwrap();
    let file = before.path("assets").join(FILE);
    before.replace(&file, plain_text(&SHARES).as_bytes(), 0o600, None).unwrap();
    before.sync_dir(before.root()).unwrap();
    let disk = CrashDisk::holding(&before.everything());
    let entropy = SeededEntropy::new(3);
    let custody = Custody::new(&disk, &entropy, &disk.path("assets"), FILE, us(), hooked());
    custody.encrypt_existing(None).unwrap();
    for at in 0..=disk.events() {
        for (unsynced, names) in Unsynced::ALL.iter().flat_map(|u| NameRule::ALL.iter().map(move |n| (*u, *n))) {
            let place = Place::new();
            disk.image(&Cut { at, unsynced, names, seed: at as u64 }).write_to(place.dir.parent().unwrap());
            let wrapped = place.custody(hooked()).load();
            let held = wrapped.or_else(|_| place.custody(plain()).load()).unwrap();
            assert_eq!(hex_of(&held.shares), SHARES, "cut at {at}");
        }
    }
}

#[tokio::test]
async fn a_lost_salt_is_said_to_be_lost_and_none_is_made() {
    let place = Place::keeping(hooked());
    OsDisk.remove_file(&place.dir.join(SALT_FILE)).unwrap();
    let error = place.custody(hooked()).load().map(|_| ()).unwrap_err();
    assert!(matches!(error, CustodyError::Salt(SaltError::Missing { .. })), "{error:?}");
    assert!(EdgexSalt::load(&OsDisk, &place.dir).is_err());
}

/// EdgeX 3 wrote another label, and nothing in the file says which.
#[tokio::test]
async fn b6_a_file_of_edgex_3_opens() {
    // Vector B of EdgeX's key derivation: salt and key material count up from 0x20 and 0x00.
    let place = Place::holding(
        r#"{"encrypted_keys":["5540f3e7a8c495214aba18341bc1379a345b5a1aa061ec83cda140cb4d57d0290a3a57ac92411889ae3b15773e006b3669"],"nonces":["a0a1a2a3a4a5a6a7a8a9aaab"]}"#,
    );
    place.write(SALT_FILE, &(0x20..0x40).collect::<Vec<u8>>());
    let ikm = Ikm::new(SecretBytes::new((0..32).collect()), None).unwrap();
    match place.custody(Keeping::Wrapped(ikm)).load() {
        Ok(held) => assert_eq!(held.on_disk, OnDisk::Wrapped(EdgexLabel::Vault)),
        Err(e) => panic!("{}", host::with_causes(&e)),
    }
}

#[tokio::test]
async fn b7_a_file_that_others_can_read_is_closed() {
    let place = Place::keeping(hooked());
    let bytes = place.text();
    OsDisk.replace(&place.dir.join(FILE), bytes.as_bytes(), 0o644, None).unwrap();
    place.custody(hooked()).load().unwrap();
    assert_eq!(OsDisk.meta(&place.dir.join(FILE)).unwrap().unwrap().mode, 0o600);
    assert_eq!(place.text(), bytes);
}

#[tokio::test]
async fn two_at_once_are_one_too_many() {
    let (place, store) = (Place::keeping(hooked()), FakeStore::made(&SHARES, true));
    let first = place.up(&store, hooked()).await.unwrap();
    assert!(matches!(place.up(&store, hooked()).await, Err(BringUpError::Custody(CustodyError::Busy { .. }))));
    drop(first);
    assert!(place.up(&store, hooked()).await.is_ok());
}

#[tokio::test]
async fn waiting_has_an_end_and_hears_a_signal() {
    let place = Place::keeping(hooked());
    let store = FakeStore::made(&SHARES, false);
    store.state().standby = true;
    let (custody, clock) = (place.custody(hooked()), OsClock::new().unwrap());
    let (halt, stop) = stop();
    let late = bring_up(&store, &custody, wish(Duration::ZERO), &clock, &stop).await.err().unwrap();
    assert_eq!(late.to_string(), "the store does not serve after 0 s: it is a standby, and nobody leads");
    halt.say();
    let stopped = bring_up(&store, &custody, wish(Duration::from_secs(3600)), &clock, &stop).await;
    assert!(matches!(stopped, Err(BringUpError::Stopped(_))));
}
