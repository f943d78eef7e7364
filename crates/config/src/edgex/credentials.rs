//! The set-up's `configuration.yaml`: which credentials there are, and which service gets a copy of each.

use boot::plan::{CredentialPlan, Plan, ServiceName};

use super::known_secrets::{self, KnownSecrets};
use crate::document::{Node, Value};
use crate::fault::{Place, shown};
use crate::places::{Part, Places};
use crate::section::{Located, Section, Source};
use crate::settings::NAME_REMEDY;

pub(super) fn read(source: Source<'_>, root: &Node, plan: &mut Plan, places: &mut Places, notes: &mut Vec<String>) {
    let mut top = Section::plain(source, "the file", root);
    secret_store(top.table("SecretStore"), notes);
    let asked = Asked::read(source, &mut top);
    top.finish(&PASSED_OVER);

    let mut made = Entitled { plan: Some(plan), notes }.credentials(source, &asked);
    for credential in &made {
        places.note(Part::Credential, &credential.source, Place::whole(source.file));
    }
    plan.credentials.append(&mut made);
}

/// What the file says about credentials.
pub(super) struct Asked {
    postgres: bool,
    databases: Vec<Located<User>>,
    pub(super) bus: Bus,
    bus_services: Vec<Located<User>>,
    pub(super) kuiper: [Option<String>; 2],
    known: KnownSecrets,
}

impl Asked {
    pub(super) fn read(source: Source<'_>, top: &mut Section<'_>) -> Self {
        let postgres = with_postgres(top.table("Database"));
        let databases = users(source, top.named("Databases").map(|e| &e.node));
        let mut section = top.table("SecureMessageBus");
        let bus = bus_type(&mut section);
        let bus_services = users(source, section.named("Services").map(|e| &e.node));
        let mut path = |key| section.text(key).map(|p| p.value).filter(|p| !p.is_empty());
        let kuiper = [path("KuiperConfigPath"), path("KuiperConnectionsPath")];
        section.finish(&[]);
        let known = known_secrets::read(source, postgres);
        Self { postgres, databases, bus, bus_services, kuiper, known }
    }

    /// The credentials, with a copy for everybody who is named.
    pub(super) fn for_all(&self, source: Source<'_>, notes: &mut Vec<String>) -> Vec<CredentialPlan> {
        Entitled { plan: None, notes }.credentials(source, self)
    }
}

/// What EdgeX's set-up would do to a store, and edgekeep does by itself or not at all.
fn secret_store(mut section: Section<'_>, notes: &mut Vec<String>) {
    if let Some(program) = section.text("PasswordProvider").filter(|p| !p.value.is_empty()) {
        let what =
            format!("PasswordProvider {} is not run: edgekeep makes all passwords itself", shown(&program.value));
        section.fault(&program.place, what, "set it to \"\"");
    }
    if let Some(keep) = section.flag("RevokeRootTokens").filter(|f| !f.value) {
        let what = "RevokeRootTokens is false, but there is no root token that could be kept";
        section.fault(&keep.place, what, "set it to true");
    }
    for key in ["CertFilePath", "KeyFilePath"] {
        if let Some(path) = section.text(key).filter(|p| !p.value.is_empty()) {
            notes.push(format!("{}: {key} {} is not uploaded for the proxy", path.place, shown(&path.value)));
        }
    }
    section.finish(&[
        "Type",
        "Protocol",
        "Host",
        "Port",
        "ServerName",
        "CertPath",
        "CaFilePath",
        "TokenFolderPath",
        "TokenFile",
        "SecretShares",
        "SecretThreshold",
        "VaultSecretShares",
        "VaultSecretThreshold",
        "TokenProvider",
        "TokenProviderArgs",
        "TokenProviderType",
        "TokenProviderAdminTokenPath",
        "PasswordProviderArgs",
        "ConsulSecretsAdminTokenPath",
    ]);
}

/// Without a section it is a file from before version 4, which knows Redis alone.
fn with_postgres(mut section: Section<'_>) -> bool {
    let kind = section.text("Type");
    let postgres = match kind.as_ref().map(|k| k.value.as_str()) {
        Some("postgres") => true,
        None | Some("" | "redis" | "redisdb") => false,
        Some(other) => {
            let at = kind.as_ref().map_or_else(|| section.place(), |k| k.place.clone());
            section.fault(&at, format!("unknown Database.Type {}", shown(other)), "write \"postgres\" or \"redisdb\"");
            false
        }
    };
    section.finish(&["Host", "Port", "Timeout", "Name", "MaxIdle", "BatchSize"]);
    postgres
}

/// A service, and the name of its user where one is configured.
type User = (ServiceName, Option<String>);

/// Over what services talk to each other, as far as a credential hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Nothing that needs one.
    None,
    /// Redis, with the password of the database.
    Redis,
    /// An MQTT broker, with a password of its own.
    Mqtt,
}

fn bus_type(section: &mut Section<'_>) -> Bus {
    let Some(kind) = section.text("Type") else { return Bus::None };
    match kind.value.as_str() {
        "" | "none" => Bus::None,
        "redis" => Bus::Redis,
        "mqtt" => Bus::Mqtt,
        other => {
            let remedy = "write \"mqtt\", \"redis\" or \"none\"";
            section.fault(&kind.place, format!("unknown SecureMessageBus.Type {}", shown(other)), remedy);
            Bus::None
        }
    }
}

/// `key: { Service, Username }`; entries without a service are passed over, as in EdgeX.
fn users(source: Source<'_>, node: Option<&Node>) -> Vec<Located<User>> {
    let mut out = Vec::new();
    let Some(Node { value: Value::Map(entries), .. }) = node else { return out };
    for entry in entries {
        let mut section = Section::plain(source, entry.key.clone(), &entry.node);
        let service = section.text("Service").filter(|s| !s.value.is_empty());
        let user = section.text("Username").map(|u| u.value).filter(|u| !u.is_empty());
        section.finish(&[]);
        let Some(service) = service else { continue };
        match service.value.parse() {
            Ok(name) => out.push(Located { value: (name, user), place: service.place }),
            Err(e) => source.faults.add(&service.place, format!("Service: {e}"), NAME_REMEDY),
        }
    }
    out
}

/// Copies go to services that have a token; nobody could read the others. Without a plan nobody knows who has one.
struct Entitled<'a> {
    plan: Option<&'a Plan>,
    notes: &'a mut Vec<String>,
}

impl Entitled<'_> {
    fn has_token(&self, name: &ServiceName) -> bool {
        self.plan.is_none_or(|plan| plan.service(name).is_some())
    }

    fn credentials(mut self, source: Source<'_>, asked: &Asked) -> Vec<CredentialPlan> {
        let Asked { postgres, databases, bus, bus_services, known, .. } = asked;
        // Redis is always there, whatever the database: caches and older applications use it.
        let redis_bus: &[Located<User>] = if *bus == Bus::Redis { bus_services } else { &[] };
        let redis = self.copies(source, &[databases, redis_bus], &known.redisdb, known.variable);
        let mut made = vec![CredentialPlan::redis(redis)];
        if *postgres {
            made.push(CredentialPlan::postgres_superuser());
            for service in self.copies(source, &[databases], &known.postgres, known.variable) {
                let configured = databases.iter().find(|d| d.value.0 == service).and_then(|d| d.value.1.clone());
                let user = configured.unwrap_or_else(|| service.to_string());
                made.push(CredentialPlan::postgres(service, user));
            }
        }
        if *bus == Bus::Mqtt {
            let copies = self.copies(source, &[bus_services], &known.message_bus, known.variable);
            made.push(CredentialPlan::message_bus(copies));
        } else if !known.message_bus.is_empty() {
            self.notes.push(format!(
                "environment {}: message-bus has no effect while SecureMessageBus.Type is not mqtt",
                known.variable
            ));
        }
        made
    }

    fn copies(
        &mut self,
        source: Source<'_>,
        configured: &[&[Located<User>]],
        added: &[ServiceName],
        variable: &str,
    ) -> Vec<ServiceName> {
        let mut copies: Vec<ServiceName> = Vec::new();
        for service in configured.iter().copied().flatten() {
            let name = &service.value.0;
            if !self.has_token(name) {
                let note = format!("{}: {name} has no token, and so gets no copy of a credential", service.place);
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            } else if !copies.contains(name) {
                copies.push(name.clone());
            }
        }
        for name in added {
            if !self.has_token(name) {
                source.faults.add(
                    &Place::Variable(variable.into()),
                    format!("{name} has no token with which to read its secret"),
                    "add it to token-config.json or to EDGEX_ADD_SECRETSTORE_TOKENS",
                );
            } else if !copies.contains(name) {
                copies.push(name.clone());
            }
        }
        copies
    }
}

/// Sections that other parts of EdgeX read.
pub(super) const PASSED_OVER: [&str; 7] =
    ["LogLevel", "Service", "Writable", "Telemetry", "Registry", "Clients", "MessageBus"];
