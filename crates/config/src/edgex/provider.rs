//! `res-file-token-provider/configuration.yaml`: how long tokens and JWTs live.

use api::Ttl;
use boot::plan::{JwtPlan, ServiceName, ServicePlan, TokenPlan};
use host::Owner;

use crate::document::Node;
use crate::fault::shown;
use crate::section::{Section, Source};
use crate::settings::parse_audience;

/// What every service gets unless its entry says otherwise.
#[derive(Default)]
pub(super) struct Defaults {
    token: TokenPlan,
    jwt: JwtPlan,
}

impl Defaults {
    pub(super) fn set_period(&mut self, period: Ttl) {
        self.token.period = period;
    }

    pub(super) fn set_jwt_ttl(&mut self, ttl: Ttl) {
        self.jwt.ttl = ttl;
    }

    pub(super) fn set_audience(&mut self, audience: String) {
        self.jwt.audience = audience;
    }

    pub(super) fn service(&self, name: ServiceName, owner: Option<Owner>) -> ServicePlan {
        ServicePlan { token: self.token, jwt: self.jwt.clone(), owner, ..ServicePlan::usual(name) }
    }
}

pub(super) fn read(source: Source<'_>, root: &Node, notes: &mut Vec<String>) -> Defaults {
    let mut defaults = Defaults::default();
    let mut top = Section::plain(source, "the file", root);
    let mut section = top.table("TokenFileProvider");
    if let Some(ttl) = section.duration("DefaultTokenTTL") {
        defaults.token.period = ttl.value;
    }
    if let Some(ttl) = section.duration("DefaultJWTTTL") {
        defaults.jwt.ttl = ttl.value;
    }
    if let Some(audience) = section.parsed("DefaultJWTAudience", "write 1 to 128 printable characters", parse_audience)
    {
        defaults.jwt.audience = audience.value;
    }
    if let Some(name) = section.text("OutputFilename").filter(|n| n.value != "secrets-token.json") {
        let remedy = "leave it at secrets-token.json; SECRETSTORE_TOKENFILE tells each service its path";
        section.fault(&name.place, format!("OutputFilename is {}", shown(&name.value)), remedy);
    }
    if let Some(mount) = section.text("UserPassMountPoint").filter(|m| m.value != "userpass") {
        let remedy = "leave it at userpass, where edgekeep mounts it";
        section.fault(&mount.place, format!("UserPassMountPoint is {}", shown(&mount.value)), remedy);
    }
    if let Some(dir) = section.text("OutputDir") {
        notes.push(format!("{}: OutputDir {} has no effect; tokens go to run_dir", dir.place, shown(&dir.value)));
    }
    section.finish(&["PrivilegedTokenPath", "ConfigFile"]);
    top.finish(&["LogLevel", "SecretStore", "Writable", "Telemetry"]);
    defaults
}
