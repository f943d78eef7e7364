//! `[recovery]`: who can open the store when every source is lost. One choice, made before anything exists.

use boot::plan::RecoverySpec;

use super::note_section;
use crate::fault::shown;
use crate::places::Places;
use crate::section::Section;

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> Option<RecoverySpec> {
    note_section(&section, "recovery", places);
    let mut choices = Vec::new();
    if let Some(recipients) = section.texts("age") {
        for r in &recipients {
            let bech32 = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if !(r.value.starts_with("age1") && r.value.len() < 200 && r.value.chars().all(bech32)) {
                let what = format!("{} is no age recipient", shown(&r.value));
                section.fault(&r.place, what, "write the public key that `age-keygen` shows: age1...");
            }
        }
        choices.push(RecoverySpec::Age(recipients.into_iter().map(|r| r.value).collect()));
    }
    if let Some(out) = section.path("out") {
        choices.push(RecoverySpec::File(out.value));
    }
    if section.flag("terminal").is_some_and(|f| f.value) {
        choices.push(RecoverySpec::Terminal);
    }
    if section.flag("none").is_some_and(|f| f.value) {
        choices.push(RecoverySpec::None);
    }
    if choices.len() > 1 {
        let place = section.place();
        section.fault(&place, format!("{} ways of recovery are chosen", choices.len()), "keep one of them");
    }
    section.finish(&[]);
    choices.into_iter().next()
}
