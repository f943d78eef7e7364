//! `[[gate]]`: a name that others wait for, and what must be true before it opens.

use boot::plan::{GatePlan, Need, Probe};

use super::service::NAME_REMEDY;
use crate::places::{Part, Places};
use crate::section::Section;

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> Option<GatePlan> {
    let place = section.place();
    let name = section.parsed("name", NAME_REMEDY, str::parse);
    if name.is_none() && !section.has("name") {
        section.fault(&place, "a gate without a name", "set name = \"...\"");
    }
    let mut needs = Vec::new();
    for need in section.texts("needs").unwrap_or_default() {
        match parse_need(&need.value) {
            Ok(parsed) => needs.push(parsed),
            Err(e) => section.fault(&need.place, format!("needs: {e}"), NEEDS_REMEDY),
        }
    }
    for probe in section.texts("probes").unwrap_or_default() {
        match probe.value.parse::<Probe>() {
            Ok(probe) => needs.push(Need::Probe(probe)),
            Err(e) => section.fault(
                &probe.place,
                e.to_string(),
                "write \"postgres:host:port\", \"redis:host:port\", \"tcp:host:port\", \"unix:/path\", \"file:/path\" or \
                 \"http://host:port/path\"",
            ),
        }
    }
    let deadline = section.duration("deadline").map(|d| d.value.as_duration());
    let hint = section.parsed("hint", "write address:port such as \"127.0.0.1:54321\"", |t| {
        t.parse().map_err(|_| "not an address with a port; names are not taken here")
    });
    section.finish(&[]);
    let name = name?;
    places.note(Part::Gate, &name.value, name.place);
    Some(GatePlan { name: name.value, needs, deadline, hint: hint.map(|h| h.value) })
}

fn parse_need(text: &str) -> Result<Need, String> {
    match text.split_once(':') {
        None if text == "store" => Ok(Need::Store),
        None if text == "services" => Ok(Need::AllServices),
        None if text == "credentials" => Ok(Need::AllCredentials),
        Some(("service", name)) => name.parse().map(Need::Service).map_err(|e| e.to_string()),
        Some(("gate", name)) => name.parse().map(Need::Gate).map_err(|e| e.to_string()),
        _ => Err(format!("{} is nothing that a gate can need", crate::fault::shown(text))),
    }
}

const NEEDS_REMEDY: &str = "write \"store\", \"services\", \"credentials\", \"service:NAME\" or \"gate:NAME\"; what is outside goes into probes";
