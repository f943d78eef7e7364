//! CA and server certificate, under the barrier: made once, and the server's anew when its names change.

use host::Entropy;
use pki::{Ca, Scope, ServerCertificate, ServerNames};
use secret::SecretBytes;
use store::{Batch, Op, Store, StorePath};

/// What the device shows.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The CA.
    pub(super) ca: Ca,
    /// The server's certificate and key.
    pub(super) server: ServerCertificate,
}

/// Compares what is there with the names wanted, and does the difference in one commit.
pub(super) async fn ensure(store: &Store, names: &[String], entropy: &dyn Entropy) -> Result<Certificates, String> {
    let names = ServerNames::parse(names.iter().map(String::as_str)).map_err(|e| e.to_string())?;
    let mut ops = Vec::new();
    let ca = match load(store, "ca").await? {
        Some((der, key)) => Ca::from_parts(der, key).map_err(|e| format!("the stored CA: {e}"))?,
        None => {
            let ca = Ca::create(&Scope::Any, entropy).map_err(|e| e.to_string())?;
            keep(&mut ops, "ca", ca.der(), ca.key().expose_pkcs8());
            ca
        }
    };
    let found = match load(store, "server").await? {
        Some((der, key)) => ServerCertificate::from_parts(der, key).ok().filter(|c| c.fits(&ca, &names).is_ok()),
        None => None,
    };
    let server = match found {
        Some(server) => server,
        None => {
            let server = ca.issue_server(&names, entropy).map_err(|e| e.to_string())?;
            keep(&mut ops, "server", server.der(), server.key().expose_pkcs8());
            server
        }
    };
    if !ops.is_empty() {
        // CA and server together: a cut leaves both or neither, and no client ever sees a CA that was not kept.
        store.commit(Batch { conds: Vec::new(), ops }).await.map_err(|e| e.to_string())?;
    }
    Ok(Certificates { ca, server })
}

async fn load(store: &Store, whose: &str) -> Result<Option<(Vec<u8>, SecretBytes)>, String> {
    let certificate = store.get(&path(whose, "certificate")).await.map_err(|e| e.to_string())?;
    let key = store.get(&path(whose, "key")).await.map_err(|e| e.to_string())?;
    Ok(certificate.zip(key).map(|(c, k)| (c.value.expose().to_vec(), k.value)))
}

fn keep(ops: &mut Vec<Op>, whose: &str, der: &[u8], key: &[u8]) {
    ops.push(Op::Put(path(whose, "certificate"), SecretBytes::new(der.to_vec())));
    ops.push(Op::Put(path(whose, "key"), SecretBytes::new(key.to_vec())));
}

fn path(whose: &str, part: &str) -> StorePath {
    StorePath::new(["boot", whose, part]).expect("three short words are a path")
}
