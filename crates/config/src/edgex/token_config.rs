//! `token-config.json` and `EDGEX_ADD_SECRETSTORE_TOKENS`: the services. A service in both is the file's.

use boot::plan::{FileMode, Plan, PolicyPlan, ServiceName};
use host::Owner;

use super::provider::Defaults;
use crate::document::{Entry, Node, Value};
use crate::fault::{Place, shown};
use crate::places::{Part, Places};
use crate::section::{Section, Source};
use crate::settings::{NAME_REMEDY, policy};

pub(super) fn read(
    source: Source<'_>,
    root: &Node,
    defaults: &Defaults,
    owner: Option<Owner>,
    plan: &mut Plan,
    places: &mut Places,
) {
    let Value::Map(entries) = &root.value else {
        let what = format!("the file is {}", root.value.kind());
        source.faults.add(
            &source.at(root.line),
            what,
            "write an object: \"service-key\": { \"edgex_use_defaults\": true }",
        );
        return;
    };
    for entry in entries {
        service(source, entry, defaults, owner, plan, places);
    }
}

fn service(
    source: Source<'_>,
    entry: &Entry,
    defaults: &Defaults,
    owner: Option<Owner>,
    plan: &mut Plan,
    places: &mut Places,
) {
    let place = source.at(entry.line);
    let name = entry.key.parse::<ServiceName>();
    if let Err(e) = &name {
        source.faults.add(&place, e.to_string(), NAME_REMEDY);
    }
    let mut section = Section::plain(source, shown(&entry.key), &entry.node);
    let use_defaults = section.flag("edgex_use_defaults").is_some_and(|f| f.value);
    let custom = section.named("custom_policy").map(|e| custom_policy(source, e)).unwrap_or_default();
    if section.named("custom_token_parameters").is_some() {
        let what = format!("{} has custom_token_parameters, which EdgeX dropped in version 3", shown(&entry.key));
        section.fault(&place, what, "remove them; DefaultTokenTTL sets how long tokens live");
    }
    let permissions = section.table("file_permissions");
    let (own, mode) = file_permissions(permissions);
    section.finish(&[]);
    let Ok(name) = name else { return };
    let mut service = defaults.service(name, own.or(owner));
    service.policy = PolicyPlan { defaults: use_defaults, custom };
    service.mode = mode.unwrap_or_default();
    places.note(Part::Service, &service.name, place);
    plan.services.push(service);
}

/// Only the `path` object counts, as in EdgeX; anything beside it is a fault.
fn custom_policy(source: Source<'_>, entry: &Entry) -> std::collections::BTreeMap<String, boot::plan::PathRule> {
    let mut section = Section::plain(source, "custom_policy", &entry.node);
    let rules = section.named("path").map(|paths| policy(&section, paths)).unwrap_or_default();
    section.finish(&[]);
    rules
}

fn file_permissions(mut section: Section<'_>) -> (Option<Owner>, Option<FileMode>) {
    let max = u64::from(u32::MAX - 1);
    let (uid, gid) = (section.number("uid", 0..=max), section.number("gid", 0..=max));
    let mode = section.parsed("mode_octal", "write octal text such as \"0400\"", FileMode::parse);
    let id = |n: u64| u32::try_from(n).unwrap_or(u32::MAX - 1);
    let owner = match (&uid, &gid) {
        (Some(u), Some(g)) => Some(Owner { uid: id(u.value), gid: id(g.value) }),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            section.fault(&one.place, "half an owner", "give both uid and gid, or neither");
            None
        }
    };
    section.finish(&[]);
    (owner, mode.map(|m| m.value))
}

/// Names from the environment, each with the defaults; every bad name is a fault.
pub(super) fn add_tokens(
    source: Source<'_>,
    defaults: &Defaults,
    owner: Option<Owner>,
    plan: &mut Plan,
    places: &mut Places,
) {
    let Some((variable, list)) = VARIABLES.iter().find_map(|v| source.environment.value(v).map(|list| (*v, list)))
    else {
        return;
    };
    let place = Place::Variable(variable.into());
    for text in list.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        match text.parse::<ServiceName>() {
            Ok(name) if plan.service(&name).is_some() => {}
            Ok(name) => {
                places.note(Part::Service, &name, place.clone());
                plan.services.push(defaults.service(name, owner));
            }
            Err(e) => source.faults.add(&place, e.to_string(), NAME_REMEDY),
        }
    }
}

/// The name since version 3 first.
const VARIABLES: [&str; 2] = ["EDGEX_ADD_SECRETSTORE_TOKENS", "ADD_SECRETSTORE_TOKENS"];
