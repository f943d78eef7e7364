//! The boot's crash model: a device is ended after each recorded event, of slot files, SQLite and token files alike,
//! once by a power cut and once by a kill; it starts again, and must come to the same end.
//!
//! ```text
//! always      gates open, the CA and passwords that an open gate has shown, every write that was acknowledged, nothing left over
//! power cut   an open gate's evidence is durable; every token of before is refused, and issued anew
//! kill        every token in a service's file lives on; behind an open gate none is issued
//! ```
//! `mutants` shows that the model notices what it is for.

use super::*;

mod clear;
mod model;
mod mutants;

use clear::Secrets;
use model::Story;

/// The story of a bare device.
#[tokio::test]
async fn an_end_at_any_moment_of_the_first_boot_ends_in_the_same_device() {
    let mut story = Story::new();
    let running = story.start().await;
    story.write(&running).await;
    let mut secrets = Secrets::default();
    secrets.learn(&story, &running).await;
    running.shutdown().await;
    let played = story.every_end().await.unwrap();
    assert!(played.bare > 10, "cuts on both sides of the rename were played: {played:?}");
    secrets.assert_never_written(&story);
}

/// edgekeep crashes and starts again, in one boot of the kernel.
#[tokio::test]
async fn an_end_at_any_moment_of_a_restart_loses_no_token() {
    let mut story = Story::of_a_device().await;
    let running = story.start().await;
    story.write(&running).await;
    running.shutdown().await;
    let played = story.every_end().await.unwrap();
    assert!(played.cuts > 10 && played.kills > 5, "{played:?}");
}

/// The kernel boots anew: every token is issued again.
#[tokio::test]
async fn an_end_at_any_moment_of_another_boot_issues_every_token_anew() {
    let mut story = Story::of_a_device().await;
    story.reboot();
    story.begin();
    let running = story.start().await;
    let mut secrets = Secrets::default();
    secrets.learn(&story, &running).await;
    story.leave(running);
    let played = story.every_end().await.unwrap();
    assert!(played.cuts > 10 && played.kills > 10, "{played:?}");
    secrets.assert_never_written(&story);
}

/// One slot copy is missing, later the other is damaged: each is healed from the one that is whole.
#[tokio::test]
async fn an_end_at_any_moment_of_healing_slots_leaves_a_copy_that_opens() {
    let mut story = Story::of_a_device().await;
    let dir = story.plan.state_dir();
    story.disk.remove_file(&dir.join("slots.a")).unwrap();
    story.disk.sync_dir(&dir).unwrap();
    let running = story.start().await;
    story.leave(running);
    story.disk.replace(&dir.join("slots.b"), b"damaged", 0o600, None).unwrap();
    let running = story.start().await;
    story.leave(running);
    let whole = |copy: &str| OsDisk.read(&dir.join(copy), 10_000).unwrap();
    assert_eq!(whole("slots.a"), whole("slots.b"), "healed");
    story.every_end().await.unwrap();
}

/// Token files are removed and damaged, once while edgekeep is away and once under its eyes: gates shut, and what is
/// lost is issued anew.
#[tokio::test]
async fn an_end_at_any_moment_of_healing_tokens_leaves_live_ones() {
    let mut story = Story::of_a_device().await;
    story.disk.remove_file(&story.token_file("sensor")).unwrap();
    story.disk.replace(&story.token_file("uploader"), b"{}", 0o400, None).unwrap();
    let mut running = story.start().await;
    story.disk.replace(&story.token_file("uploader"), b"{", 0o400, None).unwrap();
    story.clock.advance(Duration::from_secs(1));
    running.tick().await;
    assert_eq!(open(&running), BOTH);
    story.leave(running);
    story.every_end().await.unwrap();
}

/// The store is put back from a copy of the same boot, so it is behind what was delivered: no file's token is known to
/// it.
#[tokio::test]
async fn an_end_at_any_moment_behind_the_receipts_issues_what_the_store_does_not_know() {
    let mut story = Story::of_a_device().await;
    let database = story.plan.state_dir().join("store.db");
    let copy = OsDisk.read(&database, 1 << 24).unwrap();
    for service in ["sensor", "uploader"] {
        story.disk.remove_file(&story.token_file(service)).unwrap();
    }
    story.start().await.shutdown().await;
    let newer = ["sensor", "uploader"].map(|s| story.token(s));
    story.disk.replace(&database, &copy, 0o600, None).unwrap();
    story.are_dead(newer);
    story.begin();
    let running = story.start().await;
    story.leave(running);
    story.every_end().await.unwrap();
}
