//! `EDGEX_ADD_KNOWN_SECRETS`: `name[service;service],name[service]`.

use boot::plan::ServiceName;

use crate::environment::Environment;
use crate::fault::{Place, shown};
use crate::section::Source;
use crate::settings::NAME_REMEDY;

/// Who else gets which credential.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KnownSecrets {
    pub(super) redisdb: Vec<ServiceName>,
    pub(super) postgres: Vec<ServiceName>,
    pub(super) message_bus: Vec<ServiceName>,
    /// Where it was written, for faults that are found later.
    pub(super) variable: &'static str,
}

/// Whether the variable is set.
pub(super) fn is_asked(environment: &Environment) -> bool {
    VARIABLES.iter().any(|v| environment.value(v).is_some_and(|text| !text.trim().is_empty()))
}

pub(super) fn read(source: Source<'_>, with_postgres: bool) -> KnownSecrets {
    let mut known = KnownSecrets::default();
    let Some((variable, text)) = VARIABLES.iter().find_map(|v| source.environment.value(v).map(|t| (*v, t))) else {
        return known;
    };
    known.variable = variable;
    let place = Place::Variable(variable.into());
    for item in text.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let parts = item.split_once('[').and_then(|(name, rest)| Some((name.trim(), rest.strip_suffix(']')?)));
        let Some((name, services)) = parts.filter(|(_, s)| !s.contains(['[', ']'])) else {
            source.faults.add(&place, format!("{} has not the form name[service;service]", shown(item)), REMEDY);
            continue;
        };
        let list = match name {
            "redisdb" => &mut known.redisdb,
            "message-bus" => &mut known.message_bus,
            "postgres" if with_postgres => &mut known.postgres,
            "postgres" => {
                source.faults.add(&place, "names postgres, but Database.Type is another", "remove it, or set the type");
                continue;
            }
            other => {
                source.faults.add(&place, format!("{} is no secret that is known", shown(other)), REMEDY);
                continue;
            }
        };
        if services.trim().is_empty() {
            source.faults.add(&place, format!("{} names no service", shown(item)), REMEDY);
        }
        for service in services.split(';').map(str::trim).filter(|s| !s.is_empty()) {
            match service.parse::<ServiceName>() {
                Ok(name) if list.contains(&name) => {}
                Ok(name) => list.push(name),
                Err(e) => source.faults.add(&place, e.to_string(), NAME_REMEDY),
            }
        }
    }
    known
}

/// The name since version 3 first.
const VARIABLES: [&str; 2] = ["EDGEX_ADD_KNOWN_SECRETS", "ADD_KNOWN_SECRETS"];
const REMEDY: &str = "write redisdb[a;b],postgres[a],message-bus[a]";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fault::Collector;

    fn read_text(text: &str, with_postgres: bool) -> Result<KnownSecrets, String> {
        let (environment, faults) = (Environment::of([("EDGEX_ADD_KNOWN_SECRETS", text)]), Collector::default());
        let source = Source { file: Path::new("c"), faults: &faults, environment: &environment };
        let known = read(source, with_postgres);
        faults.finish(known).map_err(|f| f.to_string())
    }

    #[test]
    fn repeated_names_accumulate() {
        let known = read_text(" postgres[app], message-bus[app] ,message-bus[device-rest; app]", true).unwrap();
        assert_eq!(known.postgres.len(), 1);
        assert_eq!(known.message_bus.iter().map(ToString::to_string).collect::<Vec<_>>(), ["app", "device-rest"]);
        assert_eq!(read_text("", true).unwrap().redisdb, []);
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_a_fault() {
        for bad in [
            "redisdb",
            "redisdb[",
            "redisdb[]",
            "redisdb]a[",
            "redisdb[a][b]",
            "redisdb[a]b",
            "mongo[a]",
            "redisdb[../x]",
        ] {
            assert!(read_text(bad, true).is_err(), "{bad}");
        }
        assert!(read_text("postgres[a]", false).is_err());
    }
}
