//! Which store a command talks to, as whom, and how it shows the answer.
//!
//! `--as SERVICE` stands for the service on this device: address, CA and token are those that were delivered to it.
//! Otherwise the address is the one given, or `BAO_ADDR` or `VAULT_ADDR`, or the edgekeep that runs here; the token is
//! `BAO_TOKEN`, `VAULT_TOKEN` or what `login` left in `~/.vault-token`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use client::{Address, DangerPlainVault, Deadlines, HttpsVault, Remote, Trust, UnixVault};
use config::Environment;
use delivery::Endpoint;
use host::{Disk, OsDisk};
use secret::Token;

use super::answer::{Format, Style};
use super::session::Session;
use crate::failure::{Code, Failure};

#[derive(Args)]
pub(super) struct Connection {
    /// Act as a service of this device, with the token that was delivered to it [env: EDGEKEEP_AS].
    #[arg(long = "as", value_name = "SERVICE", global = true, help_heading = CONNECTION)]
    service: Option<boot::plan::ServiceName>,
    /// The store: https://host:8200 or unix:///path [env: VAULT_ADDR, BAO_ADDR].
    #[arg(long, value_name = "URL", global = true, conflicts_with = "service", help_heading = CONNECTION)]
    address: Option<String>,
    /// The CA that alone is trusted, PEM [env: VAULT_CACERT, BAO_CACERT].
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "service", help_heading = CONNECTION)]
    ca_cert: Option<PathBuf>,
    /// The name to expect in the server's certificate [env: VAULT_TLS_SERVER_NAME, BAO_TLS_SERVER_NAME].
    #[arg(long, value_name = "NAME", global = true, conflicts_with = "service", help_heading = CONNECTION)]
    tls_server_name: Option<String>,
    /// The directory of the running edgekeep [env: EDGEKEEP_RUN_DIR].
    #[arg(long, value_name = "DIR", global = true, help_heading = CONNECTION)]
    run_dir: Option<PathBuf>,
    /// Talk without TLS, to this machine alone: for a store that somebody runs for tests.
    #[arg(long, global = true, help_heading = CONNECTION)]
    danger_plain_http: bool,
}

/// How the answer is shown.
#[derive(Args)]
pub(super) struct Common {
    /// table or json [env: VAULT_FORMAT, BAO_FORMAT].
    #[arg(long, value_enum, value_name = "FORMAT", global = true, help_heading = CONNECTION)]
    format: Option<Format>,
    /// Show the value of this key alone.
    #[arg(long, value_name = "KEY", global = true, help_heading = CONNECTION)]
    field: Option<String>,
}

const CONNECTION: &str = "Flags of all client commands";

impl Common {
    pub(super) fn style(&self, environment: &Environment) -> Result<Style, Failure> {
        let of_environment = match either(environment, "FORMAT") {
            None | Some("") => Format::Table,
            Some(word) => Format::from_str(word, true).map_err(|_| {
                Failure::usage(format!("VAULT_FORMAT is {word:?}")).hint("write table or json, or unset it")
            })?,
        };
        Ok(Style { format: self.format.unwrap_or(of_environment), field: self.field.clone() })
    }
}

impl Connection {
    /// Finds the store and the token. Nothing is connected yet.
    pub(super) fn open(&self, environment: &Environment) -> Result<Session<Remote>, Failure> {
        let service = match (&self.service, environment.value("EDGEKEEP_AS").filter(|s| !s.is_empty())) {
            (Some(service), _) => Some(service.clone()),
            (None, Some(name)) if self.address.is_none() => Some(name.parse().map_err(|e| {
                Failure::usage(format!("EDGEKEEP_AS is {name:?}: {e}"))
                    .hint("set it to the name of a service, or unset it")
            })?),
            _ => None,
        };
        if let Some(service) = service {
            return self.as_service(&service);
        }
        let given = self.address.as_deref().or_else(|| either(environment, "ADDR")).filter(|a| !a.is_empty());
        let token = token_of(environment)?;
        let home = home(environment);
        let vault = match given {
            Some(text) => self.remote(text, None, environment)?,
            None => {
                let endpoint = self.endpoint()?;
                self.remote(&endpoint.address.clone(), Some(&endpoint), environment)?
            }
        };
        Ok(Session { vault, token, token_file: home.map(|h| h.join(TOKEN_FILE)) })
    }

    /// The run directory of the edgekeep that runs here, unless another store is named.
    pub(super) fn here(&self, environment: &Environment) -> Option<PathBuf> {
        let service = self.service.is_some() || environment.value("EDGEKEEP_AS").is_some_and(|s| !s.is_empty());
        let elsewhere =
            self.address.is_some() || !service && either(environment, "ADDR").is_some_and(|a| !a.is_empty());
        (!elsewhere).then(|| crate::locate::run_dir(self.run_dir.as_deref()))
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        crate::locate::endpoint(&crate::locate::run_dir(self.run_dir.as_deref()))
    }

    fn as_service(&self, service: &boot::plan::ServiceName) -> Result<Session<Remote>, Failure> {
        let run_dir = crate::locate::run_dir(self.run_dir.as_deref());
        let endpoint = crate::locate::endpoint(&run_dir)?;
        let directory = run_dir.join("secrets").join(service.as_str());
        let file = directory.join("secrets-token.json");
        let text = OsDisk.read(&file, MAX_TOKEN_FILE).map_err(|e| {
            Failure::new(Code::Refused, format!("cannot read the token of {service} in {}: {e}", file.display()))
                .hint("run this as the user that the token was delivered to; `edgekeep up --check` names the services")
        })?;
        let token = delivery::token_in(&text).ok_or_else(|| {
            Failure::fault(format!("{} holds no token", file.display()))
                .hint("restart edgekeep: it delivers the token anew")
        })?;
        let ca = directory.join("ca.pem");
        let vault = remote(&endpoint.address, Some(&ca), Some(&endpoint.server_name), self.danger_plain_http, false)?;
        Ok(Session { vault, token: Some(token), token_file: None })
    }

    fn remote(&self, address: &str, here: Option<&Endpoint>, environment: &Environment) -> Result<Remote, Failure> {
        if either(environment, "SKIP_VERIFY").is_some_and(|v| !matches!(v, "" | "0" | "false")) {
            return Err(Failure::usage("VAULT_SKIP_VERIFY asks to trust any server")
                .hint("unset it, and name the CA with --ca-cert or VAULT_CACERT"));
        }
        let ca_of_environment = || either(environment, "CACERT").filter(|v| !v.is_empty()).map(PathBuf::from);
        let ca = self.ca_cert.clone().or_else(ca_of_environment).or_else(|| here.map(|e| e.ca.clone()));
        let name = self.tls_server_name.as_deref().or_else(|| either(environment, "TLS_SERVER_NAME"));
        let name = name.filter(|n| !n.is_empty()).or_else(|| here.map(|e| e.server_name.as_str()));
        remote(address, ca.as_deref(), name, self.danger_plain_http, here.is_none())
    }
}

/// A client for the address. TLS 1.2 is spoken only to stores that are not ours.
fn remote(address: &str, ca: Option<&Path>, name: Option<&str>, plain: bool, tls12: bool) -> Result<Remote, Failure> {
    let usage = |e: &dyn std::error::Error| Failure::of(Code::Usage, e);
    let address =
        Address::parse(address).map_err(|e| usage(&e).hint("write https://host:8200 or unix:///path/of/the/socket"))?;
    match address {
        Address::Unix { path } => Ok(Remote::Unix(UnixVault::new(path, Deadlines::default()))),
        Address::Http { host, port } if plain => {
            let vault = DangerPlainVault::new(&host, port, Deadlines::default());
            Ok(Remote::DangerPlain(vault.map_err(|e| usage(&e).hint("use https: others could read your token"))?))
        }
        Address::Http { .. } => Err(Failure::usage("plain http shows tokens and secrets to whoever holds the port")
            .hint("use https, or add --danger-plain-http for a test store on this machine")),
        Address::Https { host, port } => {
            let ca = ca.ok_or_else(|| {
                Failure::usage(format!("no CA is named for https://{host}:{port}"))
                    .hint("name its certificate with --ca-cert or VAULT_CACERT: the system's authorities are not asked")
            })?;
            let unusable =
                |fact: String| Failure::usage(fact).hint("name the PEM file of the CA that signed the server");
            let pem = read_following_links(ca)
                .map_err(|e| unusable(format!("cannot read the CA file {}: {e}", ca.display())))?;
            let mut trust = Trust::of_pem(&pem).map_err(|e| unusable(format!("{}: {e}", ca.display())))?;
            if tls12 {
                trust = trust.allow_tls12();
            }
            if let Some(name) = name {
                trust = trust.named(name).map_err(|e| usage(&e))?;
            }
            Ok(Remote::Https(HttpsVault::new(&host, port, &trust, Deadlines::default()).map_err(|e| usage(&e))?))
        }
    }
}

/// A public file that the caller names: a link is theirs to use.
fn read_following_links(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(2 * 1024 * 1024).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `BAO_X`, or `VAULT_X`.
fn either<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.value(&format!("BAO_{name}")).or_else(|| environment.value(&format!("VAULT_{name}")))
}

fn home(environment: &Environment) -> Option<PathBuf> {
    environment.value("HOME").filter(|h| h.starts_with('/')).map(PathBuf::from)
}

fn token_of(environment: &Environment) -> Result<Option<Token>, Failure> {
    if let Some(text) = either(environment, "TOKEN").filter(|t| !t.is_empty()) {
        let token = Token::parse(text).map_err(|e| Failure::usage(format!("VAULT_TOKEN is {e}")))?;
        return Ok(Some(token));
    }
    let Some(file) = home(environment).map(|h| h.join(TOKEN_FILE)) else { return Ok(None) };
    match OsDisk.read(&file, MAX_TOKEN_FILE) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
            let token = Token::parse(text).map_err(|e| {
                Failure::usage(format!("{} is {e}", file.display())).hint("log in again, or remove the file")
            })?;
            Ok(Some(token))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::usage(format!("cannot read {}: {e}", file.display()))),
    }
}

/// In the home directory, as `vault` and `bao` have it.
const TOKEN_FILE: &str = ".vault-token";
const MAX_TOKEN_FILE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<Remote, Failure>) -> (String, Code) {
        let failure = result.map(|_| ()).unwrap_err();
        (failure.fact, failure.code)
    }

    #[test]
    fn plain_http_is_asked_for_and_never_leaves_the_machine() {
        let (fact, code) = refusal(remote("http://127.0.0.1:8200", None, None, false, true));
        assert_eq!(
            (fact.as_str(), code),
            ("plain http shows tokens and secrets to whoever holds the port", Code::Usage)
        );
        assert!(refusal(remote("http://192.0.2.1:8200", None, None, true, true)).0.contains("not this machine"));
        assert!(remote("http://127.0.0.1:8200", None, None, true, true).is_ok());
    }

    #[test]
    fn https_needs_a_ca_and_nothing_skips_the_check() {
        assert_eq!(
            refusal(remote("https://127.0.0.1", None, None, false, true)).0,
            "no CA is named for https://127.0.0.1:8200"
        );
        let dir = tempfile::tempdir().unwrap();
        assert!(
            refusal(remote("https://a", Some(&dir.path().join("none")), None, false, true))
                .0
                .starts_with("cannot read")
        );
        let empty = dir.path().join("empty.pem");
        OsDisk.write_new(&empty, b"", 0o600, None).unwrap();
        assert!(refusal(remote("https://a", Some(&empty), None, false, true)).0.contains("holds no certificate"));
    }

    #[test]
    fn the_environment_names_the_token_and_the_format() {
        let of = |variables: &[(&'static str, &'static str)]| Environment::of(variables.iter().copied());
        let both = of(&[("BAO_TOKEN", "s.bao"), ("VAULT_TOKEN", "s.vault")]);
        assert_eq!(token_of(&both).unwrap().unwrap().expose(), "s.bao");
        assert!(token_of(&of(&[("VAULT_TOKEN", "a b")])).is_err());
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap().to_owned();
        let with_home = Environment::of([("HOME", path.as_str())]);
        assert!(token_of(&with_home).unwrap().is_none());
        OsDisk.write_new(&home.path().join(TOKEN_FILE), b"s.file\n", 0o600, None).unwrap();
        assert_eq!(token_of(&with_home).unwrap().unwrap().expose(), "s.file");
        let common = Common { format: None, field: None };
        assert_eq!(common.style(&of(&[("VAULT_FORMAT", "JSON")])).unwrap().format, Format::Json);
        assert!(common.style(&of(&[("VAULT_FORMAT", "xml")])).is_err());
    }
}
