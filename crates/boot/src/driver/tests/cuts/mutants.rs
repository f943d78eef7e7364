//! The kept mutants: devices with one fault each, which the model must notice. A model that lets one pass holds
//! nothing.

use testkit::Fault;

use super::model::Story;
use crate::plan::Need;

/// What the model says of a story, from the moment on at which its gate was open.
async fn verdict(story: &Story) -> String {
    story.ends(story.opened_first()..=story.disk.events()).await.expect_err("the mutant passes the model")
}

/// The slot files are never synced.
#[tokio::test]
async fn slots_that_were_never_synced_are_noticed() {
    let mut story = Story::new();
    for name in [".slots.a.new", ".slots.b.new"] {
        story.disk.inject(Fault::SyncsLie(name.into()));
    }
    let running = story.start().await;
    story.write(&running).await;
    story.leave(running);
    let verdict = verdict(&story).await;
    assert!(verdict.starts_with("PowerCut") && verdict.contains("slot files are unusable"), "{verdict}");
}

/// The store answers before its log is on the disk.
#[tokio::test]
async fn a_store_that_does_not_sync_is_noticed() {
    let mut story = Story::new().with_fault("opened", Fault::SyncsLie("store.db-wal".into()));
    let running = story.start().await;
    story.write(&running).await;
    let verdict = verdict(&story).await;
    assert!(verdict.starts_with("PowerCut") && verdict.contains("the gate is open, and "), "{verdict}");
}

/// `data.new` is renamed, and the directory that has the name is not synced.
#[tokio::test]
async fn a_rename_that_was_not_synced_is_noticed() {
    let mut story = Story::new();
    story.disk.inject(Fault::SyncsLie("/device".into()));
    let running = story.start().await;
    for _ in 0..4 {
        story.write(&running).await;
    }
    let verdict = verdict(&story).await;
    assert!(verdict.contains("Strict") && verdict.contains("there are no slot files"), "{verdict}");
}

/// A gate one step early: it does not wait for the last of its needs, so it is decided upon while tokens are still
/// being issued.
#[tokio::test]
async fn a_gate_one_step_early_is_noticed() {
    let verdict = verdict_by(vec![Need::AllCredentials]).await;
    assert!(verdict.starts_with("PowerCut") && verdict.contains("other evidence than what is durable"), "{verdict}");
}

/// A gate that opens with the store, before there is anything behind it.
#[tokio::test]
async fn a_gate_that_waits_for_nothing_is_noticed() {
    let verdict = verdict_by(vec![Need::Store]).await;
    assert!(
        verdict.starts_with("PowerCut") && verdict.contains("the gate is open, and sensor has no receipt"),
        "{verdict}"
    );
}

/// The device runs by a plan whose first gate has these needs, and is held to the one that it should follow.
async fn verdict_by(needs: Vec<Need>) -> String {
    let mut story = Story::new();
    let mut early = story.plan.clone();
    assert_eq!(early.gates[0].needs, [Need::AllServices, Need::AllCredentials]);
    early.gates[0].needs = needs;
    let running = story.start_by(early).await;
    story.leave(running);
    verdict(&story).await
}
