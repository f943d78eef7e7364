//! Templates in paths: `{{identity.entity.name}}` stands for whatever the caller is.
//!
//! Their form is checked when the policy is written; they are filled in when policies are merged for a caller. A value
//! that is absent, empty, or holds `*`, `+` or `/` fills nothing in: whoever may write metadata must not be able to
//! widen a rule.

use std::collections::BTreeMap;

use crate::{Entity, Identity, PolicyError};

/// A path with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole(Selector),
}

/// What a hole names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Entity(Field),
    Alias { accessor: String, field: Field },
    GroupById { id: String, field: Field },
    GroupByName { name: String, field: Field },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Name,
    Metadata(String),
}

impl Template {
    /// Reads a path; `None` where it has no holes.
    pub(crate) fn parse(path: &str) -> Result<Option<Self>, PolicyError> {
        let unbalanced = || PolicyError::TemplateUnbalanced { path: path.to_owned() };
        let mut parts = Vec::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) = after.split_once("}}").ok_or_else(unbalanced)?;
            if before.contains("}}") || inside.contains("{{") {
                return Err(unbalanced());
            }
            let selector = Selector::parse(inside.trim()).ok_or_else(|| PolicyError::TemplateUnknown {
                path: path.to_owned(),
                selector: inside.trim().to_owned(),
            })?;
            parts.extend([Part::Text(before.to_owned()), Part::Hole(selector)]);
            rest = behind;
        }
        if rest.contains("}}") {
            return Err(unbalanced());
        }
        if parts.is_empty() {
            return Ok(None);
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Some(Self { parts }))
    }

    /// The path for this caller; `None` where a hole cannot be filled, or must not be.
    pub(crate) fn fill(&self, identity: &Identity) -> Option<String> {
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Hole(selector) => path.push_str(
                    selector.value(identity).filter(|v| is_harmless(v) || !host::in_force("templates-harmless"))?,
                ),
            }
        }
        Some(path)
    }
}

impl Selector {
    fn parse(text: &str) -> Option<Self> {
        let of = text.strip_prefix("identity.")?;
        if let Some(rest) = of.strip_prefix("entity.aliases.") {
            let (accessor, field) = rest.split_once('.').filter(|(a, _)| !a.is_empty())?;
            return Some(Self::Alias { accessor: accessor.to_owned(), field: Field::parse(field)? });
        }
        if let Some(rest) = of.strip_prefix("entity.") {
            return Field::parse(rest).map(Self::Entity);
        }
        if let Some(rest) = of.strip_prefix("groups.ids.") {
            let (id, field) = rest.split_once('.').filter(|(i, _)| !i.is_empty())?;
            return Some(Self::GroupById { id: id.to_owned(), field: Field::parse(field)? });
        }
        let (name, field) = of.strip_prefix("groups.names.")?.split_once('.').filter(|(n, _)| !n.is_empty())?;
        Some(Self::GroupByName { name: name.to_owned(), field: Field::parse(field)? })
    }

    fn value<'a>(&self, identity: &'a Identity) -> Option<&'a str> {
        let entity = identity.entity.as_ref();
        match self {
            Self::Entity(field) => entity.and_then(|Entity { id, name, metadata, .. }| field.of(id, name, metadata)),
            Self::Alias { accessor, field } => entity?
                .aliases
                .iter()
                .find(|a| a.mount_accessor == *accessor)
                .and_then(|a| field.of(&a.id, &a.name, &a.metadata)),
            Self::GroupById { id, field } => {
                identity.groups.iter().find(|g| g.id == *id).and_then(|g| field.of(&g.id, &g.name, &g.metadata))
            }
            Self::GroupByName { name, field } => {
                identity.groups.iter().find(|g| g.name == *name).and_then(|g| field.of(&g.id, &g.name, &g.metadata))
            }
        }
    }
}

impl Field {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "id" => Some(Self::Id),
            "name" => Some(Self::Name),
            _ => text.strip_prefix("metadata.").filter(|k| !k.is_empty()).map(|k| Self::Metadata(k.to_owned())),
        }
    }

    fn of<'a>(&self, id: &'a str, name: &'a str, metadata: &'a BTreeMap<String, String>) -> Option<&'a str> {
        match self {
            Self::Id => Some(id),
            Self::Name => Some(name),
            Self::Metadata(key) => metadata.get(key).map(String::as_str),
        }
    }
}

/// Whether a value can only ever be part of one segment. Braces are refused too: a value is not a template.
fn is_harmless(value: &str) -> bool {
    !value.is_empty() && !value.contains(['*', '+', '/', '{', '}']) && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alias, Group};

    fn caller(name: &str) -> Identity {
        let meta = |v: &str| BTreeMap::from([("site.no".to_owned(), v.to_owned())]);
        let alias = Alias {
            mount_accessor: "auth_userpass_1".into(),
            id: "a1".into(),
            name: "al".into(),
            metadata: meta("m1"),
        };
        let entity = Entity { id: "e1".into(), name: name.into(), metadata: meta("7"), aliases: vec![alias] };
        Identity {
            entity: Some(entity),
            groups: vec![Group { id: "g1".into(), name: "ops".into(), metadata: meta("8") }],
        }
    }

    #[test]
    fn every_selector_finds_its_value() {
        for (template, filled) in [
            ("a/{{identity.entity.id}}/b", "a/e1/b"),
            ("{{ identity.entity.name }}", "svc"),
            ("a/{{identity.entity.metadata.site.no}}-{{identity.entity.name}}/*", "a/7-svc/*"),
            ("{{identity.entity.aliases.auth_userpass_1.name}}", "al"),
            ("{{identity.entity.aliases.auth_userpass_1.id}}", "a1"),
            ("{{identity.entity.aliases.auth_userpass_1.metadata.site.no}}", "m1"),
            ("{{identity.groups.ids.g1.name}}", "ops"),
            ("{{identity.groups.names.ops.id}}", "g1"),
            ("{{identity.groups.names.ops.metadata.site.no}}", "8"),
        ] {
            let t = Template::parse(template).unwrap().unwrap();
            assert_eq!(t.fill(&caller("svc")).as_deref(), Some(filled), "{template}");
        }
        assert_eq!(Template::parse("secret/plain/*").unwrap(), None);
    }

    #[test]
    fn a_value_that_would_widen_the_rule_fills_nothing_in() {
        let t = Template::parse("secret/{{identity.entity.name}}/*").unwrap().unwrap();
        for bad in ["", "*", "a*", "+", "a/b", "..//", "{{x}}", "a\nb"] {
            assert_eq!(t.fill(&caller(bad)), None, "{bad:?}");
        }
        assert_eq!(t.fill(&Identity::default()), None);
        let absent = Template::parse("{{identity.entity.metadata.none}}").unwrap().unwrap();
        assert_eq!(absent.fill(&caller("svc")), None);
    }

    #[test]
    fn what_names_nothing_is_refused_when_written() {
        for bad in ["{{identity.entity.id", "identity}}", "a}}b{{c", "{{a{{identity.entity.id}}"] {
            assert!(matches!(Template::parse(bad), Err(PolicyError::TemplateUnbalanced { .. })), "{bad}");
        }
        for bad in [
            "{{}}",
            "{{identity.foo}}",
            "{{identity.entity.metadata}}",
            "{{identity.entity.metadata.}}",
            "{{identity.entity.aliases.acc}}",
            "{{identity.groups.names.g}}",
            "{{identity.groups.ids..name}}",
            "{{secret}}",
        ] {
            assert!(matches!(Template::parse(bad), Err(PolicyError::TemplateUnknown { .. })), "{bad}");
        }
    }
}
