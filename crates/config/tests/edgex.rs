//! EdgeX's own files as its release has them: all services, policies and credentials.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use boot::plan::{CredentialKind, Need, Plan, Probe};
use config::{Config, Environment, Faults, Inputs};
use host::{Disk, OsDisk};

const TOML: &str = "[source]\nkind = \"exec\"\npath = \"/usr/lib/edgekeep/ikm\"\n[recovery]\nnone = true\n";

/// Where the samples of EdgeX lie beside the repository.
fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("the sample {} is missing: {e}", path.display()))
}

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn of_the_samples() -> Self {
        let case = Self { dir: tempfile::tempdir().unwrap() };
        case.write("res-file-token-provider/token-config.json", &sample("edgex-token-config.json"));
        case.write("res-file-token-provider/configuration.yaml", &sample("edgex-file-token-provider.yaml"));
        case.write("res/configuration.yaml", &sample("edgex-secretstore-setup.yaml"));
        case.write("edgekeep.toml", TOML.as_bytes());
        case
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        OsDisk.replace(&path, bytes, 0o600, None).unwrap();
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, Faults> {
        config::load(&Inputs {
            disk: &OsDisk,
            environment: &Environment::of(variables.iter().copied()),
            uid: OsDisk.meta(self.dir.path()).unwrap().unwrap().owner.uid,
            file: &self.dir.path().join("edgekeep.toml"),
            edgex_dir: Some(self.dir.path()),
            data_dir: None,
            terminal: false,
        })
    }
}

fn copies(plan: &Plan, kind: CredentialKind, source: &str) -> Vec<String> {
    let credential = plan.credentials.iter().find(|c| c.kind == kind && c.source == source).unwrap();
    credential.copies.iter().map(ToString::to_string).collect()
}

#[test]
fn all_services_of_the_sample_with_their_policies() {
    let plan = Case::of_the_samples().load(&[]).unwrap().plan;
    assert_eq!(plan.services.len(), 18);
    for service in &plan.services {
        assert_eq!(service.policy_name(), format!("edgex-service-{}", service.name));
        assert!(service.policy.defaults);
        assert_eq!((service.token.period.as_seconds(), service.jwt.ttl.as_seconds()), (3600, 900));
        assert_eq!(service.jwt.audience, "edgex");
    }
    let custom = |name: &str| plan.service(&name.parse().unwrap()).unwrap().policy.custom.clone();
    assert_eq!(custom("core-data").len(), 0);
    assert_eq!(custom("security-proxy-setup").len(), 9);
    let spiffe = custom("security-spiffe-token-provider");
    assert_eq!(spiffe["secret/edgex/*"].capabilities(), ["list", "create", "update", "delete"]);
    assert_eq!(spiffe["secret/edgex/security-bootstrapper-redis/redisdb"].capabilities(), ["read"]);
}

#[test]
fn credentials_as_edgex_makes_them() {
    let plan = Case::of_the_samples().load(&[]).unwrap().plan;
    let databases = [
        "core-metadata",
        "core-data",
        "core-keeper",
        "support-notifications",
        "support-scheduler",
        "security-proxy-auth",
    ];
    let redis = "edgex/security-bootstrapper-redis/redisdb";
    assert_eq!(copies(&plan, CredentialKind::RedisDb, redis), databases);
    for name in databases {
        let source = format!("edgex/security-bootstrapper-postgres/{name}/postgres");
        assert_eq!(copies(&plan, CredentialKind::Postgres, &source), [name]);
        let user = &plan.credentials.iter().find(|c| c.source == source).unwrap().user;
        assert_eq!(*user, name.replace('-', "_"));
    }
    let superuser = plan.credentials.iter().find(|c| c.user == "postgres").unwrap();
    assert_eq!(
        (superuser.source.as_str(), superuser.copies.len()),
        ("edgex/security-bootstrapper-postgres/postgres", 0)
    );
    assert_eq!(plan.credentials.len(), 8, "redis, the superuser, six services; no message bus while its type is none");
}

#[test]
fn variables_as_compose_sets_them() {
    let case = Case::of_the_samples();
    let known =
        "postgres[app-rules-engine],message-bus[app-rules-engine],message-bus[device-rest],message-bus[device-virtual]";
    let variables = [
        ("SECUREMESSAGEBUS_TYPE", "mqtt"),
        ("EDGEX_ADD_KNOWN_SECRETS", known),
        ("EDGEX_ADD_SECRETSTORE_TOKENS", " my-app , core-data,,"),
        ("TOKENFILEPROVIDER_DEFAULTTOKENTTL", "2h"),
        ("EDGEX_USER", "2002"),
        ("EDGEX_GROUP", "2001"),
    ];
    let plan = case.load(&variables).unwrap().plan;
    assert_eq!(plan.services.len(), 19, "my-app is added; the file's core-data wins over the variable's");
    assert!(plan.services.iter().all(|s| s.token.period.as_seconds() == 7200));
    assert!(plan.services.iter().all(|s| s.owner == Some(host::Owner { uid: 2002, gid: 2001 })));
    let bus = copies(&plan, CredentialKind::MessageBus, "edgex/security-bootstrapper-messagebus/message-bus");
    let configured = ["core-command", "core-metadata", "core-data", "core-keeper", "app-rules-engine"];
    assert_eq!(bus[..5], configured);
    assert_eq!(bus[5..], ["support-notifications", "support-scheduler", "device-rest", "device-virtual"]);
    let postgres = plan.credentials.iter().find(|c| c.user == "app-rules-engine").unwrap();
    assert_eq!(postgres.source, "edgex/security-bootstrapper-postgres/app-rules-engine/postgres");
}

#[test]
fn known_secrets_count_without_a_configuration_of_the_set_up() {
    let case = Case::of_the_samples();
    std::fs::remove_file(case.dir.path().join("res/configuration.yaml")).unwrap();
    assert!(case.load(&[]).unwrap().plan.credentials.is_empty());
    let plan = case.load(&[("EDGEX_ADD_KNOWN_SECRETS", "redisdb[core-data]")]).unwrap().plan;
    assert_eq!(copies(&plan, CredentialKind::RedisDb, "edgex/security-bootstrapper-redis/redisdb"), ["core-data"]);
    let faults = case.load(&[("EDGEX_ADD_KNOWN_SECRETS", "postgres[core-data]")]).unwrap_err().to_string();
    assert!(faults.contains("names postgres"), "what nobody makes is refused, not passed over: {faults}");
}

#[test]
fn a_redis_bus_shares_the_redis_password() {
    let plan = Case::of_the_samples().load(&[("SECUREMESSAGEBUS_TYPE", "redis")]).unwrap().plan;
    let redis = copies(&plan, CredentialKind::RedisDb, "edgex/security-bootstrapper-redis/redisdb");
    assert!(redis.contains(&"core-command".to_owned()));
    assert!(plan.credentials.iter().all(|c| c.kind != CredentialKind::MessageBus));
}

#[test]
fn a_service_without_a_token_gets_no_copy() {
    let case = Case::of_the_samples();
    case.write("res-file-token-provider/token-config.json", br#"{"core-data": {"edgex_use_defaults": true}}"#);
    let config = case.load(&[]).unwrap();
    assert_eq!(
        copies(&config.plan, CredentialKind::RedisDb, "edgex/security-bootstrapper-redis/redisdb"),
        ["core-data"]
    );
    assert!(config.notes.iter().any(|n| n.contains("core-keeper has no token")), "{:?}", config.notes);
}

#[test]
fn a_custom_rule_replaces_the_default_of_its_path() {
    let case = Case::of_the_samples();
    let text = br#"{"a": {"edgex_use_defaults": true, "custom_policy": {"path": {"secret/edgex/a/*": {"capabilities": ["read"]}}}}}"#;
    case.write("res-file-token-provider/token-config.json", text);
    let plan = case.load(&[]).unwrap().plan;
    let policy: serde_json::Value = serde_json::from_str(&plan.services[0].policy_text()).unwrap();
    assert_eq!(policy["path"]["secret/edgex/a/*"]["capabilities"], serde_json::json!(["read"]));
}

#[test]
fn compose_finds_its_hosts_and_gates() {
    let case = Case::of_the_samples();
    case.write("edgekeep.toml", format!("preset = \"compose\"\n{TOML}").as_bytes());
    let plan = case.load(&[("STAGEGATE_READY_TORUNPORT", "54330"), ("STAGEGATE_DATABASE_HOST", "db")]).unwrap().plan;
    assert_eq!(plan.listen.tcp.as_deref(), Some("0.0.0.0:8200"));
    assert!(plan.listen.names.contains(&"edgex-secret-store".to_owned()));
    let hints: Vec<u16> = plan.gates.iter().filter_map(|g| g.hint).map(|h| h.port()).collect();
    assert_eq!(hints, [54321, 54322, 54330]);
    let database = Need::Probe(Probe::Postgres { host: "db".into(), port: 5432 });
    assert!(plan.gates[2].needs.contains(&database));
}
