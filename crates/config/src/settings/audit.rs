//! `[audit]`: the ring of segments.

use boot::plan::{AuditPlan, AuditSync};

use crate::section::Section;

pub(super) fn read(mut section: Section<'_>) -> AuditPlan {
    let mut plan = AuditPlan::default();
    let sync = section.parsed("sync", "write \"never\", \"each\" or an interval such as \"1s\"", |text| match text {
        "never" => Ok(AuditSync::Never),
        "each" => Ok(AuditSync::Each),
        other => match api::Ttl::parse(other) {
            Ok(ttl) if (1..=3600).contains(&ttl.as_seconds()) => Ok(AuditSync::Interval(ttl.as_duration())),
            _ => Err("neither a word that is known nor an interval of 1s to 1h"),
        },
    });
    if let Some(sync) = sync {
        plan.sync = sync.value;
    }
    if let Some(segments) = section.number("segments", 3..=1024) {
        plan.segments = u32::try_from(segments.value).unwrap_or(plan.segments);
    }
    if let Some(kib) = section.number("segment_kib", 64..=1_048_576) {
        plan.segment_bytes = kib.value * 1024;
    }
    section.finish(&[]);
    plan
}
