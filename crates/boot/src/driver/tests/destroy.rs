//! A store that is given up, and an image for many devices: power that is cut at each step.

use super::*;
use crate::plan::SourceSpec;

/// What is found after an end in the midst of it.
#[derive(Debug, Default)]
struct Found {
    /// The device of before: nothing was begun.
    before: usize,
    /// Neither a device nor nothing.
    between: usize,
    /// Nothing of it.
    nothing: usize,
}

/// Destroys a device by `command`, ends that after each of its events, and starts what is left.
async fn every_end(command: fn(&dyn Disk, &Plan) -> Result<(), DestroyError>) -> Found {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    // Not beside the store: no sync of the data directory syncs its name.
    disk.create_dir(&disk.path("keys"), 0o700).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.sources = vec![SourceSpec::Software { file: disk.path("keys/one.key") }];
        (plan, env)
    };
    let (plan, env) = start(7);
    let running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let ca = running.ca().unwrap().der().to_vec();
    running.shutdown().await;
    let begun = disk.events();
    command(&disk, &plan).unwrap();

    let mut found = Found::default();
    for end in ends(&disk, begun..=disk.events()) {
        let when = format!("{end} of {begun}..={}", disk.events());
        end.restore(&disk, &plan);
        let again = |seed| {
            let (plan, env) = start(seed + end.at as u64);
            up(plan, unrecorded(env), Box::new(Quiet))
        };
        let mut running = again(1000).await.unwrap();
        match running.halted() {
            Some(Halt::Destroying) => {
                found.between += 1;
                running.shutdown().await;
                command(&OsDisk, &plan).unwrap();
                running = again(2000).await.unwrap();
            }
            // What was begun is noted before anything is touched, and until all is done.
            None if running.ca().is_some_and(|now| now.der() == ca) => {
                found.before += 1;
                assert_eq!(open(&running), BOTH, "{when}: whole, with nothing destroyed");
                continue;
            }
            None => found.nothing += 1,
            Some(halt) => panic!("{when}: {halt}"),
        }
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        assert_ne!(running.ca().unwrap().der(), ca, "{when}: another device");
    }
    assert!(disk.events() - begun > 20, "{found:?}");
    found
}

#[tokio::test]
async fn an_end_at_any_moment_of_a_generalization_leaves_no_image_that_starts_as_the_old_device() {
    let found = every_end(generalize).await;
    assert!((1..12).contains(&found.before) && found.between > 30 && found.nothing > 3, "{found:?}");
}

#[tokio::test]
async fn an_end_at_any_moment_of_giving_a_store_up_leaves_no_half_of_it_that_starts() {
    let found = every_end(destroy_state).await;
    assert!((1..12).contains(&found.before) && found.between > 30 && found.nothing > 1, "{found:?}");
}
