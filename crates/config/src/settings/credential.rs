//! `[[credential]]`: a password that the boot makes once and hands to each service that may use it.

use boot::plan::{CredentialKind, CredentialPlan, ServiceName};

use super::service::NAME_REMEDY;
use crate::fault::shown;
use crate::places::{Part, Places};
use crate::section::{Located, Section};

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> Option<CredentialPlan> {
    let place = section.place();
    let kind = section.text("kind");
    let services: Vec<Located<ServiceName>> = section
        .texts("services")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|s| match s.value.parse() {
            Ok(name) => Some(Located { value: name, place: s.place }),
            Err(e) => {
                section.fault(&s.place, format!("services: {e}"), NAME_REMEDY);
                None
            }
        })
        .collect();
    let copies: Vec<ServiceName> = services.iter().map(|s| s.value.clone()).collect();
    let (name, user, source) = (section.text("name"), section.text("user"), section.text("source"));
    let mut plan = match kind.as_ref().map(|k| k.value.as_str()) {
        Some("redisdb") => CredentialPlan::redis(copies),
        Some("message-bus") => CredentialPlan::message_bus(copies),
        Some("postgres") => match copies.as_slice() {
            [] => CredentialPlan::postgres_superuser(),
            [one] => CredentialPlan::postgres(one.clone(), one.as_str().replace(['-', '.'], "_")),
            _ => {
                let remedy = "write a [[credential]] for each service: PostgreSQL has a password of each service's own";
                section.fault(&place, format!("one postgres password for {} services", copies.len()), remedy);
                return None;
            }
        },
        Some("custom") => {
            let (Some(name), Some(user)) = (&name, &user) else {
                section.fault(&place, "a custom credential without name or user", "set name and user");
                return None;
            };
            CredentialPlan {
                kind: CredentialKind::Custom,
                name: name.value.clone(),
                user: user.value.clone(),
                source: format!("edgekeep/credentials/{}", name.value),
                copies,
            }
        }
        Some(other) => {
            let remedy = "known are \"redisdb\", \"postgres\", \"message-bus\" and \"custom\"";
            let at = kind.as_ref().map_or(&place, |k| &k.place);
            section.fault(at, format!("unknown kind {}", shown(other)), remedy);
            return None;
        }
        None => {
            section.fault(
                &place,
                "a credential without a kind",
                "set kind = \"redisdb\", \"postgres\", \"message-bus\" or \"custom\"",
            );
            return None;
        }
    };
    let given = |setting: Option<Located<String>>, field: &mut String| {
        if let Some(text) = setting {
            *field = text.value;
        }
    };
    given(name, &mut plan.name);
    given(user, &mut plan.user);
    given(source, &mut plan.source);
    section.finish(&[]);
    places.note(Part::Credential, &plan.source, place);
    Some(plan)
}
