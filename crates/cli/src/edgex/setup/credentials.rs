//! Passwords of databases and of the message bus: made, copied to who needs them, and written where eKuiper reads them.

use std::path::Path;
use std::time::Duration;

use boot::provision::{Ground as Below, Passwords, keep_credentials_from};
use client::Vault;
use config::{Bus, SetupFace};
use delivery::peers::{KuiperBus, Login, install, kuiper_connection, kuiper_source};
use external::Stop;
use host::{Disk, Entropy, OsDisk, OsEntropy};
use secret::Password;
use zeroize::Zeroizing;

use crate::edgex::child::{self, Found};
use crate::edgex::face::Ground;
use crate::failure::{Code, Failure};

/// Where new passwords come from.
pub(super) enum Source {
    /// From us.
    Own,
    /// From the configured program, asked in advance: as many as could be needed.
    Program(std::sync::Mutex<Vec<Password>>),
}

/// What the configuration names. A program that is not there, or gives nothing, is an error: EdgeX goes on with its own
/// passwords then, against whoever had a reason to name one.
pub(super) async fn passwords(face: &SetupFace, ground: &Ground, stop: &Stop) -> Result<Source, Failure> {
    let Some(program) = &face.passwords else { return Ok(Source::Own) };
    let failed = |e: &dyn std::error::Error| Failure::of(Code::Refused, e).hint("see SecretStore.PasswordProvider");
    let found = child::find(program, ground.environment().value("PATH")).map_err(|e| failed(&e))?;
    let mut made = Vec::new();
    for _ in &face.credentials {
        made.push(ask(&found, stop).await?);
    }
    Ok(Source::Program(std::sync::Mutex::new(made)))
}

async fn ask(program: &Found, stop: &Stop) -> Result<Password, Failure> {
    let failed = |e: &dyn std::error::Error| Failure::of(Code::Refused, e).hint("see SecretStore.PasswordProvider");
    let text = program.output(MAX_PASSWORD_BYTES, LIMIT, stop).await.map_err(|e| failed(&e))?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let text = std::str::from_utf8(text).map_err(|_| failed(&secret::PasswordError))?;
    // What a person would see as two passwords, or as none, is a slip of the program.
    let one_line = text.trim() == text && !text.chars().any(char::is_control) && text.len() >= MIN_PASSWORD_BYTES;
    if !one_line {
        let fact = format!("PasswordProvider gave {} bytes that are no password", text.len());
        return Err(Failure::new(Code::Refused, fact)
            .hint("it must print one line of 8 to 1024 bytes, without control characters or white space at its ends"));
    }
    Password::received(Zeroizing::new(text.to_owned())).map_err(|e| failed(&e))
}

impl Passwords for Source {
    fn make(&self) -> Result<Password, String> {
        match self {
            Self::Own => (&OsEntropy as &dyn Entropy).make(),
            Self::Program(made) => {
                let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                made.pop().ok_or_else(|| "PasswordProvider was asked for fewer".to_owned())
            }
        }
    }
}

/// Sees that every credential is at its source and at all its copies. What is there is never changed.
pub(super) async fn keep<V: Vault>(
    root: &V,
    face: &SetupFace,
    below: &Below,
    passwords: &Source,
) -> Result<(), Failure> {
    let written = keep_credentials_from(root, &face.credentials, &below.kv, passwords)
        .await
        .map_err(|e| Failure::of(Code::Refused, &e))?;
    tracing::info!(written, "credentials are in their places");
    Ok(())
}

/// Writes eKuiper's files, where there are any.
pub(super) async fn kuiper<V: Vault>(
    root: &V,
    face: &SetupFace,
    below: &Below,
    ground: &Ground,
) -> Result<(), Failure> {
    let (bus, source) = match face.bus {
        Bus::None => return Ok(()),
        Bus::Redis => (KuiperBus::Redis, "edgex/security-bootstrapper-redis/redisdb"),
        Bus::Mqtt => (KuiperBus::Mqtt, "edgex/security-bootstrapper-messagebus/message-bus"),
    };
    let there = |path: &Option<std::path::PathBuf>| {
        path.clone().filter(|p| {
            let there = matches!(OsDisk.meta(p), Ok(Some(_)));
            if !there {
                tracing::info!(file = %p.display(), "there is no such file of eKuiper; it is left out");
            }
            there
        })
    };
    let (sources, connections) = (there(&face.kuiper.source), there(&face.kuiper.connections));
    if sources.is_none() && connections.is_none() {
        return Ok(());
    }
    let login = login(root, &format!("{}/{source}", below.kv)).await?;
    if let Some(file) = sources {
        write(&file, kuiper_source(bus, &login).as_bytes(), ground)?;
    }
    if let Some(file) = connections {
        write(&file, kuiper_connection(bus, &login).as_bytes(), ground)?;
    }
    Ok(())
}

async fn login<V: Vault>(root: &V, path: &str) -> Result<Login, Failure> {
    let unfit = |what: &str| Failure::new(Code::Refused, format!("the credential at {path} {what}"));
    let parsed = api::ApiPath::parse(path).map_err(|_| unfit("has no path"))?;
    let reply =
        root.call(api::Request::new(api::Operation::Read, parsed)).await.map_err(|e| Failure::of(Code::Refused, &e))?;
    let text = reply.data_text().ok_or_else(|| unfit("is not there"))?;
    Login::of_json(text).map_err(|_| unfit("is not a user and a password"))
}

fn write(file: &Path, bytes: &[u8], ground: &Ground) -> Result<(), Failure> {
    install(&OsDisk, ground.uid(), file, bytes, None).map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))
}

/// Longer passwords no peer takes.
const MAX_PASSWORD_BYTES: usize = 1025;
const MIN_PASSWORD_BYTES: usize = 8;
const LIMIT: Duration = Duration::from_secs(30);
