//! The configuration of `security-secretstore-setup` and `security-file-token-provider`, for those who run them against
//! a store of their own: the same files as for `edgekeep up --edgex-config`, read for what they say about that store.

use std::path::{Path, PathBuf};

use boot::plan::{CredentialPlan, Plan, Reunseal, ServicePlan};
use client::PlainNetworkAllowed;
use host::{Disk, Owner};

use super::credentials::{Asked, Bus, PASSED_OVER};
use super::{Reader, overrides, token_config};
use crate::document;
use crate::environment::Environment;
use crate::fault::{Collector, Faults, Place, shown};
use crate::section::Section;
use crate::settings::parse_audience;

/// What the configuration of a face is read from.
pub struct Face<'a> {
    /// Where the files are.
    pub disk: &'a dyn Disk,
    /// Variables that override.
    pub environment: &'a Environment,
    /// The user that runs this.
    pub uid: u32,
    /// `configuration.yaml`.
    pub file: &'a Path,
    /// From where relative paths lead.
    pub directory: &'a Path,
}

/// Where a store is, and whom to believe there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAt {
    /// Whether TLS protects the way.
    pub https: bool,
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name in its certificate, where it is another than `host`.
    pub server_name: Option<String>,
    /// The authorities to believe.
    pub ca_file: Option<PathBuf>,
    /// `EDGEKEEP_DANGER_PLAIN_HTTP`: without TLS on a private network.
    pub danger_plain_http: Option<PlainNetworkAllowed>,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path, or its name on the search path.
    pub program: String,
    /// What it is given.
    pub arguments: Vec<String>,
}

/// The certificate that a proxy in front of EdgeX shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyCertificate {
    /// Path of the secret, below `/v1/`.
    pub path: String,
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// eKuiper's two files, which are written only where they are already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kuiper {
    /// The source `edgex`.
    pub source: Option<PathBuf>,
    /// The connections.
    pub connections: Option<PathBuf>,
}

/// `security-secretstore-setup`.
#[derive(Debug)]
pub struct SetupFace {
    /// The store.
    pub store: StoreAt,
    /// Where the key shares are kept.
    pub shares_dir: PathBuf,
    /// Their file.
    pub shares_file: String,
    /// How many there are.
    pub shares: u8,
    /// How many open the store.
    pub threshold: u8,
    /// The program that makes the services' tokens; none if it is blank.
    pub provider: Option<Program>,
    /// Where it finds its own token.
    pub admin_token: Option<PathBuf>,
    /// The program that makes passwords; ours if there is none.
    pub passwords: Option<Program>,
    /// Whether root tokens of others are ended too.
    pub revoke_root_tokens: bool,
    /// What is put into the store for a proxy.
    pub proxy: Option<ProxyCertificate>,
    /// Over what services talk.
    pub bus: Bus,
    /// Files of eKuiper.
    pub kuiper: Kuiper,
    /// Passwords, and who gets them.
    pub credentials: Vec<CredentialPlan>,
    /// The IKM hook: its path, or its name on the search path.
    pub hook: Option<String>,
    /// `EDGEKEEP_REQUIRE_ENCRYPTION`: nothing without a hook.
    pub require_encryption: bool,
    /// `EDGEKEEP_DANGER_SHORT_IKM`.
    pub danger_short_ikm: bool,
    /// `EDGEKEEP_REUNSEAL`: how often a sealed store is unsealed.
    pub reunseal: Reunseal,
    /// Where services ask for another token (`--longRun`).
    pub regenerate: RegenerateAt,
    /// Settings without effect here, a line each.
    pub notes: Vec<String>,
}

/// Where services ask for another token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegenerateAt {
    /// `EDGEKEEP_REGENERATE_SOCKET`: the socket, whose peers the kernel names.
    pub socket: PathBuf,
    /// `Service.Host` and `Service.Port`, if they are to be open.
    pub port: Option<RegeneratePort>,
}

/// An address at which services ask for another token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegeneratePort {
    /// A name, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who is let in.
    pub admits: Admits,
}

/// Who is let in at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admits {
    /// `EDGEKEEP_REGENERATE_CLIENT_CA`, `_CERT` and `_KEY`: whoever shows a certificate of these authorities.
    Certified {
        /// The authorities of the services' certificates.
        client_ca: PathBuf,
        /// What is shown to them.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// `EDGEKEEP_DANGER_OPEN_REGENERATE`: callers who show nothing, as EdgeX's own do.
    DangerAnybody,
}

/// `security-file-token-provider`.
#[derive(Debug)]
pub struct ProviderFace {
    /// The store.
    pub store: StoreAt,
    /// The file with the token that may make tokens.
    pub privileged_token: PathBuf,
    /// Where tokens go: a directory each.
    pub output_dir: PathBuf,
    /// Their file's name.
    pub output_file: String,
    /// The userpass mount.
    pub userpass: String,
    /// The services.
    pub services: Vec<ServicePlan>,
    /// To whom EdgeX's images give everything.
    pub edgex_user: Option<Owner>,
}

impl Face<'_> {
    /// Reads the configuration of `security-secretstore-setup`.
    ///
    /// # Errors
    /// [`Faults`]: all of them at once.
    pub fn setup(&self) -> Result<SetupFace, Faults> {
        let faults = Collector::default();
        let Some(root) = self.document(&faults) else { return Err(no_file(faults)) };
        let reader = self.reader(&faults);
        let source = reader.source(self.file);
        let mut top = Section::plain(source, "the file", &root);
        let mut notes = Vec::new();
        let mut section = top.table("SecretStore");
        let store = self.store_at(&mut section);
        let shares_dir = self.path_or(&mut section, "TokenFolderPath", "/openbao/config/assets");
        let shares_file = file_name(&mut section, "TokenFile", "resp-init.json");
        let counts = ["SecretShares", "SecretThreshold", "VaultSecretShares", "VaultSecretThreshold"]
            .map(|key| section.number(key, 1..=255).and_then(|n| u8::try_from(n.value).ok()));
        let shares = counts[0].or(counts[2]).unwrap_or(5);
        let threshold = counts[1].or(counts[3]).unwrap_or(3);
        if threshold > shares || (threshold == 1 && shares > 1) {
            let what = format!("SecretThreshold {threshold} does not go with {shares} SecretShares");
            section.fault(&section.place(), what, "write 2 or more, and no more than there are shares; or 1 and 1");
        }
        let provider = program(&mut section, "TokenProvider", "TokenProviderArgs");
        if let Some(kind) = section.text("TokenProviderType").filter(|k| k.value != "oneshot" && !k.value.is_empty()) {
            let what = format!("unknown TokenProviderType {}", shown(&kind.value));
            section.fault(&kind.place, what, "write \"oneshot\"");
        }
        let admin_token = self.path(&mut section, "TokenProviderAdminTokenPath");
        let passwords = program(&mut section, "PasswordProvider", "PasswordProviderArgs");
        let revoke_root_tokens = section.flag("RevokeRootTokens").is_none_or(|f| f.value);
        let proxy = self.proxy(&mut section);
        section.finish(&["ConsulSecretsAdminTokenPath"]);
        let asked = Asked::read(source, &mut top);
        let regenerate = self.regenerate(&mut top.table("Service"), &faults);
        top.finish(&PASSED_OVER);

        let credentials = asked.for_all(source, &mut notes);
        for credential in &credentials {
            if let Err(e) = credential.check() {
                faults.add(&Place::whole(self.file), e.to_string(), "use only the characters named");
            }
        }
        let kuiper = {
            let [source, connections] = asked.kuiper.clone().map(|p| p.map(|p| self.directory.join(p)));
            Kuiper { source, connections }
        };
        let hook = HOOKS.iter().find_map(|name| self.environment.value(name)).filter(|h| !h.is_empty());
        let setup = SetupFace {
            store,
            shares_dir,
            shares_file,
            shares,
            threshold,
            provider,
            admin_token,
            passwords,
            revoke_root_tokens,
            proxy,
            bus: asked.bus,
            kuiper,
            credentials,
            hook: hook.map(str::to_owned),
            require_encryption: self.switch("EDGEKEEP_REQUIRE_ENCRYPTION", &faults),
            danger_short_ikm: self.switch("EDGEKEEP_DANGER_SHORT_IKM", &faults),
            reunseal: self.reunseal(&faults),
            regenerate,
            notes,
        };
        self.environment.finish(&faults);
        faults.finish(setup)
    }

    /// Reads the configuration of `security-file-token-provider`, and the services that it names.
    ///
    /// # Errors
    /// [`Faults`]: all of them at once.
    pub fn provider(&self) -> Result<ProviderFace, Faults> {
        let faults = Collector::default();
        let Some(root) = self.document(&faults) else { return Err(no_file(faults)) };
        let reader = self.reader(&faults);
        let mut top = Section::plain(reader.source(self.file), "the file", &root);
        let mut section = top.table("SecretStore");
        let store = self.store_at(&mut section);
        section.finish(&[]);
        let mut section = top.table("TokenFileProvider");
        let privileged_token =
            self.path_or(&mut section, "PrivilegedTokenPath", "/run/edgex/secrets/tokenprovider/secrets-token.json");
        let services_file = self.path_or(&mut section, "ConfigFile", "res-file-token-provider/token-config.json");
        let output_dir = self.path_or(&mut section, "OutputDir", "/tmp/edgex/secrets");
        let output_file = file_name(&mut section, "OutputFilename", "secrets-token.json");
        let userpass = file_name(&mut section, "UserPassMountPoint", "userpass");
        let mut defaults = super::provider::Defaults::default();
        if let Some(ttl) = section.duration("DefaultTokenTTL") {
            defaults.set_period(ttl.value);
        }
        if let Some(ttl) = section.duration("DefaultJWTTTL") {
            defaults.set_jwt_ttl(ttl.value);
        }
        if let Some(audience) =
            section.parsed("DefaultJWTAudience", "write 1 to 128 printable characters", parse_audience)
        {
            defaults.set_audience(audience.value);
        }
        section.finish(&[]);
        top.finish(&["LogLevel", "Writable", "Telemetry"]);

        let edgex_user = reader.owner();
        let mut plan = empty_plan();
        let mut places = crate::places::Places::new(&services_file);
        let source = reader.source(&services_file);
        if let Some(node) = crate::input::read(self.disk, self.uid, &services_file, document::json, &faults) {
            token_config::read(source, &node, &defaults, edgex_user, &mut plan, &mut places);
        }
        token_config::add_tokens(source, &defaults, edgex_user, &mut plan, &mut places);
        if let Some(owner) = reader.owner_of("EDGEX_EKUIPER_USER_ID", "EDGEX_EKUIPER_GROUP_ID") {
            plan.services.iter_mut().filter(|s| s.name.as_str() == "rules-engine").for_each(|s| s.owner = Some(owner));
        }
        crate::check_policies(&plan, &places, &faults);
        self.environment.finish(&faults);
        let services = plan.services;
        faults.finish(ProviderFace { store, privileged_token, output_dir, output_file, userpass, services, edgex_user })
    }

    fn reader<'b>(&'b self, faults: &'b Collector) -> Reader<'b> {
        Reader { disk: self.disk, uid: self.uid, environment: self.environment, faults }
    }

    /// The file with what the environment overrides.
    fn document(&self, faults: &Collector) -> Option<document::Node> {
        let reader = self.reader(faults);
        reader.refuse_no_security();
        let mut root = crate::input::read(self.disk, self.uid, self.file, document::yaml, faults)?;
        overrides::supply(&mut root, "SecretStore", &["Protocol", "ServerName", "CaFilePath"]);
        overrides::apply(&mut root, &reader.source(self.file));
        Some(root)
    }

    fn store_at(&self, section: &mut Section<'_>) -> StoreAt {
        if let Some(kind) = section.text("Type").filter(|k| !matches!(k.value.as_str(), "openbao" | "vault")) {
            section.fault(
                &kind.place,
                format!("unknown SecretStore.Type {}", shown(&kind.value)),
                "write \"openbao\" or \"vault\"",
            );
        }
        let https = match section.text("Protocol") {
            Some(p) if p.value == "https" => true,
            Some(p) if !matches!(p.value.as_str(), "http" | "") => {
                section.fault(&p.place, format!("unknown Protocol {}", shown(&p.value)), "write \"https\" or \"http\"");
                true
            }
            _ => false,
        };
        let plain = |h: &str| {
            !h.is_empty() && h.len() <= 253 && h.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c))
        };
        let host = section.parsed("Host", "write a host name or an address", |h| {
            if plain(h) { Ok(h.to_owned()) } else { Err("it is no host") }
        });
        let port = section.number("Port", 1..=65535).and_then(|p| u16::try_from(p.value).ok());
        let ca = section.text("CaFilePath").filter(|p| !p.value.is_empty());
        let ca_file = ca.map(|p| self.directory.join(p.value));
        if https && ca_file.is_none() {
            // EdgeX takes this to mean that no certificate is looked at.
            section.fault(
                &section.place(),
                "Protocol is https and CaFilePath is blank, so there is nothing to check the store's certificate with",
                "name the PEM file of the store's CA in CaFilePath",
            );
        }
        StoreAt {
            https,
            host: host.map_or_else(|| "localhost".to_owned(), |h| h.value),
            port: port.unwrap_or(8200),
            server_name: section.text("ServerName").map(|n| n.value).filter(|n| !n.is_empty()),
            ca_file,
            danger_plain_http: self
                .switch("EDGEKEEP_DANGER_PLAIN_HTTP", section.source().faults)
                .then(PlainNetworkAllowed::danger_plain_network),
        }
    }

    fn proxy(&self, section: &mut Section<'_>) -> Option<ProxyCertificate> {
        let [path, certificate, key] = ["CertPath", "CertFilePath", "KeyFilePath"]
            .map(|key| section.text(key).map(|t| t.value).filter(|t| !t.is_empty()));
        match (path, certificate, key) {
            (None, None, None) => None,
            (Some(path), Some(certificate), Some(key)) => {
                let path = path.trim_matches('/').trim_start_matches("v1/").to_owned();
                let sound = api::ApiPath::parse(&path).is_ok_and(|p| p.as_str() == path && !path.is_empty());
                if !sound {
                    section.fault(
                        &section.place(),
                        format!("CertPath {} is no path of a secret", shown(&path)),
                        "write v1/secret/edgex/...",
                    );
                }
                Some(ProxyCertificate {
                    path,
                    certificate: self.directory.join(certificate),
                    key: self.directory.join(key),
                })
            }
            _ => {
                let remedy = "give CertPath, CertFilePath and KeyFilePath, or none of them";
                section.fault(&section.place(), "half a certificate for the proxy", remedy);
                None
            }
        }
    }

    /// Of the table `Service` no more than this has an effect.
    fn regenerate(&self, section: &mut Section<'_>, faults: &Collector) -> RegenerateAt {
        let socket = self.environment.overriding("EDGEKEEP_REGENERATE_SOCKET").filter(|path| !path.is_empty());
        let host = section.text("Host").map(|h| h.value).filter(|h| !h.is_empty());
        let port = section.number("Port", 1..=65535).and_then(|p| u16::try_from(p.value).ok());
        let port = self.admits(faults).map(|admits| RegeneratePort {
            host: host.unwrap_or_else(|| "localhost".into()),
            port: port.unwrap_or(59843),
            admits,
        });
        let socket = self.directory.join(socket.unwrap_or("/run/edgex/regenerate.sock"));
        RegenerateAt { socket, port }
    }

    fn admits(&self, faults: &Collector) -> Option<Admits> {
        let file = |name| {
            let path = self.environment.overriding(name).filter(|path| !path.is_empty());
            path.map(|path| self.directory.join(path))
        };
        let open = self.switch("EDGEKEEP_DANGER_OPEN_REGENERATE", faults);
        let fault = |what: &str, remedy| {
            faults.add(&Place::Variable(CLIENT_CA.into()), what, remedy);
            None
        };
        match [CLIENT_CA, "EDGEKEEP_REGENERATE_CERT", "EDGEKEEP_REGENERATE_KEY"].map(file) {
            [None, None, None] => open.then_some(Admits::DangerAnybody),
            [Some(_), Some(_), Some(_)] if open => {
                fault("the port is open to anybody besides", "unset EDGEKEEP_DANGER_OPEN_REGENERATE")
            }
            [Some(client_ca), Some(certificate), Some(key)] => Some(Admits::Certified { client_ca, certificate, key }),
            _ => fault(
                "half of what mutual TLS needs",
                "give EDGEKEEP_REGENERATE_CLIENT_CA, EDGEKEEP_REGENERATE_CERT and EDGEKEEP_REGENERATE_KEY, or none of them",
            ),
        }
    }

    fn path(&self, section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
        section.text(key).map(|p| p.value).filter(|p| !p.is_empty()).map(|p| self.directory.join(p))
    }

    fn path_or(&self, section: &mut Section<'_>, key: &'static str, default: &str) -> PathBuf {
        self.path(section, key).unwrap_or_else(|| self.directory.join(default))
    }

    fn reunseal(&self, faults: &Collector) -> Reunseal {
        match self.environment.overriding("EDGEKEEP_REUNSEAL") {
            None | Some("" | "always") => Reunseal::Always,
            Some("once-per-boot") => Reunseal::OncePerBoot,
            Some(other) => {
                let place = Place::Variable("EDGEKEEP_REUNSEAL".into());
                faults.add(&place, format!("is {}", shown(other)), "set it to always or once-per-boot");
                // The stricter of the two, in a configuration that is refused.
                Reunseal::OncePerBoot
            }
        }
    }

    /// One of our own, which EdgeX's files have no place for.
    fn switch(&self, name: &'static str, faults: &Collector) -> bool {
        match self.environment.overriding(name) {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(other) => {
                faults.add(&Place::Variable(name.into()), format!("is {}", shown(other)), "set it to true or false");
                false
            }
        }
    }
}

const CLIENT_CA: &str = "EDGEKEEP_REGENERATE_CLIENT_CA";

fn program(section: &mut Section<'_>, key: &'static str, arguments: &'static str) -> Option<Program> {
    let arguments = section.texts(arguments).unwrap_or_default().into_iter().map(|a| a.value).collect();
    let program = section.text(key).map(|p| p.value).filter(|p| !p.is_empty())?;
    Some(Program { program, arguments })
}

/// A name that is one component of a path.
fn file_name(section: &mut Section<'_>, key: &'static str, default: &str) -> String {
    let plain = |n: &str| {
        !n.is_empty()
            && n.len() <= 64
            && !n.starts_with('.')
            && n.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    section
        .parsed(key, "write a name of letters, digits, '_', '.' and '-'", |n| {
            if plain(n) { Ok(n.to_owned()) } else { Err("it is no plain name") }
        })
        .map_or_else(|| default.to_owned(), |n| n.value)
}

fn no_file(faults: Collector) -> Faults {
    faults.finish(()).expect_err("a file that cannot be read is noted as a fault")
}

/// A plan to hang services on; nothing else of it is looked at.
fn empty_plan() -> Plan {
    let mut plan = crate::demo(&crate::Demo { data_dir: Path::new("/"), run_dir: Path::new("/"), listen: None })
        .expect("the demo has no faults");
    plan.services.clear();
    plan
}

/// The name since version 3 first.
const HOOKS: [&str; 2] = ["EDGEX_IKM_HOOK", "IKM_HOOK"];
