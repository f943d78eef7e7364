//! `security-file-token-provider`: a token for each service, in its file; or one for one service again.
//!
//! A token is made before its file is touched, and the file is replaced whole: whatever fails, the service keeps what
//! it had. Each failure is the exit code's (EdgeX's own `createToken` says 0 to everything, and empties the file
//! first).

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use boot::plan::ServicePlan;
use clap::{Parser, Subcommand};
use client::{Bearer, Vault};
use config::ProviderFace;
use delivery::{Backing, Medium, OsMedium, Parcel, Recipient, TokenDir};
use external::{Regenerate, ServiceGround, ServiceWish, Stop};
use host::{Disk, OsDisk, OsEntropy, Owner};
use secret::Token;

use super::face::{self, Ground, Where};
use crate::failure::{Code, Failure};

/// Makes a token for each service of token-config.json.
#[derive(Parser)]
#[command(name = "security-file-token-provider", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    at: Where,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Makes another token for one service.
    #[command(name = "createToken")]
    CreateToken {
        /// The id of the service's entity.
        #[arg(long = "entityId", value_name = "ID")]
        entity_id: String,
    },
}

pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match face::parse::<Arguments>(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    crate::process::log("info");
    face::exit(|stop| provide(arguments, stop))
}

async fn provide(arguments: Arguments, stop: Stop) -> Result<(), Failure> {
    let ground = Ground::of_process()?;
    let face = configuration(&ground, &arguments)?;
    let vault = face::connect(&face.store)?;
    let token = privileged_token(&face)?;
    let store = Bearer::new(&vault, &token);
    match arguments.command {
        None => stop.or(for_all(&store, &face, &ground)).await.map(|count| {
            tracing::info!(services = count, "every service has its token");
        }),
        Some(Command::CreateToken { entity_id }) => stop.or(again(&store, &face, &ground, &entity_id)).await,
    }
}

/// The configuration that the arguments name.
pub(super) fn configuration(ground: &Ground, arguments: &Arguments) -> Result<ProviderFace, Failure> {
    ground.read(&arguments.at, "res-file-token-provider", |face| face.provider())
}

/// A new token for every service, each in its file. Those of before stay alive.
pub(super) async fn for_all<V: Vault>(
    store: &Bearer<'_, V>,
    face: &ProviderFace,
    ground: &Ground,
) -> Result<usize, Failure> {
    let tokens = token_dir(face, ground)?;
    let below = ServiceGround::find(store, &face.userpass).await.map_err(|e| refused(&e))?;
    for service in &face.services {
        let wish = wish(service);
        let auth = external::issue(store, &wish, &below, &OsEntropy).await.map_err(|e| refused(&e))?;
        deliver(&tokens, service, &auth)?;
    }
    Ok(face.services.len())
}

/// Another token for the service of an entity, in its file.
pub(super) async fn again<V: Vault>(
    store: &Bearer<'_, V>,
    face: &ProviderFace,
    ground: &Ground,
    entity_id: &str,
) -> Result<(), Failure> {
    let whose = Regenerate::find(store, entity_id).await.map_err(|e| refused(&e))?;
    let service = face.services.iter().find(|s| s.name.as_str() == whose.name).ok_or_else(|| {
        Failure::new(Code::Refused, format!("the entity is that of {:?}, which is no service here", whose.name))
            .hint("add it to token-config.json, or to EDGEX_ADD_SECRETSTORE_TOKENS")
    })?;
    let tokens = token_dir(face, ground)?;
    let auth = external::regenerate(store, &whose, service.token.period).await.map_err(|e| refused(&e))?;
    deliver(&tokens, service, &auth)
}

fn deliver(tokens: &TokenDir, service: &ServicePlan, auth: &api::Auth) -> Result<(), Failure> {
    let failed = |e: &delivery::DeliverError| Failure::of(Code::Refused, e).hint(e.hint());
    let to = Recipient::new(service.name.as_str(), service.owner, service.mode.bits())
        .map_err(|e| Failure::of(Code::Refused, &e))?;
    if service.mode.is_readable_by_all() {
        tracing::warn!(service = %service.name, "every user of this device may read its token (mode_octal)");
    }
    let file = tokens.put(&to, &Parcel::new(auth, b"")).map_err(|e| failed(&e))?;
    tracing::debug!(service = %service.name, file = %file.display(), "delivered");
    Ok(())
}

fn token_dir(face: &ProviderFace, ground: &Ground) -> Result<TokenDir, Failure> {
    let former = face.edgex_user.or(Some(EDGEX_USER));
    let tokens = TokenDir::new(Arc::new(OsDisk), &face.output_dir, &face.output_file, ground.uid(), former);
    tokens.prepare().map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))?;
    if !matches!(OsMedium.backing(&face.output_dir), Ok(Backing::Memory)) {
        tracing::warn!(directory = %face.output_dir.display(), "tokens lie on a disk, where they outlive the power");
    }
    Ok(tokens)
}

fn wish(service: &ServicePlan) -> ServiceWish {
    ServiceWish {
        name: service.name.to_string(),
        policy_name: service.policy_name(),
        policy_text: service.policy_text(),
        period: service.token.period,
        jwt_ttl: service.jwt.ttl,
        audience: service.jwt.audience.clone(),
    }
}

/// `auth.client_token` of the file that the set-up left.
fn privileged_token(face: &ProviderFace) -> Result<Token, Failure> {
    let path = face.privileged_token.display();
    let unfit =
        |what: String| Failure::new(Code::Refused, what).hint("the set-up writes it, for as long as the provider runs");
    let text = OsDisk
        .read(&face.privileged_token, MAX_TOKEN_FILE_BYTES)
        .map_err(|e| unfit(format!("the token in {path} cannot be read: {e}")))?;
    delivery::token_in(&text).ok_or_else(|| unfit(format!("{path} holds no token")))
}

fn refused(error: &client::AskError) -> Failure {
    Failure::of(Code::Refused, error).hint("services that have no new token keep the one they had")
}

const MAX_TOKEN_FILE_BYTES: usize = 64 * 1024;
/// To whom EdgeX's images give all token files.
const EDGEX_USER: Owner = Owner { uid: 2002, gid: 2001 };
