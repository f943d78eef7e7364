//! A device on a factory's line: power that is cut at each step.

use super::*;

/// Somebody's public key; nothing here is opened again.
const RECIPIENT: &str = "age1c334ulqmge6am09amvevmk3n8tg8r4wwn4hurp2x8w4wk7vsk95sz4z3s6";

/// Whatever the moment of an end, the same command ends with a record, of the store that the first record was of; once
/// the factory has it the command is refused, and the device starts.
#[tokio::test]
async fn an_end_at_any_moment_of_provisioning_is_gone_on_from_until_the_factory_has_the_record() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.recovery = Some(RecoverySpec::Age(seal::AgeRecipients::parse([RECIPIENT]).unwrap()));
        (plan, env)
    };
    let (plan, env) = start(7);
    let first = provision(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let told = disk.events();
    record_kept(&disk, &plan).unwrap();

    let (mut anew, mut gone_on, mut done) = (0, 0, 0);
    for end in ends(&disk, 0..=disk.events()).filter(|end| !end.is_spare()) {
        let (at, when) = (end.at, format!("{end} of {told}..={}", disk.events()));
        end.restore(&disk, &plan);
        let (plan, env) = start(1000 + at as u64);
        let env = unrecorded(env);
        match provision(plan.clone(), env.clone(), Box::new(Quiet)).await {
            Ok(record) => {
                assert!(at < told || (&record.store, &record.ca) == (&first.store, &first.ca), "{when}");
                assert!(record.recovery.is_some_and(|path| path.exists()), "{when}");
                let same = record.store == first.store;
                *(if same { &mut gone_on } else { &mut anew }) += 1;
                record_kept(&OsDisk, &plan).unwrap();
            }
            Err(ProvisionFault::Already { .. }) => {
                assert!(at > told, "{when}: the factory has no record of it");
                done += 1;
            }
            Err(e) => panic!("{when}: {e}"),
        }
        let again = provision(plan.clone(), env.clone(), Box::new(Quiet)).await;
        assert!(matches!(again, Err(ProvisionFault::Already { .. })), "{when}: {again:?}");
        let running = up(plan, env, Box::new(Quiet)).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
    }
    assert!(anew > 20 && gone_on > 20 && done > 0, "{anew} {gone_on} {done}");
}
