//! A store of somebody else's, as much of it as this crate asks for; every request is written down. It follows OpenBao
//! 2.7 where that and Vault differ, and can be told to keep the doors of old open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use api::{Operation, Reply, Request, Status};
use base64::Engine as _;
use client::{CallError, Vault};
use serde_json::{Value, json};

/// New shares that are not in force yet.
#[derive(Default)]
struct Rotation {
    given: BTreeSet<String>,
    new: Vec<String>,
    shown: BTreeSet<String>,
}

/// The store.
#[derive(Default)]
pub(crate) struct FakeStore(Mutex<State>);

/// What a test may set and look at.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) shares: Vec<String>,
    pub(crate) threshold: usize,
    pub(crate) sealed: bool,
    pub(crate) standby: bool,
    /// Unauthenticated generate-root, as before OpenBao 2.5.3.
    pub(crate) open_door: bool,
    /// No generate-root-token, as in Vault.
    pub(crate) no_login_door: bool,
    /// It died in the middle of its own making: for so many more looks at its health.
    pub(crate) half_made: u32,
    /// Init is refused with these words.
    pub(crate) refuse_init: Option<&'static str>,
    /// The reply of init is lost on the wire.
    pub(crate) lose_init: bool,
    /// All requests to a path that begins so are refused with this status.
    pub(crate) refuse: Option<(&'static str, u16)>,
    pub(crate) asked: Vec<String>,
    /// Accessor to policies.
    pub(crate) alive: BTreeMap<String, Vec<String>>,
    pub(crate) objects: BTreeMap<String, Value>,
    /// No way to new shares, as in OpenBao 2.5.3 without the switch.
    pub(crate) no_rotation: bool,
    /// New shares would be in force at once.
    pub(crate) unverified: bool,
    /// The reply to the last new share is lost on the wire.
    pub(crate) lose_verify: bool,
    /// Called when new shares come into force, after it.
    pub(crate) at_rekey: Option<Box<dyn FnMut() + Send>>,
    rotation: Option<Rotation>,
    given: BTreeSet<String>,
    attempt: Option<BTreeSet<String>>,
    next: u32,
    /// Called at each unseal, before it.
    pub(crate) at_unseal: Option<Box<dyn FnMut() + Send>>,
}

/// These shares, in hexadecimal, as a file has them.
pub(crate) fn clear_shares(shares: &[&str]) -> seal::edgex::ClearShares {
    let base64: Vec<String> = shares.iter().map(|s| to_base64(s)).collect();
    let text = json!({ "keys": shares, "keys_base64": base64 }).to_string();
    match seal::edgex::Shares::parse(text.as_bytes()).unwrap() {
        seal::edgex::Shares::Clear(shares) => shares,
        seal::edgex::Shares::Wrapped(_) => unreachable!("they are in clear"),
    }
}

pub(crate) const OTP: &str = "abcdefghijklmnopqrstuvwxyz";

impl FakeStore {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A store that is initialised with these shares, in hexadecimal, two of which open it.
    pub(crate) fn made(shares: &[&str], sealed: bool) -> Self {
        let fake = Self::default();
        fake.state().shares = shares.iter().map(|s| (*s).to_owned()).collect();
        fake.state().threshold = 2;
        fake.state().sealed = sealed;
        fake.state().open_door = true;
        fake
    }

    pub(crate) fn was_asked(&self, path: &str) -> bool {
        self.state().asked.iter().any(|a| a.ends_with(path))
    }
}

impl Vault for FakeStore {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let hook = (request.path.as_str() == "sys/unseal").then(|| self.state().at_unseal.take()).flatten();
        if let Some(mut hook) = hook {
            hook();
            self.state().at_unseal = Some(hook);
        }
        self.state().answer(&request)
    }
}

fn raw(value: &Value) -> Reply {
    Reply::raw(Status::OK, value)
}

impl State {
    fn answer(&mut self, request: &Request) -> Result<Reply, CallError> {
        let path = request.path.as_str().trim_end_matches('/').to_owned();
        self.asked.push(format!("{:?} {path}", request.operation));
        if let Some((prefix, status)) = self.refuse
            && path.starts_with(prefix)
        {
            return Ok(Reply::error(Status(status), "refused by the test"));
        }
        let body: Value = request.body.parse().unwrap();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        Ok(match path.as_str() {
            "sys/health" if self.half_made > 0 => Reply::raw(Status(500), &json!({ "errors": [] })),
            "sys/seal-status" if self.half_made > 0 => {
                self.half_made -= 1;
                Reply::error(Status(500), "core: barrier reports initialized but no seal configuration found")
            }
            "sys/health" => {
                let status = match (self.shares.is_empty(), self.sealed, self.standby) {
                    (true, ..) => 501,
                    (_, true, _) => 503,
                    (_, _, true) => 429,
                    _ => 200,
                };
                Reply::raw(Status(status), &json!({ "initialized": !self.shares.is_empty() }))
            }
            "sys/leader" => raw(&json!({ "leader_address": "" })),
            "sys/seal-status" => raw(
                &json!({ "sealed": self.sealed, "t": self.threshold, "n": self.shares.len(), "progress": self.given.len(), "type": "shamir" }),
            ),
            "sys/init" if self.refuse_init.is_some() => Reply::error(Status(400), self.refuse_init.unwrap_or_default()),
            "sys/init" => {
                let n = body["secret_shares"].as_u64().unwrap();
                self.threshold = usize::try_from(body["secret_threshold"].as_u64().unwrap()).unwrap();
                self.shares = (1..=n).map(|i| hex::encode([u8::try_from(i).unwrap(); 33])).collect();
                self.sealed = true;
                let root = self.token(&["root"]);
                if std::mem::take(&mut self.lose_init) {
                    return Err(CallError::TimedOut { address: "fake".into(), seconds: 30 });
                }
                let base64 = self.shares.iter().map(|s| to_base64(s)).collect::<Vec<_>>();
                raw(&json!({ "keys": self.shares, "keys_base64": base64, "root_token": root }))
            }
            "sys/unseal" if body["reset"] == json!(true) => {
                self.given.clear();
                raw(&json!({ "sealed": self.sealed, "t": self.threshold, "progress": 0 }))
            }
            "sys/unseal" => {
                self.given.insert(text("key"));
                if self.given.len() >= self.threshold {
                    let right: BTreeSet<String> = self.shares.iter().map(|s| to_base64(s)).collect();
                    let ours = self.given.is_subset(&right);
                    self.given.clear();
                    if !ours {
                        return Ok(Reply::error(Status::BAD_REQUEST, "cipher: message authentication failed"));
                    }
                    self.sealed = false;
                }
                raw(&json!({ "sealed": self.sealed, "t": self.threshold, "progress": self.given.len() }))
            }
            p if p.starts_with("sys/generate-root/") && !self.open_door => {
                Reply::error(Status::METHOD_NOT_ALLOWED, "unsupported operation")
            }
            p if p.starts_with("sys/generate-root-token/") && self.no_login_door => {
                Reply::error(Status::NOT_FOUND, "no handler for route")
            }
            p if p.starts_with("sys/generate-root-token/") && request.token.is_none() => {
                Reply::error(Status::FORBIDDEN, "permission denied")
            }
            "sys/generate-root/attempt" | "sys/generate-root-token/attempt" => match request.operation {
                Operation::Delete => {
                    self.attempt = None;
                    Reply::no_content()
                }
                Operation::Read => raw(&json!({ "started": self.attempt.is_some() })),
                _ if self.attempt.is_some() => Reply::error(Status::BAD_REQUEST, "already in progress"),
                _ => {
                    self.attempt = Some(BTreeSet::new());
                    raw(&json!({ "nonce": "n-1", "otp": OTP, "started": true }))
                }
            },
            "sys/generate-root/update" | "sys/generate-root-token/update" => {
                self.handed_in(&text("key"), &text("nonce"))
            }
            p if p.starts_with("sys/rotate/root/") || p.starts_with("sys/rekey/") => {
                return self.rotation(request.operation, &path, &text("key"), &text("nonce"));
            }
            "auth/token/lookup-self"
                if !self.alive.contains_key(&accessor(request.token.as_ref().unwrap().expose())) =>
            {
                Reply::error(Status::FORBIDDEN, "permission denied")
            }
            "auth/token/lookup-self" => {
                let accessor = accessor(request.token.as_ref().unwrap().expose());
                Reply::data(&json!({ "accessor": accessor, "policies": self.alive[&accessor] }))
            }
            "auth/token/revoke-self" => {
                self.alive.remove(&accessor(request.token.as_ref().unwrap().expose()));
                Reply::no_content()
            }
            "auth/token/accessors" => Reply::data(&json!({ "keys": self.alive.keys().collect::<Vec<_>>() })),
            "auth/token/lookup-accessor" => match self.alive.get(&text("accessor")) {
                Some(policies) => Reply::data(&json!({ "accessor": text("accessor"), "policies": policies })),
                None => Reply::error(Status::BAD_REQUEST, "invalid accessor"),
            },
            "auth/token/revoke-accessor" => {
                self.alive.remove(&text("accessor"));
                Reply::no_content()
            }
            p if p.contains("/login/") => {
                let user = p.replace("/login/", "/users/");
                match self.objects.get(&user) {
                    Some(known) if known["password"] == body["password"] => {
                        let token = self.token(&["edgekeep-custody"]);
                        Reply::logical(api::Logical { auth: Some(auth(&token)), ..api::Logical::default() })
                    }
                    _ => Reply::error(Status::BAD_REQUEST, "invalid username or password"),
                }
            }
            _ => self.object(request.operation, &path, body),
        })
    }

    fn object(&mut self, operation: Operation, path: &str, body: Value) -> Reply {
        match operation {
            Operation::Delete => {
                self.objects.remove(path);
                Reply::no_content()
            }
            Operation::Write => {
                self.objects.insert(path.to_owned(), body);
                Reply::no_content()
            }
            Operation::List => {
                let below = format!("{path}/");
                let keys: Vec<&str> = self.objects.keys().filter_map(|k| k.strip_prefix(&below)).collect();
                if keys.is_empty() { Reply::absent() } else { Reply::data(&json!({ "keys": keys })) }
            }
            _ if path == "sys/auth" => {
                let mounts = self.objects.iter().filter_map(|(k, v)| {
                    let mount = k.strip_prefix("sys/auth/")?;
                    Some((format!("{mount}/"), json!({ "type": v["type"], "accessor": "a" })))
                });
                Reply::data(&Value::Object(mounts.collect()))
            }
            _ => self.objects.get(path).map_or_else(Reply::absent, Reply::data),
        }
    }

    /// As OpenBao 2.7.2 answers at `sys/rotate/root`; `sys/rekey` is shut.
    fn rotation(&mut self, operation: Operation, path: &str, key: &str, nonce: &str) -> Result<Reply, CallError> {
        let refused = |told: &str| Ok(Reply::error(Status::BAD_REQUEST, told));
        if self.no_rotation || path.starts_with("sys/rekey/") {
            return Ok(Reply::error(Status::METHOD_NOT_ALLOWED, "unsupported operation"));
        }
        match (path.rsplit('/').next().unwrap(), operation) {
            ("init", Operation::Delete) => {
                self.rotation = None;
                Ok(Reply::no_content())
            }
            ("init", Operation::Read) => Ok(Reply::data(&json!({ "started": self.rotation.is_some() }))),
            ("init", _) if self.rotation.is_some() => refused("rotation already in progress"),
            ("init", _) => {
                self.rotation = Some(Rotation::default());
                Ok(Reply::data(&json!({ "nonce": "r-1", "started": true, "verification_required": !self.unverified })))
            }
            ("update", _) => {
                let Some(rotation) = self.rotation.as_mut().filter(|_| nonce == "r-1") else {
                    return refused("no rotation");
                };
                rotation.given.insert(key.to_owned());
                if rotation.given.len() < self.threshold {
                    return Ok(Reply::data(&json!({ "nonce": "r-1", "progress": rotation.given.len() })));
                }
                if !rotation.given.iter().all(|k| self.shares.contains(k)) {
                    return refused("failed to read root key");
                }
                self.next += 1;
                let (n, serial) = (self.shares.len(), self.next);
                rotation.new = (1..=n).map(|i| format!("{serial:04x}{i:02x}")).collect();
                let base64 = rotation.new.iter().map(|s| to_base64(s)).collect::<Vec<_>>();
                Ok(Reply::data(&json!({ "complete": true, "keys": rotation.new, "keys_base64": base64,
                    "verification_required": true, "verification_nonce": "v-1" })))
            }
            (_, _) => {
                let Some(rotation) = self.rotation.as_mut().filter(|_| nonce == "v-1") else {
                    return refused("no rotation");
                };
                rotation.shown.insert(key.to_owned());
                if rotation.shown.len() < self.threshold {
                    return Ok(Reply::data(&json!({ "nonce": "v-1", "progress": rotation.shown.len() })));
                }
                if !rotation.shown.iter().all(|k| rotation.new.contains(k)) {
                    rotation.shown.clear();
                    return refused("rotation verification failed; incorrect key shares supplied");
                }
                self.shares = std::mem::take(&mut rotation.new);
                self.rotation = None;
                if let Some(hook) = &mut self.at_rekey {
                    hook();
                }
                if std::mem::take(&mut self.lose_verify) {
                    return Err(CallError::TimedOut { address: "fake".into(), seconds: 30 });
                }
                Ok(Reply::data(&json!({ "complete": true, "nonce": "v-1" })))
            }
        }
    }

    fn handed_in(&mut self, key: &str, nonce: &str) -> Reply {
        let (Some(mut given), "n-1") = (self.attempt.take(), nonce) else {
            return Reply::error(Status::BAD_REQUEST, "no root generation in progress");
        };
        given.insert(key.to_owned());
        if given.len() < self.threshold {
            self.attempt = Some(given);
            return raw(&json!({ "complete": false }));
        }
        if !given.iter().all(|k| self.shares.contains(k)) {
            return Reply::error(Status::BAD_REQUEST, "root generation aborted");
        }
        let token = self.token(&["root"]);
        let mixed: Vec<u8> = token.bytes().zip(OTP.bytes()).map(|(t, o)| t ^ o).collect();
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(mixed);
        raw(&json!({ "complete": true, "encoded_token": encoded }))
    }

    /// A live token of 26 characters, whose accessor is told by its number.
    pub(crate) fn token(&mut self, policies: &[&str]) -> String {
        self.next += 1;
        let token = format!("s.{:024}", self.next);
        self.alive.insert(accessor(&token), policies.iter().map(|p| (*p).to_owned()).collect());
        token
    }
}

fn accessor(token: &str) -> String {
    token.trim_start_matches("s.").trim_start_matches('0').to_owned()
}

fn auth(token: &str) -> api::Auth {
    api::Auth {
        client_token: secret::Token::parse(token).unwrap(),
        accessor: secret::Accessor::parse(&accessor(token)).unwrap(),
        policies: Vec::new(),
        token_policies: Vec::new(),
        identity_policies: Vec::new(),
        metadata: None,
        lease_duration: api::Ttl::seconds(300),
        renewable: true,
        entity_id: String::new(),
        token_type: "service",
        orphan: true,
        num_uses: 0,
    }
}

fn to_base64(hex: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(hex::decode(hex).unwrap())
}
