//! `--longRun`: a service whose token has ended asks for another, as EdgeX's do when the store answers them 403.
//!
//! ```text
//! PUT /api/v3/token/entityId/ID      at a socket, with the token that has ended
//!   who:    the user of the token's file, as the kernel says, and the token is the one in that file; or, at a port behind mutual TLS,
//!           whoever has a certificate of the service
//!   need:   the store knows the token no more
//!   then:   shares -> root -> issuing token -> a token of the service's role -> its file
//! ```
//! EdgeX takes the request from anybody, over the network, and has the store make a root token for each. Here nothing
//! is asked of the hook, or of the store as root, before all of that is shown. Between two requests no authority is
//! held.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use boot::plan::ServicePlan;
use client::{AskError, Calls, Remote};
use config::{Admits, ProviderFace, RegeneratePort, SetupFace};
use external::{Custody, Health, IssuingToken, Patient, Regenerate, RootToken, Stop, health, with_root};
use host::{BootTime, Clock, Disk, OsClock, OsDisk, OsEntropy};
use secret::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use server::{Caller, Doorbell, Identity, Mutual, Ring, RingReply};
use tokio::sync::Mutex;

use super::provider::Provider;
use super::watch::watch;
use super::{custody_failed, hook};
use crate::edgex::face::{self, Ground, Where};
use crate::edgex::token_provider;
use crate::failure::{Code, Failure};

/// Serves until a signal. What was begun is finished first.
pub(super) async fn long_run(ground: &Ground, at: &Where, stop: &Stop) -> Result<(), Failure> {
    let face = ground.read(at, "res", |face| face.setup())?;
    let Provider::BuiltIn(provider) = Provider::find(&face, ground)? else {
        return Err(Failure::usage("SecretStore.TokenProvider is not security-file-token-provider")
            .hint("--longRun makes tokens by itself: name it, or leave --longRun out"));
    };
    let vault = face::connect(&face.store)?;
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let window =
        Window { face: &face, provider: &provider, ground, vault: &vault, clock: &clock, last: RefCell::default() };
    let socket = Doorbell::at_socket(&OsDisk, &face.regenerate.socket)
        .map_err(|e| Failure::of(Code::Refused, &e).hint("see EDGEKEEP_REGENERATE_SOCKET"))?;
    tracing::info!(socket = %face.regenerate.socket.display(), "services may ask for another token here");
    // One at a time: the store has one attempt at a root token.
    let turn = Mutex::new(());
    let answer = async |ring| {
        let _turn = turn.lock().await;
        window.answer(&ring).await
    };
    let serving = socket.serve(answer, stop.said());
    let watching = watch(&face, ground, &vault, &clock, stop);
    let Some(port) = &face.regenerate.port else {
        tokio::join!(serving, watching);
        return Ok(());
    };
    let door = open(port).await?;
    tokio::join!(serving, watching, door.serve(answer, stop.said()));
    Ok(())
}

async fn open(at: &RegeneratePort) -> Result<Doorbell, Failure> {
    let RegeneratePort { host, port, admits } = at;
    let opened = match admits {
        Admits::Certified { client_ca, certificate, key } => {
            let mutual = mutual(client_ca, certificate, key)?;
            tracing::info!(host, port, "services with a certificate may ask for another token here");
            Doorbell::at_address(host, *port, mutual).await
        }
        Admits::DangerAnybody => {
            tracing::warn!(
                host,
                port,
                "whoever reaches this port may have tokens that have ended made anew (EDGEKEEP_DANGER_OPEN_REGENERATE)"
            );
            Doorbell::danger_at_address(host, *port).await
        }
    };
    opened.map_err(|e| Failure::new(Code::Refused, format!("cannot listen at {host}:{port}: {e}")))
}

fn mutual(client_ca: &Path, certificate: &Path, key: &Path) -> Result<Mutual, Failure> {
    let read = |path: &Path| {
        OsDisk
            .read(path, MAX_PEM_BYTES)
            .map_err(|e| Failure::new(Code::Refused, format!("cannot read {}: {e}", path.display())))
    };
    let open_to_others = OsDisk.meta(key).ok().flatten().is_some_and(|meta| meta.mode & 0o077 != 0);
    if open_to_others {
        return Err(Failure::new(Code::Refused, format!("others may read the private key {}", key.display()))
            .hint("close it: chmod 0600"));
    }
    let identity = Identity::from_pem(&read(certificate)?, &read(key)?)
        .map_err(|e| Failure::of(Code::Refused, &e).hint("see EDGEKEEP_REGENERATE_CERT and EDGEKEEP_REGENERATE_KEY"))?;
    Mutual::new(identity, &read(client_ca)?)
        .map_err(|e| Failure::of(Code::Refused, &e).hint("see EDGEKEEP_REGENERATE_CLIENT_CA"))
}

struct Window<'w> {
    face: &'w SetupFace,
    provider: &'w ProviderFace,
    ground: &'w Ground,
    vault: &'w Patient<Remote>,
    clock: &'w OsClock,
    /// When each service was last served.
    last: RefCell<BTreeMap<String, BootTime>>,
}

/// Why not: a status, and a word for the caller. The log has the rest.
struct Refusal(u16, &'static str);

impl Window<'_> {
    async fn answer(&self, ring: &Ring) -> RingReply {
        let outcome = self.serve(ring).await;
        let (status, message) = match &outcome {
            Ok(_) => (200, ""),
            Err(Refusal(status, message)) => (*status, *message),
        };
        match &outcome {
            Ok(service) => tracing::info!(service, caller = %ring.caller, "another token was delivered"),
            Err(_) => {
                tracing::warn!(caller = %ring.caller, path = %printable(&ring.path), status, message, "no token was made")
            }
        }
        let json = match message {
            "" => json!({ "apiVersion": "v3", "statusCode": status }),
            message => json!({ "apiVersion": "v3", "statusCode": status, "message": message }),
        };
        RingReply { status, json: json.to_string() }
    }

    async fn serve(&self, ring: &Ring) -> Result<String, Refusal> {
        let id = ring.path.strip_prefix(PATH).ok_or(Refusal(404, "there is nothing here"))?;
        if ring.method != "PUT" {
            return Err(Refusal(405, "only PUT"));
        }
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Refusal(400, "no id of an entity"));
        }
        let (service, former) = self.caller(ring, id).ok_or(Refusal(403, "permission denied"))?;
        match health(self.vault).await {
            Ok(Health::Serving) => {}
            _ => return Err(Refusal(503, "the secret store does not serve")),
        }
        match Calls::with(self.vault, &former).read::<Value>("auth/token/lookup-self").await {
            Err(AskError::Refused { status: 403, .. }) => {}
            Ok(_) => return Err(Refusal(400, "the token lives")),
            Err(_) => return Err(Refusal(503, "the secret store does not serve")),
        }
        let name = service.name.to_string();
        let now = self.clock.boottime();
        let pressed = self.last.borrow().get(&name).is_some_and(|at| now.since(*at) < PAUSE);
        if pressed {
            return Err(Refusal(429, "too soon after the last"));
        }
        self.last.borrow_mut().insert(name.clone(), now);
        self.make(service, id).await.map_err(|failure| {
            tracing::error!(service = name, error = failure.fact, hint = failure.hint, "no token was made");
            Refusal(500, "no token was made")
        })?;
        Ok(name)
    }

    /// The service whose file names the entity; at a socket only its own user, who shows the token that lies there.
    fn caller(&self, ring: &Ring, id: &str) -> Option<(&ServicePlan, Token)> {
        self.provider.services.iter().find_map(|service| {
            let file = self.provider.output_dir.join(service.name.as_str()).join(&self.provider.output_file);
            let meta = OsDisk.meta(&file).ok().flatten()?;
            let text = OsDisk.read(&file, MAX_TOKEN_FILE_BYTES).ok()?;
            let token = delivery::token_in(&text)?;
            if entity_in(&text)? != id {
                return None;
            }
            is_of(ring, service.name.as_str(), meta.owner.uid, &token).then_some((service, token))
        })
    }

    async fn make(&self, service: &ServicePlan, id: &str) -> Result<(), Failure> {
        let keeping = hook::keeping(self.face, self.ground, false)?;
        let (dir, file) = (&self.face.shares_dir, &self.face.shares_file);
        let custody = Custody::new(&OsDisk, &OsEntropy, dir, file, self.ground.uid(), keeping);
        let _claim = custody.claim().map_err(custody_failed)?;
        let held = custody.load().map_err(custody_failed)?;
        let (root, _) = RootToken::for_custody(self.vault, &custody, held.shares).await?;
        let refused = |e: AskError| Failure::of(Code::Refused, &e);
        with_root(self.vault, root, async |root| {
            let issuing = IssuingToken::create(&root).await.map_err(refused)?;
            let made = self.make_with(&issuing, service, id).await;
            let ended = issuing.revoke(self.vault).await.map_err(refused);
            made.and(ended)
        })
        .await
    }

    async fn make_with(&self, issuing: &IssuingToken, service: &ServicePlan, id: &str) -> Result<(), Failure> {
        let store = issuing.over(self.vault);
        let whose = Regenerate::find(&store, id).await.map_err(|e| Failure::of(Code::Refused, &e))?;
        // The file is the service's own, and may name whom it likes: the store knows.
        if whose.name != service.name.as_str() {
            return Err(Failure::new(Code::Refused, format!("the entity is that of {:?}", whose.name)));
        }
        token_provider::again(&store, self.provider, self.ground, id).await
    }
}

/// Whether it rings who may have the service's token: who owns its file, and shows what lies in it; or who has a
/// certificate of that name. At the open port, where that was asked for, nobody can be told.
fn is_of(ring: &Ring, service: &str, owner: u32, token: &Token) -> bool {
    let shown = |t: &Token| secret::crypto::ct_eq(t.expose().as_bytes(), token.expose().as_bytes());
    let known = match &ring.caller {
        Caller::User(uid) => (*uid == owner || *uid == 0) && ring.token.as_ref().is_some_and(shown),
        Caller::Certified(certified) => certified.is_named(service),
        Caller::Nobody => true,
    };
    known || !host::in_force("regenerate-authenticated")
}

fn entity_in(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct File {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        entity_id: String,
    }
    serde_json::from_slice::<File>(text).ok().map(|f| f.auth.entity_id)
}

/// A stranger's text, for the log.
fn printable(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

const PATH: &str = "/api/v3/token/entityId/";
const MAX_PEM_BYTES: usize = 1024 * 1024;
const MAX_TOKEN_FILE_BYTES: usize = 64 * 1024;
/// Each has the store make a root token.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's set-up makes a token for whoever reaches its port.
    #[test]
    fn b10_another_user_or_another_token_is_nobody() {
        let token = Token::parse("s.mine").unwrap();
        let ring = |uid, shown: Option<&str>| Ring {
            caller: Caller::User(uid),
            method: "PUT".into(),
            path: PATH.into(),
            token: shown.map(|t| Token::parse(t).unwrap()),
        };
        assert!(is_of(&ring(2002, Some("s.mine")), "mine", 2002, &token));
        assert!(is_of(&ring(0, Some("s.mine")), "mine", 2002, &token), "root may read the file");
        for stranger in [ring(2003, Some("s.mine")), ring(2002, Some("s.other")), ring(2002, None), ring(0, None)] {
            assert!(!is_of(&stranger, "mine", 2002, &token), "{stranger:?}");
        }
    }
}
