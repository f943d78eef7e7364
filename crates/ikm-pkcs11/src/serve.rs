//! One request, one reply.

use cryptoki::session::Session;
use host::Entropy;
use ikm::{Key, Mode, Refusal, Reply, Request};

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
            tried(&session, key, ikm)
        }
        Request::Release { module, token, key, last_try, pin } => {
            let session = Token::open(&module, &token)?.log_in(false, pin, last_try)?;
            Ok(Reply::Released { ikm: keys::release(&session, &key)? })
        }
    }
}

/// Key material that does not come back would be a store that never opens again.
fn tried(session: &Session, key: Key, ikm: secret::SecretBytes) -> Result<Reply, Refused> {
    let back = keys::release(session, &key)?;
    if secret::crypto::ct_eq(back.expose(), ikm.expose()) {
        Ok(Reply::Provisioned { key, ikm })
    } else {
        Err(Refused::new(Refusal::Drifts, "the key gave other material when asked again"))
    }
}
