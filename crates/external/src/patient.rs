//! A cluster that elects another leader: a standby sends callers to one that is gone (307), or knows of none, until
//! there is one. It has not done what it was asked, so that it can be asked again.

use std::time::Duration;

use api::{Payload, Reply, Request};
use client::{CallError, Vault, Wired};
use secret::Token;
use zeroize::Zeroizing;

/// Asks again for as long as nobody leads, within bounds.
#[derive(Debug)]
pub struct Patient<V>(pub V);

impl<V: Vault> Vault for Patient<V> {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..AGAIN {
            let reply = self.0.call(again(&request)).await?;
            if !is_leaderless(&reply) {
                return Ok(reply);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.0.call(request).await
    }
}

impl<V: Wired> Wired for Patient<V> {
    async fn hung_up(&self) {
        self.0.hung_up().await;
    }
}

/// Vault's and OpenBao's words for it.
fn is_leaderless(reply: &Reply) -> bool {
    let told =
        |words: &str| matches!(&reply.payload, Payload::Errors(errors) if errors.iter().any(|e| e.contains(words)));
    reply.status.0 == 307 || (reply.status.0 == 500 && told("local node not active"))
}

fn again(request: &Request) -> Request {
    let mut copy = Request::new(request.operation, request.path.clone())
        .with_body(api::Body::new(Zeroizing::new(request.body.expose().to_vec())));
    copy.query.clone_from(&request.query);
    copy.token = request.token.as_ref().map(|t| Token::parse(t.expose()).expect("a token's text is a token"));
    copy
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Some 30 s: an election takes less than 15.
const AGAIN: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use api::{ApiPath, Operation, Status};
    use std::sync::Mutex;

    /// Answers these, the last one for ever, and writes down what it was asked.
    struct Electing(Mutex<Vec<Reply>>, Mutex<Vec<String>>);

    impl Vault for Electing {
        async fn call(&self, request: Request) -> Result<Reply, CallError> {
            let token = request.token.map(|t| t.expose().to_owned()).unwrap_or_default();
            let body = String::from_utf8(request.body.expose().to_vec()).unwrap();
            self.1.lock().unwrap().push(format!("{:?} {} {token} {body}", request.operation, request.path));
            Ok(self.0.lock().unwrap().pop().unwrap())
        }
    }

    #[tokio::test]
    async fn what_no_leader_has_done_is_asked_again_as_it_was() {
        let replies = vec![
            Reply::no_content(),
            Reply::error(Status(500), "local node not active but active cluster node not found"),
            Reply::error(Status(307), ""),
        ];
        let store = Patient(Electing(Mutex::new(replies), Mutex::default()));
        let request = Request::new(Operation::Write, ApiPath::parse("a/b").unwrap())
            .with_token(Token::parse("s.x").unwrap())
            .with_body(api::Body::new(Zeroizing::new(b"{}".to_vec())));
        assert!(store.call(request).await.unwrap().status.is_success());
        assert_eq!(*store.0.1.lock().unwrap(), ["Write a/b s.x {}"; 3]);
    }

    #[tokio::test]
    async fn any_other_answer_counts_at_once() {
        for status in [200, 400, 403, 500, 503] {
            let store = Patient(Electing(Mutex::new(vec![Reply::error(Status(status), "no")]), Mutex::default()));
            let reply = store.call(Request::new(Operation::Read, ApiPath::parse("a").unwrap())).await.unwrap();
            assert_eq!(reply.status, Status(status));
        }
    }
}
