//! A store of paths and JSON objects, as much of the API as provisioning uses. It can fail at any write.

use std::collections::BTreeMap;
use std::sync::Mutex;

use api::{Auth, Logical, Operation, Reply, Request, Status, Ttl};
use client::{CallError, Vault};
use secret::{Accessor, Token};
use serde_json::{Map, Value, json};

#[derive(Default)]
pub(crate) struct FakeVault(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    tokens: BTreeMap<String, bool>,
    writes: usize,
    fail_after: Option<usize>,
}

impl FakeVault {
    pub(crate) fn put(&self, path: &str, value: Value) {
        self.0.lock().unwrap().objects.insert(path.into(), value);
    }

    pub(crate) fn stored(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    /// After so many writes more, every write is lost.
    pub(crate) fn fail_after_writes(&self, more: usize) {
        let mut state = self.0.lock().unwrap();
        state.fail_after = Some(state.writes + more);
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().fail_after = None;
    }

    /// Accessors of the living tokens.
    pub(crate) fn alive(&self) -> Vec<String> {
        self.0.lock().unwrap().tokens.iter().filter(|(_, alive)| **alive).map(|(a, _)| a.clone()).collect()
    }

    pub(crate) fn kill(&self, accessor: &str) {
        self.0.lock().unwrap().tokens.insert(accessor.into(), false);
    }
}

impl Vault for FakeVault {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        Ok(self.0.lock().unwrap().answer(&request))
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        let path = request.path.as_str().to_owned();
        if request.operation == Operation::Read {
            return match path.as_str() {
                "sys/mounts" => self.mounts("sys/mounts/"),
                "sys/auth" => self.mounts("sys/auth/"),
                _ => self.objects.get(&path).map_or_else(Reply::absent, Reply::data),
            };
        }
        if self.fail_after.is_some_and(|n| self.writes >= n) {
            return Reply::error(Status::UNAVAILABLE, "the power is gone");
        }
        self.writes += 1;
        let body: Value = request.body.parse().unwrap();
        match path.as_str() {
            "auth/token/create" => return self.token(&body),
            "auth/token/renew-accessor" | "auth/token/revoke-accessor" => {
                let accessor = body["accessor"].as_str().unwrap().to_owned();
                if self.tokens.get(&accessor) != Some(&true) {
                    return Reply::error(Status::BAD_REQUEST, "invalid accessor");
                }
                self.tokens.insert(accessor, path.ends_with("renew-accessor"));
            }
            "identity/entity-alias" => {
                let id = body["canonical_id"].clone();
                let entity = self.objects.values_mut().find(|v| v["id"] == id && !id.is_null()).unwrap();
                entity["aliases"] = json!([body]);
            }
            _ => {
                let mut object = self.objects.get(&path).cloned().unwrap_or_else(|| json!({}));
                for (key, value) in body.as_object().unwrap() {
                    object[key] = value.clone();
                }
                if path.starts_with("identity/entity/name/") {
                    object["id"] = json!(format!("id-{path}"));
                }
                if path.starts_with("identity/oidc/role/") {
                    let ttl = Ttl::parse(body["ttl"].as_str().unwrap()).unwrap();
                    object["ttl"] = json!(ttl.as_seconds());
                }
                if path.starts_with("auth/") {
                    object.as_object_mut().unwrap().remove("password");
                }
                self.objects.insert(path, object);
            }
        }
        Reply::no_content()
    }

    fn mounts(&self, prefix: &str) -> Reply {
        let mounts: Map<String, Value> = self
            .objects
            .iter()
            .filter_map(|(path, v)| {
                let mut v = v.clone();
                v["accessor"] = json!(format!("accessor-{path}"));
                Some((format!("{}/", path.strip_prefix(prefix)?), v))
            })
            .collect();
        Reply::data(&Value::Object(mounts))
    }

    fn token(&mut self, body: &Value) -> Reply {
        let accessor = format!("accessor{}", self.tokens.len());
        let auth = Auth {
            client_token: Token::parse(&format!("s.token{}", self.tokens.len())).unwrap(),
            accessor: Accessor::parse(&accessor).unwrap(),
            policies: vec!["default".into()],
            token_policies: vec!["default".into()],
            identity_policies: Vec::new(),
            metadata: None,
            lease_duration: Ttl::parse(body["period"].as_str().unwrap()).unwrap(),
            renewable: true,
            entity_id: body["entity_id"].as_str().unwrap().into(),
            token_type: "service",
            orphan: true,
            num_uses: 0,
        };
        self.tokens.insert(accessor, true);
        Reply::logical(Logical { auth: Some(auth), ..Logical::default() })
    }
}
