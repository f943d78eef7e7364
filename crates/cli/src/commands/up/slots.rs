//! Wishes about key slots, done by the running device. The configuration's sources are read anew for each, so that a
//! slot can be added without a restart.

use api::PeerAddress;
use boot::driver::Running;
use boot::machine::Halt;
use boot::plan::Plan;
use serde::Serialize;
use serde_json::Value;
use server::SlotWish;

use super::admin::{Granted, Refusal};
use crate::failure::Failure;

pub(super) async fn grant(
    running: &mut Running,
    wish: SlotWish,
    by: PeerAddress,
    again: &impl Fn() -> Result<Plan, Failure>,
) -> Result<Granted, Refusal> {
    match wish {
        // What has no slot yet is listed too. A device that waits has nothing to list, and is left to what it asks.
        SlotWish::List if running.store().is_some() => drop(adopt(running, again)),
        SlotWish::List => {}
        // A configuration with a fault must not keep a device alive.
        SlotWish::Erase => drop(adopt(running, again)),
        _ => adopt(running, again)?,
    }
    match wish {
        SlotWish::List => told(running.slots().await),
        SlotWish::Add(source) => told(running.add_slots(source.as_deref(), by).await),
        SlotWish::Remove(slot) => told(running.remove_slot(slot, by).await),
        SlotWish::Test(slot) => told(running.test_slots(slot, by).await),
        SlotWish::Erase => told(running.erase(by).await),
        SlotWish::Reseal(slot) => told(running.reseal_slots(slot, by).await),
        SlotWish::Predict(text) => {
            let values = text.parse::<seal::PcrValues>().map_err(|e| {
                let hint = "edgekeep seal slots predict --pcrs FILE reads such a file".into();
                Refusal::Halted(Halt::Refused { fact: format!("these are no register values: {e}"), hint })
            })?;
            told(running.predict_slot(&values, by).await)
        }
        SlotWish::Commit => told(running.commit_slots(by).await),
    }
}

/// Reads the configuration, and takes its key sources.
pub(super) fn adopt(running: &mut Running, again: &impl Fn() -> Result<Plan, Failure>) -> Result<(), Refusal> {
    match again() {
        Ok(plan) => {
            running.adopt_sources(&plan);
            Ok(())
        }
        // The faults themselves are on our standard error; who asks finds them by himself.
        Err(e) => Err(Refusal::Halted(Halt::Refused {
            fact: format!("the configuration is not as it should be: {}", e.fact),
            hint: "edgekeep up --check shows what is wrong".into(),
        })),
    }
}

fn told<T: Serialize>(outcome: Result<T, Halt>) -> Result<Granted, Refusal> {
    let value = outcome.map_err(Refusal::Halted)?;
    Ok(Granted::Told(serde_json::to_value(value).unwrap_or(Value::Null)))
}
