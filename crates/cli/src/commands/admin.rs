//! `edgekeep seal`, without more, and `edgekeep recover`: over the admin socket, whose other end the kernel vouches
//! for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boot::driver::SlotChange;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::{Code, Failure};

/// Example: edgekeep recover --key-file - --reseal
#[derive(Args)]
pub(crate) struct Recover {
    /// The file with the recovery key; - reads standard input.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Make key slots for the hardware that is here now: another board, a TPM that was cleared, a disk that was moved,
    /// another system.
    #[arg(long)]
    reseal: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
pub(super) struct Place {
    /// The directory of the running edgekeep's sockets.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The admin socket, where it is not admin/admin.sock in the run directory.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

impl Place {
    /// The usual one of a run directory.
    pub(super) fn of(run_dir: PathBuf) -> Self {
        Self { run_dir: Some(run_dir), admin_socket: None }
    }

    pub(super) fn socket(&self) -> PathBuf {
        let usual = || crate::locate::run_dir(self.run_dir.as_deref()).join("admin/admin.sock");
        self.admin_socket.clone().unwrap_or_else(usual)
    }
}

/// Has the running edgekeep drop its keys.
pub(super) async fn seal(place: &Place) -> Result<(), Failure> {
    post(&place.socket(), "/admin/seal", None).await?;
    // What is another's store is not sealed by us.
    match status(place).await {
        Ok(told) if told["state"] == "shut" => {
            crate::output::line(&format!("the gates are shut: {}", told["reason"].as_str().unwrap_or_default()));
        }
        _ => crate::output::line("sealed: the keys are gone from memory"),
    }
    Ok(())
}

pub(super) async fn recover(recover: Recover) -> Result<(), Failure> {
    let key = read_key(&recover.key_file)?;
    let body = with_key(&key, "");
    let asked = with_key(&key, &format!(",\"reseal\":{}", recover.reseal));
    let socket = recover.place.socket();
    let reply = exchange(&socket, "POST", "/admin/recover", Some(&asked)).await?;
    crate::output::line("recovered: the store is open");
    let resealed = settle(&socket, &body, &reply, crate::output::line).await;
    match resealed {
        Some(change) => {
            crate::output::line(&super::slots::changed(&change));
            if change.told.is_empty() { Ok(()) } else { Err(not_resealed(&change)) }
        }
        None => Ok(()),
    }
}

/// Tells what became of a used recovery key, and shows the new one where it is ours to show. What was wanted is done:
/// that the key could not be replaced is no failure, and must be known. Returns what else the reply says of slots.
pub(super) async fn settle(socket: &Path, body: &str, reply: &str, say: fn(&str)) -> Option<SlotChange> {
    let stays = |why: &str| crate::output::error(&format!("warning: the used recovery key stays valid: {why}"));
    let Ok(Recovered { replaced, offered, kept, resealed }) = serde_json::from_str(reply) else {
        stays("edgekeep gives an answer of another version");
        return None;
    };
    if let Some(place) = replaced {
        say(&format!("the used recovery key opens nothing any more; the new one is in {place}"));
    }
    if let Some(key) = offered {
        match crate::output::show_recovery_key(&key.0) {
            // Shown first: were it the other way round, a cut between them would leave a key that nobody has.
            Ok(()) => match post(socket, "/admin/recover/confirm", Some(body)).await {
                Ok(()) => say("the used recovery key opens nothing any more; the new one was shown"),
                // Refused, or not heard of: who has both has the one that counts.
                Err(e) => crate::output::error(&format!(
                    "warning: keep both recovery keys, the new one is not confirmed: {}",
                    e.fact
                )),
            },
            Err(e) => stays(&format!("the new one cannot be shown: {e}; run `edgekeep operator rekey` on a terminal")),
        }
    }
    if let Some(why) = kept {
        stays(&why);
    }
    resealed
}

fn not_resealed(change: &SlotChange) -> Failure {
    let count = change.told.len();
    Failure::new(Code::Refused, format!("the store is open, and {count} of its sources have no slot that opens"))
        .hint("put right what is said above, then: edgekeep seal slots reseal, or add")
}

/// What became of the recovery key, and of the slots, as the admin socket says.
#[derive(Deserialize)]
struct Recovered {
    replaced: Option<String>,
    offered: Option<NewKey>,
    kept: Option<String>,
    resealed: Option<SlotChange>,
}

/// Wiped when it was shown.
#[derive(Deserialize)]
#[serde(transparent)]
struct NewKey(String);

impl Drop for NewKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// One question about slots, and its answer.
pub(super) async fn ask(place: &Place, method: &str, route: &str, body: Option<&Value>) -> Result<String, Failure> {
    let body = body.map(ToString::to_string);
    exchange(&place.socket(), method, route, body.as_deref()).await.map(|reply| reply.to_string())
}

/// What `doctor` asks a running edgekeep.
pub(super) async fn status(place: &Place) -> Result<Value, Failure> {
    let text = exchange(&place.socket(), "GET", "/admin/status", None).await?;
    serde_json::from_str(&text).map_err(|e| Failure::fault(format!("the admin socket answers what is no JSON: {e}")))
}

/// A body with a recovery key, and `more` behind it.
pub(super) fn with_key(key: &str, more: &str) -> Zeroizing<String> {
    let quoted = Zeroizing::new(serde_json::to_string(key.trim()).expect("text is JSON"));
    Zeroizing::new(format!("{{\"key\":{}{more}}}", *quoted))
}

pub(super) fn read_key(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read the recovery key from {}: {why}", path.display()))
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES));
    let limit = MAX_KEY_BYTES as u64;
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|e| cannot(&e))?;
    if SEALED_HEADS.iter().any(|head| bytes.starts_with(head)) {
        return Err(cannot(&"it is sealed to the owner's age key").hint(
            "age -d -i KEY recovery.age opens it, where the owner's KEY is; here: ... | edgekeep recover --key-file -",
        ));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| cannot(&"it is no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// How a file of the `age` tool begins, and its form in letters.
const SEALED_HEADS: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];

async fn post(socket: &Path, route: &str, body: Option<&str>) -> Result<(), Failure> {
    exchange(socket, "POST", route, body).await.map(drop)
}

/// One request on one connection. The whole client for a socket that root alone can reach; what it reads is bounded.
pub(super) async fn exchange(
    socket: &Path,
    method: &str,
    route: &str,
    body: Option<&str>,
) -> Result<Zeroizing<String>, Failure> {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        let uid = stream.peer_cred()?.uid();
        if uid != 0 && uid != crate::process::uid() {
            // A recovery key must not be said to a stranger.
            return Err(std::io::Error::other(format!("it is held by user {uid}, who is not edgekeep")));
        }
        let body = body.unwrap_or_default();
        let head = format!(
            "{method} {route} HTTP/1.1\r\nHost: edgekeep\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nX-Vault-Request: true\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut reply = Zeroizing::new(Vec::with_capacity(MAX_REPLY_BYTES));
        stream.take(MAX_REPLY_BYTES as u64).read_to_end(&mut reply).await?;
        Ok(reply)
    };
    let reply = match tokio::time::timeout(DEADLINE, talk).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(e)) => {
            return Err(Failure::new(Code::NotReady, format!("cannot talk to edgekeep at {}: {e}", socket.display()))
                .hint("run this as root or as edgekeep's user, while edgekeep runs; --run-dir names its directory"));
        }
        Err(_) => {
            return Err(Failure::new(Code::NotReady, format!("{} does not answer within 5 min", socket.display()))
                .hint("edgekeep's log says what it is doing"));
        }
    };
    let (status, text) = split(&reply).ok_or_else(|| {
        Failure::fault(format!("{} answers what is no HTTP", socket.display())).hint("are both of the same version?")
    })?;
    if (200..300).contains(&status) {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let told = serde_json::from_str::<Value>(text).ok().and_then(|v| Some(v["errors"][0].as_str()?.to_owned()));
    let code = if status >= 500 { Code::NotReady } else { Code::Refused };
    Err(Failure::new(code, told.unwrap_or_else(|| format!("edgekeep answers {status}"))))
}

/// Status and body of an HTTP/1.1 reply whose end is the end of the connection.
fn split(reply: &[u8]) -> Option<(u16, &str)> {
    let text = std::str::from_utf8(reply).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body))
}

const MAX_KEY_BYTES: usize = 4096;
const MAX_REPLY_BYTES: usize = 256 * 1024;
/// A smart card takes half a minute for an RSA key, a slow TPM seconds for each of several slots.
const DEADLINE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_recovery_key_is_told_from_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let said = |bytes: &[u8]| {
            let file = dir.path().join(format!("key-{}", bytes.len()));
            host::Disk::write_new(&host::OsDisk, &file, bytes, 0o600, None).unwrap();
            read_key(&file).map(|text| text.to_string()).map_err(|f| (f.fact, f.hint))
        };
        assert_eq!(said(b"ekrk1 key").unwrap(), "ekrk1 key");
        for sealed in [&b"age-encryption.org/v1\n-> X25519 \xff\xfe"[..], b"-----BEGIN AGE ENCRYPTED FILE-----\n"] {
            let (fact, hint) = said(sealed).unwrap_err();
            assert!(fact.contains("sealed to the owner's age key") && hint.unwrap().contains("age -d -i"), "{fact}");
        }
        assert!(said(b"\xff\xff").unwrap_err().0.contains("it is no text"));
    }

    #[test]
    fn reads_a_reply_and_nothing_else() {
        assert_eq!(split(b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"), Some((204, "")));
        assert_eq!(split(b"HTTP/1.1 400 Bad\r\n\r\n{}"), Some((400, "{}")));
        for bad in [&b""[..], b"HTTP/1.1 204", b"HTTP/1.1 2\r\n\r\n", b"\xff\xff\r\n\r\n", b"SSH-2.0\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
    }
}
