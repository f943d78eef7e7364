//! The pipeline behind the listeners: the only handler of the product.

use std::sync::Arc;

use api::Request;
use pipeline::{After, Core};
use tokio::sync::Notify;

use crate::reply::Answer;
use crate::service::Handler;

/// An unsealed core as the listeners see it.
#[derive(Debug)]
pub struct Unsealed {
    core: Arc<Core>,
    seal: Notify,
}

impl Unsealed {
    /// Puts `core` behind the listeners.
    pub fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, seal: Notify::new() })
    }

    /// Ends when a request that was allowed to has asked for the seal: the core refuses everything by then, and whoever
    /// waits here calls [`Server::seal`](crate::Server::seal) and drops the keys.
    pub async fn asked_to_seal(&self) {
        self.seal.notified().await;
    }
}

impl Handler for Unsealed {
    async fn handle(self: Arc<Self>, request: Request) -> Answer {
        let recorded = self.core.handle(request).await;
        if recorded.after() == Some(After::Seal) {
            self.seal.notify_one();
        }
        Answer { request_id: recorded.request_id().to_text(), reply: recorded.into_reply() }
    }

    fn asks_for_certificates(&self) -> bool {
        self.core.asks_for_certificates()
    }
}
