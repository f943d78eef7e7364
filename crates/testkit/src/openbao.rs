//! The real OpenBao, behind TLS, with an address, a CA and a storage of its own for each test.
//!
//! The test is its operator: it is made and unsealed by [`OpenBao::make`], and dies and comes back as the test says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::{ApiPath, Body, Operation, Payload, Request};
use client::{Deadlines, HttpsVault, Trust, Vault};
use secret::Token;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::bao_server::BaoServer;
use crate::site_ca::{Pair, SiteCa};

/// A server; killed when it is dropped.
pub struct OpenBao {
    server: BaoServer,
    address: SocketAddr,
    name: String,
    root: Option<String>,
    shares: Vec<String>,
}

impl OpenBao {
    /// A server at an address that no other test has, with a certificate for that address. It is not initialised.
    ///
    /// # Panics
    /// When `bao` is not in the environment that scripts/test.sh makes.
    pub fn start() -> Self {
        let server = BaoServer::new();
        let ip = server.ip();
        Self::on(server, PORT, &ip.to_string())
    }

    /// A server at `address`, whose certificate is for `name` and of a CA of its own.
    ///
    /// # Panics
    /// As [`OpenBao::start`].
    pub fn at(address: SocketAddr, name: &str) -> Self {
        Self::on(BaoServer::at_address(address.ip()), address.port(), name)
    }

    fn on(mut server: BaoServer, port: u16, name: &str) -> Self {
        let address = SocketAddr::new(server.ip(), port);
        // Another CA for each server, whatever the test is.
        let ca = SiteCa::new();
        let Pair { certificate, key } = ca.server(name);
        server.put(CA, ca.pem());
        let (certificate, key) = (server.put("server.pem", &certificate), server.put("server.key", &key));
        let (store, cluster) = (server.store(), SocketAddr::new(server.ip(), port + 1));
        server.start(&format!(
            "storage \"raft\" {{\n path = {store:?}\n node_id = \"one\"\n performance_multiplier = 1\n}}\n\
             cluster_addr = \"https://{cluster}\"\napi_addr = \"https://{address}\"\n\
             listener \"tcp\" {{\n address = \"{address}\"\n tls_cert_file = {certificate:?}\n tls_key_file = {key:?}\n}}\n"
        ));
        server.until_it_listens(port);
        Self { server, address, name: name.to_owned(), root: None, shares: Vec::new() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.server.at(CA)
    }

    /// A client for it.
    pub fn vault(&self) -> HttpsVault {
        let trust = Trust::of_pem(&std::fs::read(self.ca_file()).expect("it was written")).expect("it is a CA");
        let trust = trust.named(&self.name).expect("it is a name");
        HttpsVault::new(&self.address.ip().to_string(), self.address.port(), &trust, Deadlines::default())
            .expect("address and name are sound")
    }

    /// Initialises it with one share, and unseals it.
    pub async fn make(&mut self) {
        let made =
            self.call(Operation::Write, "sys/init", None, json!({ "secret_shares": 1, "secret_threshold": 1 })).await;
        assert_eq!(made.0, 200, "{}", made.1);
        self.root = made.1["root_token"].as_str().map(str::to_owned);
        self.shares = made.1["keys_base64"].as_array().expect("there are shares").iter().map(text).collect();
        self.unseal().await;
    }

    /// Unseals it, as its operator does.
    pub async fn unseal(&self) {
        for share in &self.shares {
            let (status, said) = self.call(Operation::Write, "sys/unseal", None, json!({ "key": share })).await;
            assert_eq!(status, 200, "{said}");
        }
        let began = Instant::now();
        // It answers 500 until it leads.
        while self.health().await != Some(200) {
            assert!(began.elapsed() < PATIENCE, "it does not serve: {}", self.said());
            tokio::task::yield_now().await;
        }
    }

    /// The root token of [`OpenBao::make`].
    pub fn root(&self) -> &str {
        self.root.as_deref().expect("it was made")
    }

    /// One call; status and answer: `data` where there is an envelope.
    pub async fn call(&self, operation: Operation, path: &str, token: Option<&str>, body: Value) -> (u16, Value) {
        let mut request = Request::new(operation, ApiPath::parse(path).expect("a path of the API"));
        if let Some(token) = token {
            request = request.with_token(Token::parse(token).expect("a token"));
        }
        if !body.is_null() {
            request = request.with_body(Body::new(Zeroizing::new(body.to_string().into_bytes())));
        }
        let reply = self.vault().call(request).await.unwrap_or_else(|e| panic!("{path}: {e}: {}", self.said()));
        let value = match &reply.payload {
            Payload::Raw { bytes, .. } => serde_json::from_slice(bytes).unwrap_or_default(),
            Payload::Errors(errors) => json!(errors),
            Payload::Logical(logical) => match &logical.auth {
                Some(auth) => json!({
                    "client_token": auth.client_token.expose(),
                    "accessor": auth.accessor.as_str(),
                    "entity_id": auth.entity_id,
                    "policies": auth.policies,
                }),
                None => reply.data_text().and_then(|t| serde_json::from_slice(t).ok()).unwrap_or_default(),
            },
            Payload::Empty => Value::Null,
        };
        (reply.status.0, value)
    }

    /// One call with the root token, which must be granted.
    pub async fn as_root(&self, operation: Operation, path: &str, body: Value) -> Value {
        let (status, said) = self.call(operation, path, Some(self.root()), body).await;
        assert!((200..300).contains(&status), "{path}: {status} {said}");
        said
    }

    /// Whether a token is alive.
    pub async fn knows(&self, token: &str) -> bool {
        self.call(Operation::Read, "auth/token/lookup-self", Some(token), Value::Null).await.0 == 200
    }

    /// The status of `sys/health`; `None` while nobody answers.
    pub async fn health(&self) -> Option<u16> {
        let request = Request::new(Operation::Read, ApiPath::parse("sys/health").expect("a path of the API"));
        self.vault().call(request).await.ok().map(|reply| reply.status.0)
    }

    /// Until `sys/health` answers with one of these.
    ///
    /// # Panics
    /// After a minute.
    pub async fn until(&self, wanted: &[u16]) {
        let begun = Instant::now();
        while !self.health().await.is_some_and(|status| wanted.contains(&status)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "none of {wanted:?}: {}", self.said());
            tokio::task::yield_now().await;
        }
    }

    /// SIGKILL: its storage stays, as after a power cut.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again after [`OpenBao::kill`], and does not wait: it comes back sealed.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }

    /// Everything that it kept is gone: at its next start it is not initialised.
    pub fn wipe(&mut self) {
        self.server.wipe();
    }

    /// Until its log has this.
    pub fn until_it_says(&self, text: &str) {
        self.server.until_it_says(text);
    }

    /// The file that it writes its log to.
    pub fn log_file(&self) -> PathBuf {
        self.server.log_file()
    }

    /// What it has written to its log.
    pub fn said(&self) -> String {
        self.server.said()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("it is text").to_owned()
}

const CA: &str = "ca.pem";
const PORT: u16 = 8200;
const PATIENCE: Duration = Duration::from_secs(60);
