//! `[recovery]`: who can open the store when every source is lost. One choice, made before anything exists.

use boot::plan::RecoverySpec;
use seal::AgeRecipients;

use super::note_section;
use crate::places::Places;
use crate::section::Section;

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> Option<RecoverySpec> {
    note_section(&section, "recovery", places);
    let mut choices = Vec::new();
    if let Some(recipients) = section.texts("age") {
        choices.push(match AgeRecipients::parse(recipients.iter().map(|r| r.value.as_str())) {
            Ok(recipients) => RecoverySpec::Age(recipients),
            Err(e) => {
                let place = e.number().and_then(|number| recipients.get(number - 1)).map(|r| r.place.clone());
                let place = place.unwrap_or_else(|| section.place());
                section.fault(&place, e.to_string(), "write the public key that `age-keygen` shows: age1...");
                // Never carried out: what is wrong was noted.
                RecoverySpec::None
            }
        });
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
