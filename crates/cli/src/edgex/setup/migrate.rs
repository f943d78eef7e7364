//! Key shares from one way of keeping to another: in clear to wrapped, back where a person says so, from one hook to
//! another.
//!
//! Shares that lay in clear are good for whoever has an old copy of the disk, so wrapping them is the half of it: then
//! the store replaces them. What is cut short, or finds no store, is gone on with by the next run of this or of the
//! set-up.

use std::time::Duration;

use client::{Bearer, Vault};
use config::SetupFace;
use external::{Custody, Encrypted, RootToken, ShareCounts, Stop, Wish, bring_up, rekey, with_root};
use host::{OsClock, OsDisk, OsEntropy};
use seal::edgex::{ClearShares, PlainSharesAllowed};

use super::{custody_failed, hook};
use crate::edgex::face::{self, Ground, Where};
use crate::failure::{Code, Failure};

/// Wraps the shares under the hook, and has the store replace them if they lay in clear. `former`: a hook under whose
/// key material they are now.
pub(crate) async fn encrypt(ground: &Ground, at: &Where, former: Option<&str>, stop: &Stop) -> Result<(), Failure> {
    let face = ground.read(at, "res", |face| face.setup())?;
    let former = former.map(|program| hook::material(program, "--former-hook", &face, ground, false)).transpose()?;
    let keeping = hook::keeping(&face, ground, true)?;
    let custody = custody(&face, ground, keeping);
    let claim = custody.claim().map_err(custody_failed)?;
    let file = custody.file().display();
    match custody.encrypt_existing(former.as_ref()).map_err(custody_failed)? {
        Encrypted::Now => tracing::warn!(%file, "the key shares are wrapped; they lay in clear until now"),
        Encrypted::Rewrapped => tracing::info!(%file, "the key shares are wrapped under the hook of now"),
        Encrypted::Already => tracing::info!(%file, "the key shares are wrapped already"),
    }
    if !custody.rekey_is_due().map_err(custody_failed)? {
        return Ok(());
    }
    // The store is brought up under a claim of its own.
    drop(claim);
    replaced(&face, &custody, stop).await.map_err(|failure| Failure {
        fact: format!("the key shares are wrapped, and not replaced yet: {}", failure.fact),
        hint: Some(format!(
            "{}; the next run of this command, or of security-secretstore-setup, goes on",
            failure.hint.unwrap_or_else(|| "see the store's own log".into())
        )),
        ..failure
    })
}

/// Puts the shares back in clear.
pub(crate) fn decrypt(ground: &Ground, at: &Where) -> Result<(), Failure> {
    let face = ground.read(at, "res", |face| face.setup())?;
    if face.require_encryption {
        return Err(Failure::new(Code::Refused, "EDGEKEEP_REQUIRE_ENCRYPTION is set: the key shares stay wrapped")
            .hint("unset it, if this device is to do without encryption"));
    }
    if face.hook.is_none() {
        return Err(Failure::usage("there is no EDGEX_IKM_HOOK to open the key shares with").hint("set it"));
    }
    let keeping = hook::keeping(&face, ground, false)?;
    let custody = custody(&face, ground, keeping);
    let _claim = custody.claim().map_err(custody_failed)?;
    let file = custody.file().display();
    if custody.decrypt_existing(PlainSharesAllowed::danger_plain_shares()).map_err(custody_failed)? {
        crate::output::line(&format!(
            "{file} holds the key shares in clear: whoever reads it opens the store. Unset EDGEX_IKM_HOOK."
        ));
    } else {
        crate::output::line(&format!("{file} holds the key shares in clear already."));
    }
    Ok(())
}

/// Has the store replace shares that lay in clear; it is over when they are in their place on the disk.
pub(super) async fn replace<V: Vault>(
    root: &Bearer<'_, V>,
    custody: &Custody<'_>,
    shares: &ClearShares,
) -> Result<(), Failure> {
    rekey(root, custody, shares).await.map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))?;
    tracing::info!(file = %custody.file().display(), "the store has new key shares: those that lay in clear open nothing any more");
    Ok(())
}

async fn replaced(face: &SetupFace, custody: &Custody<'_>, stop: &Stop) -> Result<(), Failure> {
    let vault = face::connect(&face.store)?;
    let wish = Wish {
        counts: ShareCounts { shares: face.shares, threshold: face.threshold },
        limit: LIMIT,
        longest_pause: Duration::from_secs(1),
        reunseal: face.reunseal,
    };
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let opened = bring_up(&vault, custody, wish, &clock, stop)
        .await
        .map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))?;
    let (root, mut shares) = RootToken::for_custody(&vault, custody, opened.shares).await?;
    let root = root.with_login(&vault, custody, &shares).await?;
    with_root(&vault, root, async |root| {
        if face.revoke_root_tokens {
            custody.drop_root_token(&mut shares).map_err(custody_failed)?;
        }
        // For new shares from before, whose place a cut left empty, it is over now.
        if custody.rekey_is_due().map_err(custody_failed)? {
            replace(&root, custody, &shares).await?;
        }
        Ok(())
    })
    .await
}

fn custody<'a>(face: &SetupFace, ground: &Ground, keeping: external::Keeping) -> Custody<'a> {
    Custody::new(&OsDisk, &OsEntropy, &face.shares_dir, &face.shares_file, ground.uid(), keeping)
}

/// Somebody waits at a prompt; a store that is to come is met by the set-up.
const LIMIT: Duration = Duration::from_secs(30);
