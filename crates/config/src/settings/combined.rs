//! `[source]` of kind `all` or `threshold`: several sources as one, each in a `[[source.part]]`.

use boot::plan::{Dangers, SourceSpec};

use super::source;
use crate::fault::Place;
use crate::section::Section;

pub(super) fn all(section: &mut Section<'_>, dangers: &mut Dangers) -> Option<SourceSpec> {
    Some(SourceSpec::Combined { threshold: None, parts: parts(section, dangers)? })
}

pub(super) fn threshold(section: &mut Section<'_>, kind_at: &Place, dangers: &mut Dangers) -> Option<SourceSpec> {
    let threshold = section.number("threshold", 1..=8);
    let parts = parts(section, dangers);
    if threshold.is_none() && !section.has("threshold") {
        let remedy = "set threshold = 2: so many of the parts are needed";
        section.fault(kind_at, "a threshold source without a threshold", remedy);
    }
    let threshold = u8::try_from(threshold?.value).ok()?;
    Some(SourceSpec::Combined { threshold: Some(threshold), parts: parts? })
}

/// What goes together is the plan's to say; here each part is read, and one that has a fault of its own leaves none.
fn parts(section: &mut Section<'_>, dangers: &mut Dangers) -> Option<Vec<SourceSpec>> {
    section.tables("part").into_iter().map(|part| source::part(part, dangers)).collect::<Vec<_>>().into_iter().collect()
}
