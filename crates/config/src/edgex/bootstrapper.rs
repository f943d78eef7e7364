//! `configuration.yaml` of EdgeX's bootstrapper, and the variables that override it.
//!
//! Each image carries its own file, and half of them say nothing but a path: every key has a default, and every key can
//! be set by its variable alone, whether the file has it or not. Sections of other programs are passed over; a key that
//! is nearly one of ours is a fault.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::PlainNetworkAllowed;
use host::Disk;

use crate::document::{self, Node, Value};
use crate::environment::Environment;
use crate::fault::{Collector, Faults, Place, shown};
use crate::nearest::nearest;
use crate::section::{Located, Source, parse_path};

/// What the bootstrapper is told.
#[derive(Clone, Debug)]
pub struct Bootstrapper {
    /// The ports by which services hold each other back.
    pub gates: StageGates,
    /// Where its own secrets are.
    pub store: SecretStore,
    /// `DatabaseConfig`: where the database's files go.
    pub database_files: DatabaseFiles,
    /// `Database.Type`: the name of Redis's secret.
    pub redis_secret: String,
    /// `SecureMosquitto`.
    pub mosquitto: Mosquitto,
    /// `EDGEX_STARTUP_DURATION`: how long a store is waited for that is not there yet.
    pub startup_duration: Duration,
    /// `EDGEX_STARTUP_INTERVAL`: between two attempts.
    pub startup_interval: Duration,
}

/// `StageGate`.
#[derive(Clone, Debug)]
pub struct StageGates {
    /// Where the first gate and the last are opened; empty for all addresses.
    pub host: String,
    /// The first: the store may start.
    pub start_port: NonZeroU16,
    /// The last: everything may start.
    pub to_run_port: NonZeroU16,
    /// Who tells that tokens are there.
    pub tokens_host: String,
    /// Its port.
    pub tokens_port: NonZeroU16,
    /// The database.
    pub database_host: String,
    /// Its port, or one that is opened when it is ready.
    pub database_ready_port: NonZeroU16,
    /// `postgres`, `redis` or `tcp`; told by the port where it is not set. This key is ours.
    pub database_type: Option<String>,
    /// Who tells that the proxy is set up.
    pub proxy_host: String,
    /// Its port.
    pub proxy_port: NonZeroU16,
    /// How long `waitFor` waits.
    pub timeout: Duration,
    /// Between two of its attempts.
    pub retry_interval: Duration,
}

/// `SecretStore`, as every EdgeX service has it.
#[derive(Clone, Debug)]
pub struct SecretStore {
    /// `http` or `https`.
    pub tls: bool,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: NonZeroU16,
    /// The name to expect in its certificate, where it is not the host.
    pub server_name: Option<String>,
    /// The CA; where there is none, the `ca.pem` that lies beside the token.
    pub ca: Option<PathBuf>,
    /// The token's file, where it is not in its usual place.
    pub token_file: Option<PathBuf>,
    /// The part of the store that is ours, where it does not have our name.
    pub store_name: Option<String>,
    /// `EDGEKEEP_DANGER_PLAIN_HTTP`: without TLS on a private network.
    pub danger_plain_http: Option<PlainNetworkAllowed>,
}

/// `DatabaseConfig`.
#[derive(Clone, Debug)]
pub struct DatabaseFiles {
    /// The directory.
    pub path: Option<PathBuf>,
    /// The file in it.
    pub name: Option<String>,
    /// Redis's limit of connections.
    pub max_clients: NonZeroU32,
}

/// `SecureMosquitto`.
#[derive(Clone, Debug)]
pub struct Mosquitto {
    /// The name of its secret.
    pub secret: String,
    /// Its password file.
    pub password_file: PathBuf,
    /// Its configuration.
    pub broker_file: PathBuf,
    /// Its port.
    pub port: NonZeroU16,
}

/// Reads the file, if there is one, and the variables.
///
/// # Errors
/// [`Faults`]: all of them at once.
pub fn bootstrapper(
    disk: &dyn Disk,
    environment: &Environment,
    uid: u32,
    file: Option<&Path>,
) -> Result<Bootstrapper, Faults> {
    let faults = Collector::default();
    let root = match file {
        None => None,
        Some(file) => match crate::input::read(disk, uid, file, document::yaml, &faults) {
            Some(root) => Some(root),
            None => return Err(faults.finish(()).expect_err("a file that cannot be read is noted as a fault")),
        },
    };
    let source = Source { file: file.unwrap_or(Path::new("")), faults: &faults, environment };
    let read = bootstrapper_of(source, root.as_ref());
    faults.finish(read)
}

/// As [`bootstrapper`], from a tree: the fuzzers' door.
pub(crate) fn bootstrapper_of(source: Source<'_>, root: Option<&Node>) -> Bootstrapper {
    let keys = Keys { source, root, asked: RefCell::default() };
    let read = Bootstrapper {
        gates: StageGates {
            host: keys.host("StageGate.BootStrapper.Host", "edgex-security-bootstrapper"),
            start_port: keys.port("StageGate.BootStrapper.StartPort", 54321),
            to_run_port: keys.port("StageGate.Ready.ToRunPort", 54329),
            tokens_host: keys.host("StageGate.SecretStoreSetup.Host", "edgex-security-secretstore-setup"),
            tokens_port: keys.port("StageGate.SecretStoreSetup.Tokens.ReadyPort", 54322),
            database_host: keys.host("StageGate.Database.Host", "edgex-postgres"),
            database_ready_port: keys.port("StageGate.Database.ReadyPort", 54323),
            database_type: keys.optional("StageGate.Database.Type", DATABASES, |t| {
                ["postgres", "redis", "redisdb", "tcp"].contains(&t).then(|| t.to_owned())
            }),
            proxy_host: keys.proxy_host(),
            proxy_port: keys.port("StageGate.ProxySetup.ReadyPort", 54325),
            timeout: keys.duration("StageGate.WaitFor.Timeout", 60),
            retry_interval: keys.duration("StageGate.WaitFor.RetryInterval", 1),
        },
        store: keys.store(),
        database_files: DatabaseFiles {
            path: keys.path("DatabaseConfig.Path"),
            name: keys.optional("DatabaseConfig.Name", "write the name of a file, without a slash", file_name),
            max_clients: keys
                .optional("DatabaseConfig.MaxClients", "write a whole number from 1", |t| t.parse().ok())
                .unwrap_or(MAX_CLIENTS),
        },
        redis_secret: keys.secret("Database.Type", "redisdb"),
        mosquitto: Mosquitto {
            secret: keys.secret("SecureMosquitto.SecretName", "message-bus"),
            password_file: keys.path("SecureMosquitto.PasswordFile").unwrap_or("/mosquitto/config/pwdfile".into()),
            broker_file: keys
                .path("SecureMosquitto.BrokerConfigFile")
                .unwrap_or("/mosquitto/config/mosquitto.conf".into()),
            port: keys.port("SecureMosquitto.Port", 1883),
        },
        startup_duration: keys.seconds("EDGEX_STARTUP_DURATION", 60),
        startup_interval: keys.seconds("EDGEX_STARTUP_INTERVAL", 1),
    };
    keys.finish();
    read
}

/// Keys by their path, each with its variable.
struct Keys<'a> {
    source: Source<'a>,
    root: Option<&'a Node>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Keys<'_> {
    fn store(&self) -> SecretStore {
        let kinds = |t: &str| matches!(t, "openbao" | "vault").then_some(());
        self.optional("SecretStore.Type", "write openbao or vault", kinds);
        let none = |t: &str| t.is_empty().then_some(());
        self.optional("SecretStore.Namespace", "leave it empty: namespaces are not supported here", none);
        SecretStore {
            tls: self
                .optional("SecretStore.Protocol", "write http or https", |t| match t {
                    "https" => Some(true),
                    "http" => Some(false),
                    _ => None,
                })
                .unwrap_or(false),
            host: self.host("SecretStore.Host", "localhost"),
            port: self.port("SecretStore.Port", 8200),
            server_name: self.optional("SecretStore.ServerName", HOST, host).filter(|n| !n.is_empty()),
            ca: self.path("SecretStore.RootCaCertPath"),
            token_file: self.path("SecretStore.TokenFile"),
            store_name: self.optional("SecretStore.StoreName", SEGMENT, segment),
            danger_plain_http: self
                .variable("EDGEKEEP_DANGER_PLAIN_HTTP", "set it to true or false", |t| match t {
                    "true" => Some(Some(PlainNetworkAllowed::danger_plain_network())),
                    "false" | "" => Some(None),
                    _ => None,
                })
                .flatten(),
        }
    }

    /// The variable of EdgeX's scripts comes first, for the file has no key of its own.
    fn proxy_host(&self) -> String {
        let of_scripts = self.variable("PROXY_SETUP_HOST", HOST, host);
        of_scripts.unwrap_or_else(|| self.host("StageGate.ProxySetup.Host", "edgex-security-proxy-setup"))
    }

    fn host(&self, key: &'static str, usual: &str) -> String {
        self.optional(key, HOST, host).unwrap_or_else(|| usual.to_owned())
    }

    fn port(&self, key: &'static str, usual: u16) -> NonZeroU16 {
        let usual = NonZeroU16::new(usual).unwrap_or(NonZeroU16::MIN);
        self.optional(key, "write a port from 1 to 65535", |t| t.parse().ok()).unwrap_or(usual)
    }

    fn duration(&self, key: &'static str, usual: u64) -> Duration {
        self.optional(key, "write a duration above zero, such as 60s or 500ms", go_duration)
            .unwrap_or(Duration::from_secs(usual))
    }

    fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, "write an absolute path without `..`", |t| match t {
            "" => Some(None),
            t => parse_path(t).ok().map(Some),
        })
        .flatten()
    }

    fn secret(&self, key: &'static str, usual: &str) -> String {
        self.optional(key, SEGMENT, segment).unwrap_or_else(|| usual.to_owned())
    }

    fn seconds(&self, name: &'static str, usual: u64) -> Duration {
        let parse = |t: &str| t.parse().ok().filter(|s| (1..=86_400).contains(s)).map(Duration::from_secs);
        self.variable(name, "write whole seconds from 1 to 86400", parse).unwrap_or(Duration::from_secs(usual))
    }

    /// The key's value, from its variable or from the file. One that cannot be read is a fault, never its default in
    /// silence.
    fn optional<T>(&self, key: &'static str, remedy: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.asked.borrow_mut().insert(key);
        let found = self.of_environment(key).or_else(|| self.of_file(key))?;
        let parsed = parse(&found.value);
        if parsed.is_none() {
            self.source.faults.add(&found.place, format!("{key} is {}", shown(&found.value)), remedy);
        }
        parsed
    }

    fn variable<T>(&self, name: &str, remedy: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.source.environment.value(name)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.source.faults.add(&Place::Variable(name.to_owned()), format!("is {}", shown(text)), remedy);
        }
        parsed
    }

    fn of_environment(&self, key: &str) -> Option<Located<String>> {
        let name = key.replace('.', "_").to_uppercase();
        let value = self.source.environment.value(&name)?.to_owned();
        Some(Located { value, place: Place::Variable(name) })
    }

    fn of_file(&self, key: &str) -> Option<Located<String>> {
        let (mut node, mut line) = (self.root?, 1);
        for part in key.split('.') {
            let Value::Map(entries) = &node.value else { return None };
            let entry = entries.iter().find(|e| e.key == part)?;
            (node, line) = (&entry.node, entry.line);
        }
        let place = self.source.at(line);
        let value = match &node.value {
            Value::Null => return None,
            Value::Text(text) | Value::Float(text) => text.clone(),
            Value::Int(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            other @ (Value::List(_) | Value::Map(_)) => {
                self.source.faults.add(&place, format!("{key} is {}", other.kind()), "write one value");
                return None;
            }
        };
        Some(Located { value, place })
    }

    /// Keys beside ours that are nearly ours.
    fn finish(&self) {
        if let Some(root) = self.root {
            self.misspelt(root, "");
        }
    }

    fn misspelt(&self, node: &Node, above: &str) {
        let Value::Map(entries) = &node.value else { return };
        let asked = self.asked.borrow();
        let below: BTreeSet<&str> =
            asked.iter().filter_map(|key| key.strip_prefix(above)).filter_map(|rest| rest.split('.').next()).collect();
        for entry in entries {
            let key = entry.key.as_str();
            if below.contains(key) {
                self.misspelt(&entry.node, &format!("{above}{key}."));
            } else if let Some(near) = nearest(key, below.iter().copied()) {
                let what = format!("unknown key {}", shown(&format!("{above}{key}")));
                self.source.faults.add(&self.source.at(entry.line), what, format!("did you mean {near}?"));
            }
        }
    }
}

/// Go's notation of a time above zero, to the millisecond: `500ms`, `10s`, `1m30s`, `1.5s`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    if rest.len() > 32 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, unit_on) = rest.split_at(digits);
        let unit_len = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let (unit, next) = unit_on.split_at(unit_len);
        let millis = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        let amount: f64 = amount.parse().ok().filter(|a| (0.0..1e9).contains(a))?;
        total = total.checked_add(Duration::try_from_secs_f64(amount * millis / 1_000.0).ok()?)?;
        rest = next;
    }
    // The longest that a person means: a day and more is a slip.
    Some(total).filter(|t| (Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(t))
}

/// A name or an address; empty says "all" where something is opened.
fn host(text: &str) -> Option<String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    (text.len() <= 253 && text.chars().all(sound)).then(|| text.to_owned())
}

/// One component of a path in the store.
fn segment(text: &str) -> Option<String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (!text.is_empty() && text.len() <= 128 && text.chars().all(sound) && text != "." && text != "..")
        .then(|| text.to_owned())
}

fn file_name(text: &str) -> Option<String> {
    let plain = !text.contains(|c: char| c == '/' || c.is_control()) && text != "." && text != "..";
    (plain && !text.is_empty() && text.len() <= 200).then(|| text.to_owned())
}

const HOST: &str = "write a host's name or address";
const SEGMENT: &str = "write one name of letters, digits, dots, dashes and underscores";
const DATABASES: &str = "write postgres, redis, or tcp for any other";
/// EdgeX's own.
const MAX_CLIENTS: NonZeroU32 = NonZeroU32::new(1000).expect("more than none");

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;

    fn me() -> u32 {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.meta(dir.path()).unwrap().unwrap().owner.uid
    }

    fn read(yaml: Option<&str>, variables: &[(&str, &str)]) -> Result<Bootstrapper, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("configuration.yaml");
        if let Some(yaml) = yaml {
            OsDisk.write_new(&path, yaml.as_bytes(), 0o644, None).unwrap();
        }
        let environment = Environment::of(variables.iter().copied());
        let read = bootstrapper(&OsDisk, &environment, me(), yaml.map(|_| path.as_path()));
        read.map_err(|f| f.to_string().replace(&path.display().to_string(), "c.yaml"))
    }

    #[test]
    fn without_a_file_there_are_edgexs_ports() {
        let b = read(None, &[]).unwrap();
        let g = &b.gates;
        let ports = [g.start_port, g.tokens_port, g.database_ready_port, g.proxy_port, g.to_run_port];
        assert_eq!(ports.map(NonZeroU16::get), [54321, 54322, 54323, 54325, 54329]);
        assert_eq!(
            (g.host.as_str(), g.tokens_host.as_str()),
            ("edgex-security-bootstrapper", "edgex-security-secretstore-setup")
        );
        assert_eq!((g.timeout, g.retry_interval), (Duration::from_secs(60), Duration::from_secs(1)));
        assert!(!b.store.tls && b.store.ca.is_none() && b.store.token_file.is_none());
        assert_eq!((b.redis_secret.as_str(), b.mosquitto.secret.as_str()), ("redisdb", "message-bus"));
    }

    #[test]
    fn a_variable_overrides_the_file_and_stands_where_the_file_is_silent() {
        let yaml = "LogLevel: INFO\nStageGate:\n  WaitFor:\n    Timeout: 10s\n  Ready:\n    ToRunPort: 1\nSecretStore:\n  Host: a\n";
        let variables = [
            ("STAGEGATE_READY_TORUNPORT", "2"),
            ("STAGEGATE_DATABASE_READYPORT", "5432"),
            ("STAGEGATE_WAITFOR_RETRYINTERVAL", "250ms"),
            ("SECRETSTORE_PROTOCOL", "https"),
            ("SECRETSTORE_TOKENFILE", "/t"),
            ("PROXY_SETUP_HOST", "p"),
        ];
        let b = read(Some(yaml), &variables).unwrap();
        assert_eq!((b.gates.to_run_port.get(), b.gates.database_ready_port.get()), (2, 5432));
        assert_eq!((b.gates.timeout, b.gates.retry_interval), (Duration::from_secs(10), Duration::from_millis(250)));
        assert_eq!((b.store.tls, b.store.host.as_str(), b.store.token_file), (true, "a", Some("/t".into())));
        assert_eq!(b.gates.proxy_host, "p");
    }

    #[test]
    fn what_is_wrong_is_told_all_at_once_and_never_taken_for_its_default() {
        let yaml = "StageGate:\n  WaitFor:\n    Timeout: 0s\n    RetryInteval: 1s\n  KongDb:\n    Port: 1\nDatabaseConfig:\n  Name: ../x\n  MaxClients: 0\n";
        let text = read(Some(yaml), &[("STAGEGATE_READY_TORUNPORT", "70000"), ("SECRETSTORE_PROTOCOL", "gopher")])
            .unwrap_err();
        let lines: Vec<_> = text.lines().filter(|l| !l.starts_with(" hint")).collect();
        assert_eq!(
            lines,
            [
                "c.yaml:3: StageGate.WaitFor.Timeout is \"0s\"",
                "c.yaml:4: unknown key \"StageGate.WaitFor.RetryInteval\"",
                "c.yaml:8: DatabaseConfig.Name is \"../x\"",
                "c.yaml:9: DatabaseConfig.MaxClients is \"0\"",
                "environment SECRETSTORE_PROTOCOL: SecretStore.Protocol is \"gopher\"",
                "environment STAGEGATE_READY_TORUNPORT: StageGate.Ready.ToRunPort is \"70000\"",
            ]
        );
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in
            [("10s", 10_000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1_500), ("1h0m0s", 3_600_000)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "0s", "-1s", "1d", "s", "1..5s", "99999999h", "1s ", "1ns", "infs", "NaNs"] {
            assert_eq!(go_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn edgexs_own_file_has_no_fault() {
        let sample =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples/edgex-security-bootstrapper.yaml");
        let yaml = std::fs::read_to_string(&sample)
            .unwrap_or_else(|e| panic!("EdgeX's sample files belong beside the repository: {}: {e}", sample.display()));
        let b = read(Some(&yaml), &[]).unwrap();
        assert_eq!(
            (b.gates.tokens_host.as_str(), b.gates.timeout),
            ("edgex-secretstore-setup", Duration::from_secs(10))
        );
    }
}
