//! `[release]`: what becomes of the sources when the store is open.

use std::time::Duration;

use boot::plan::{AfterClose, ReleasePlan};

use crate::section::Section;

pub(super) fn read(mut section: Section<'_>) -> ReleasePlan {
    let mut plan = ReleasePlan::default();
    let remedy = "write \"stay-sealed\", \"reboot\" or \"keeper\"; without it the sources are not closed";
    let after_close = section.parsed("after_close", remedy, |text| match text {
        "stay-sealed" => Ok(AfterClose::StaySealed),
        "reboot" => Ok(AfterClose::Reboot),
        "keeper" => Ok(AfterClose::Keeper),
        _ => Err("a word that is not known"),
    });
    plan.after_close = after_close.map(|a| a.value);
    if let Some(guard) = section.duration("guard") {
        let limit = guard.value.as_duration();
        if !(Duration::from_secs(5)..=Duration::from_secs(600)).contains(&limit) {
            section.fault(&guard.place, format!("guard is {} s", limit.as_secs()), "write 5s to 10m");
        }
        plan.guard = limit;
    }
    section.finish(&[]);
    plan
}
