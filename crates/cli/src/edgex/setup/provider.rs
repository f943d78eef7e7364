//! Who makes the services' tokens: ourselves, where EdgeX's own provider is named, or the program that is.

use std::time::Duration;

use clap::Parser;
use client::{Bearer, Vault};
use config::{ProviderFace, SetupFace};
use delivery::Parcel;
use external::{IssuingToken, Stop};
use host::{Disk, OsDisk};

use crate::edgex::child::{self, Found};
use crate::edgex::face::Ground;
use crate::edgex::{go_flags, token_provider};
use crate::failure::{Code, Failure};

/// What the configuration names.
pub(super) enum Provider {
    /// Nothing: tokens come from elsewhere.
    None,
    /// `security-file-token-provider`, which is a face of this executable: no process, and no token of its own on any
    /// disk.
    BuiltIn(ProviderFace),
    /// Something else.
    Program(Found),
}

impl Provider {
    /// Finds it, and reads its configuration: a slip there must not be met with half of the tokens made.
    pub(super) fn find(face: &SetupFace, ground: &Ground) -> Result<Self, Failure> {
        let Some(program) = &face.provider else { return Ok(Self::None) };
        let name = program.program.rsplit('/').next().unwrap_or_default();
        if name != BUILT_IN {
            return child::find(program, ground.environment().value("PATH"))
                .map(Self::Program)
                .map_err(|e| Failure::of(Code::Refused, &e).hint("see SecretStore.TokenProvider"));
        }
        let words = std::iter::once(BUILT_IN.into()).chain(program.arguments.iter().map(Into::into)).collect();
        let arguments = token_provider::Arguments::try_parse_from(go_flags::doubled(words)).map_err(|e| {
            Failure::usage(format!("SecretStore.TokenProviderArgs: {}", e.render().to_string().trim_end()))
        })?;
        token_provider::configuration(ground, &arguments).map(Self::BuiltIn)
    }

    /// Has every service given a token. Whether anybody was.
    pub(super) async fn provide<V: Vault>(
        &self,
        root: &Bearer<'_, V>,
        face: &SetupFace,
        ground: &Ground,
        stop: &Stop,
    ) -> Result<bool, Failure> {
        if let Self::None = self {
            return Ok(false);
        }
        stop.check()?;
        let issuing = IssuingToken::create(root).await.map_err(|e| Failure::of(Code::Refused, &e))?;
        let provided = match self {
            Self::BuiltIn(provider) => {
                let store = issuing.over(root.anonymous());
                stop.or(token_provider::for_all(&store, provider, ground)).await.map(|services| {
                    tracing::info!(services, "every service has a new token");
                })
            }
            Self::Program(program) => run(program, &issuing, face, stop).await,
            Self::None => Ok(()),
        };
        let ended = issuing.revoke(root.anonymous()).await.map_err(|e| Failure::of(Code::Refused, &e));
        provided?;
        ended.map(|()| true)
    }
}

/// The program finds the issuing token in a file, for as long as it runs.
async fn run(program: &Found, issuing: &IssuingToken, face: &SetupFace, stop: &Stop) -> Result<(), Failure> {
    let Some(file) = &face.admin_token else {
        return Err(Failure::new(
            Code::Refused,
            "SecretStore.TokenProviderAdminTokenPath is blank, and the provider needs a token",
        )
        .hint("name a file on a tmpfs, such as /run/edgex/secrets/tokenprovider/secrets-token.json"));
    };
    let failed =
        |what: &str, e: std::io::Error| Failure::new(Code::Refused, format!("cannot {what} {}: {e}", file.display()));
    if let Some(dir) = file.parent() {
        make_dirs(dir).map_err(|e| failed("make the directory of", e))?;
    }
    let parcel = Parcel::new(issuing.auth(), b"");
    OsDisk.replace(file, parcel.expose_token_json(), 0o600, None).map_err(|e| failed("write", e))?;
    let outcome = program.run(LIMIT, stop).await.map_err(|e| Failure::of(Code::Refused, &e));
    OsDisk.remove_file(file).map_err(|e| failed("remove", e))?;
    outcome
}

fn make_dirs(dir: &std::path::Path) -> std::io::Result<()> {
    if OsDisk.meta(dir)?.is_some() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_dirs(above)?;
    }
    OsDisk.create_dir(dir, 0o700)
}

const BUILT_IN: &str = "security-file-token-provider";
/// EdgeX waits for ever.
const LIMIT: Duration = Duration::from_secs(120);
