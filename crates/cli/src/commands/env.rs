//! `edgekeep env --service S`: what makes an unmodified client find us, trust us alone, and read its own token.

use std::path::{Path, PathBuf};

use boot::plan::ServiceName;
use clap::Args;
use delivery::Endpoint;

use crate::failure::{Code, Failure};

/// Example: eval "$(edgekeep env --service core-data)"
#[derive(Args)]
pub(crate) struct Env {
    /// The service.
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// The directory of the running edgekeep.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

pub(super) fn run(env: &Env) -> Result<(), Failure> {
    let run_dir = crate::locate::run_dir(env.run_dir.as_deref());
    let endpoint = crate::locate::endpoint(&run_dir)?;
    let variables = variables(&env.service, &run_dir, &endpoint)?;
    let lines: Vec<String> = variables.iter().map(|(name, value)| format!("export {name}={}", quoted(value))).collect();
    crate::output::line(&lines.join("\n"));
    Ok(())
}

/// go-mod-bootstrap's `SECRETSTORE_*`, then what vault, bao and hvac read. The token is named by its file and never
/// shown: the environment of a process can be read by others of its user, and is inherited by all its children.
fn variables(
    service: &ServiceName,
    run_dir: &Path,
    endpoint: &Endpoint,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let authority = endpoint.address.strip_prefix("https://").ok_or_else(|| {
        Failure::new(Code::NotReady, format!("edgekeep listens at {} alone", endpoint.address))
            .hint("set address in [listen]: EdgeX's clients know no Unix sockets")
    })?;
    let (host, port) = authority
        .rsplit_once(':')
        .ok_or_else(|| Failure::fault(format!("endpoint.json has the address {}", endpoint.address)))?;
    let directory = run_dir.join("secrets").join(service.as_str());
    let (token, ca) = (path(&directory.join("secrets-token.json")), path(&directory.join("ca.pem")));
    Ok(vec![
        ("EDGEX_SECURITY_SECRET_STORE", "true".into()),
        ("SECRETSTORE_PROTOCOL", "https".into()),
        ("SECRETSTORE_HOST", host.trim_matches(['[', ']']).into()),
        ("SECRETSTORE_PORT", port.into()),
        ("SECRETSTORE_SERVERNAME", endpoint.server_name.clone()),
        ("SECRETSTORE_ROOTCACERTPATH", ca.clone()),
        ("SECRETSTORE_TOKENFILE", token),
        ("SECRETSTORE_AUTHENTICATION_AUTHTYPE", "X-Vault-Token".into()),
        ("VAULT_ADDR", endpoint.address.clone()),
        ("VAULT_CACERT", ca),
        ("VAULT_TLS_SERVER_NAME", endpoint.server_name.clone()),
    ])
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A word that every POSIX shell reads as it is (POSIX.1-2017, 2.2.2).
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Result<Vec<(&'static str, String)>, Failure> {
        let endpoint =
            Endpoint { address: address.into(), server_name: "localhost".into(), ca: "/run/edgekeep/ca.pem".into() };
        variables(&"core-data".parse().unwrap(), Path::new("/run/edgekeep"), &endpoint)
    }

    #[test]
    fn edgexs_client_finds_us_by_tls() {
        let variables = of("https://[::1]:8200").unwrap();
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(value("SECRETSTORE_PROTOCOL"), "https");
        assert_eq!((value("SECRETSTORE_HOST"), value("SECRETSTORE_PORT")), ("::1".into(), "8200".into()));
        assert_eq!(value("SECRETSTORE_ROOTCACERTPATH"), "/run/edgekeep/secrets/core-data/ca.pem");
        assert_eq!(value("SECRETSTORE_TOKENFILE"), "/run/edgekeep/secrets/core-data/secrets-token.json");
        assert!(variables.iter().all(|(n, _)| *n != "VAULT_TOKEN"), "the token itself is never printed");
        assert!(of("unix:/run/edgekeep/api.sock").is_err());
    }

    #[test]
    fn a_shell_reads_words_as_they_are() {
        assert_eq!(quoted("/run/edgekeep/ca.pem"), "/run/edgekeep/ca.pem");
        assert_eq!(quoted("/a b/$(x)'y"), "'/a b/$(x)'\\''y'");
        assert_eq!(quoted(""), "''");
    }
}
