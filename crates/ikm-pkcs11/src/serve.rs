//! One request, one reply.

use cryptoki::session::Session;
use host::Entropy;
use ikm::{Errand, Key, Mode, Refusal, Reply, Request};

use crate::keys;
use crate::token::{Refused, Token};

/// Does what is asked.
pub(crate) fn serve(request: Request, entropy: &dyn Entropy) -> Reply {
    answer(request, entropy).unwrap_or_else(|r| Reply::refused(r.refusal, &r.detail))
}

fn answer(request: Request, entropy: &dyn Entropy) -> Result<Reply, Refused> {
    match request {
        Request::Probe { module, token } => Ok(Reply::Probed(Token::open(&module, &token)?.facts()?)),
        Request::Provision { module, token, wish, last_try, pin } => {
            let token = Token::open(&module, &token)?;
            let modes: Vec<Mode> = token.modes()?.into_iter().filter(|m| wish.takes(*m)).collect();
            let session = token.log_in(true, pin, last_try)?;
            let (key, ikm) = keys::provision(&session, &modes, entropy)?;
            tried(&session, &key, &ikm).map_err(|refused| taken_back(&session, &key, refused))?;
            Ok(Reply::Provisioned { key, ikm })
        }
        Request::With { errand, module, token, key, last_try, pin } => {
            let session = Token::open(&module, &token)?.log_in(errand == Errand::Destroy, pin, last_try)?;
            match errand {
                Errand::Release => Ok(Reply::Released { ikm: keys::release(&session, &key)? }),
                Errand::Look => Ok(Reply::Looked { there: !keys::of_id(&session, &key.id)?.is_empty() }),
                Errand::Destroy => keys::destroy(&session, &key.id).map(|()| Reply::Destroyed),
            }
        }
    }
}

/// Key material that does not come back would be a store that never opens again.
fn tried(session: &Session, key: &Key, ikm: &secret::SecretBytes) -> Result<(), Refused> {
    let back = keys::release(session, key)?;
    match secret::crypto::ct_eq(back.expose(), ikm.expose()) {
        true => Ok(()),
        false => Err(Refused::new(Refusal::Drifts, "the key gave other material when asked again")),
    }
}

/// A key that serves for nothing goes again, unless it is its owner's: nobody else hears of it.
fn taken_back(session: &Session, key: &Key, why: Refused) -> Refused {
    if !Key::is_ours(&key.id) {
        return why;
    }
    match keys::destroy(session, &key.id) {
        Ok(()) => why,
        Err(e) => {
            let detail = format!("the key that was made stays in the token ({}); {}", e.detail, why.detail);
            Refused { detail, ..why }
        }
    }
}
