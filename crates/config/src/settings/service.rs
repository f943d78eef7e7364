//! `[[service]]`: a name, what it may do, and who may read its token.

use std::collections::BTreeMap;

use boot::plan::{FileMode, PathRule, ServiceName, ServicePlan};
use host::Owner;

use crate::document::{Entry, Node, Value};
use crate::fault::shown;
use crate::places::{Part, Places};
use crate::section::{Located, Section};

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> Option<ServicePlan> {
    let name = section.parsed("name", NAME_REMEDY, str::parse::<ServiceName>);
    if name.is_none() && !section.has("name") {
        let place = section.place();
        section.fault(&place, "a service without a name", "set name = \"...\"");
    }
    let mut plan = name.as_ref().map(|n| ServicePlan::usual(n.value.clone()));
    let period = section.duration("period");
    let jwt_ttl = section.duration("jwt_ttl");
    let audience = section.parsed("jwt_audience", "write 1 to 128 printable characters", parse_audience);
    let defaults = section.flag("default_policy");
    let owner = owner(&mut section);
    let mode = section.parsed("mode", "write octal text such as \"0400\"", FileMode::parse);
    let custom = section.named("policy").map(|e| policy(&section, e));
    section.finish(&[]);

    let plan_ref = plan.as_mut()?;
    if let Some(period) = period {
        plan_ref.token.period = period.value;
    }
    if let Some(ttl) = jwt_ttl {
        plan_ref.jwt.ttl = ttl.value;
    }
    if let Some(audience) = audience {
        plan_ref.jwt.audience = audience.value;
    }
    if let Some(mode) = mode {
        plan_ref.mode = mode.value;
    }
    plan_ref.policy.defaults = defaults.is_none_or(|d| d.value);
    plan_ref.policy.custom = custom.unwrap_or_default();
    plan_ref.owner = owner;
    if let Some(name) = name {
        places.note(Part::Service, &name.value, name.place);
    }
    plan
}

/// Both numbers or neither: a file with half an owner is a slip.
fn owner(section: &mut Section<'_>) -> Option<Owner> {
    let max = u64::from(u32::MAX - 1);
    let (uid, gid) = (section.number("uid", 0..=max), section.number("gid", 0..=max));
    let id = |l: &Located<u64>| u32::try_from(l.value).unwrap_or(u32::MAX - 1);
    match (&uid, &gid) {
        (Some(u), Some(g)) => Some(Owner { uid: id(u), gid: id(g) }),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            section.fault(&one.place, "half an owner", "set both uid and gid, or neither");
            None
        }
    }
}

/// `path -> rule`, in the form of EdgeX's `custom_policy`.
pub(crate) fn policy(section: &Section<'_>, entry: &Entry) -> BTreeMap<String, PathRule> {
    let mut rules = BTreeMap::new();
    let Value::Map(paths) = &entry.node.value else {
        let place = section.source().at(entry.line);
        let what = format!("{} is {}", entry.key, entry.node.value.kind());
        section.fault(&place, what, "write a table: path = { capabilities = [\"read\"] }");
        return rules;
    };
    for e in paths {
        let place = section.source().at(e.line);
        if e.key.is_empty()
            || e.key.starts_with('/')
            || e.key.chars().any(char::is_control)
            || e.key.len() > MAX_PATH_BYTES
        {
            section.fault(
                &place,
                format!("{} is no path of a policy", shown(&e.key)),
                "write a path such as secret/data/*",
            );
            continue;
        }
        match PathRule::parse(&to_json(&e.node)) {
            Ok(rule) => drop(rules.insert(e.key.clone(), rule)),
            Err(fault) => section.fault(
                &place,
                format!("the rule for {}: {fault}", shown(&e.key)),
                "write { capabilities = [\"read\", \"list\"] }",
            ),
        }
    }
    rules
}

pub(crate) fn parse_audience(text: &str) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 128 && text.chars().all(|c| c.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("not 1 to 128 printable characters") }
}

/// The same tree as JSON, which is what policies are made of.
fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(n) => (*n).into(),
        Value::Float(text) | Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => {
            serde_json::Value::Object(entries.iter().map(|e| (e.key.clone(), to_json(&e.node))).collect())
        }
    }
}

pub(crate) const NAME_REMEDY: &str = "use 1 to 64 letters, digits, '_', '.' and '-', beginning with a letter or digit";
const MAX_PATH_BYTES: usize = 512;
