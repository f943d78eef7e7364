//! `[source]` of kind `tang`: servers that must be reached, each with the key that was seen on it.

use boot::plan::SourceSpec;
use seal::{Origin, TangServer, TangServers, Thumbprint};

use super::source::{DEADLINE, deadline};
use crate::fault::Place;
use crate::section::Section;

pub(super) fn read(section: &mut Section<'_>, kind_at: &Place) -> Option<SourceSpec> {
    let deadline = deadline(section, DEADLINE, "10s is usual");
    let threshold = section.number("threshold", 1..=8).map(|n| (u8::try_from(n.value).unwrap_or(u8::MAX), n.place));
    let written = section.tables("servers");
    let count = written.len();
    let servers: Vec<TangServer> = written.into_iter().filter_map(server).collect();
    if servers.len() < count {
        return None;
    }
    // Without a word one server is enough only where there is but one: of several, one that is robbed should not do.
    let (threshold, place) = match threshold {
        Some((threshold, place)) => (threshold, place),
        None if section.has("threshold") => return None,
        None if count <= 1 => (1, kind_at.clone()),
        None => {
            let remedy = format!("set threshold = {}: so many servers are needed to start", count / 2 + 1);
            section.fault(kind_at, format!("{count} Tang servers and no threshold"), remedy);
            return None;
        }
    };
    match TangServers::new(servers, threshold) {
        Ok(servers) => Some(SourceSpec::Tang { servers, deadline }),
        Err(e) => {
            let remedy =
                "name 1 to 8 servers in [[source.servers]], each once, and a threshold that is not above their number";
            section.fault(&place, e.to_string(), remedy);
            None
        }
    }
}

fn server(mut section: Section<'_>) -> Option<TangServer> {
    let place = section.place();
    let origin = section.parsed("url", "write http://host:port; the exchange needs no TLS", Origin::parse);
    let remedy = "copy it from `tang-show-keys PORT`, run on the server itself";
    let pinned = section.parsed("thumbprint", remedy, str::parse::<Thumbprint>);
    for (key, missing) in [("url", origin.is_none()), ("thumbprint", pinned.is_none())] {
        if missing && !section.has(key) {
            section.fault(&place, format!("a Tang server without {key}"), format!("set {key} = \"...\""));
        }
    }
    section.finish(&[]);
    Some(TangServer { origin: origin?.value, pinned: pinned?.value })
}
