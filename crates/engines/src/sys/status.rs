//! What the store says about itself, sealed or not: `health`, `seal-status`, `leader`, `init`. No envelope, no token.

use api::{Reply, Status};
use host::WallTime;
use pipeline::EngineError;
use serde_json::{Value, json};

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of this build.
    pub version: String,
    /// When this version was built, RFC 3339.
    pub build_date: String,
    /// Name of the store, for people.
    pub cluster_name: String,
    /// Id of the store.
    pub cluster_id: String,
    /// How the store is unsealed: `None` by its own slots, without a person; otherwise by shares.
    pub shares: Option<Shares>,
}

/// A store that is unsealed by people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many are needed.
    pub threshold: u8,
    /// How many there are.
    pub count: u8,
}

/// Where the store is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is none yet.
    Uninitialized,
    /// It is there, and its keys are not.
    Sealed {
        /// Shares given so far.
        progress: u8,
        /// Of this attempt; empty before the first share.
        nonce: String,
    },
    /// It serves.
    Unsealed,
}

impl Facts {
    /// `sys/health`: the status says what the body says, unless the caller has chosen other codes.
    ///
    /// # Errors
    /// 400 for a code that is no HTTP status.
    pub fn health<'q>(
        &self,
        phase: Phase,
        query: &dyn Fn(&str) -> Option<&'q str>,
        at: WallTime,
    ) -> Result<Reply, EngineError> {
        let (parameter, usual) = match &phase {
            Phase::Uninitialized => ("uninitcode", 501),
            Phase::Sealed { .. } => ("sealedcode", 503),
            Phase::Unsealed => ("activecode", 200),
        };
        let code = |name: &str, usual: u16| match query(name) {
            None => Ok(usual),
            // Below 200 is no final answer; a client would wait for another.
            Some(text) => text
                .parse()
                .ok()
                .filter(|code| (200..600).contains(code))
                .ok_or_else(|| EngineError::bad_request(format!("{name} must be an HTTP status from 200 to 599"))),
        };
        let status = code(parameter, usual)?;
        for other in CODES.into_iter().filter(|name| *name != parameter) {
            code(other, usual)?;
        }
        let mut body = json!({
            "initialized": phase != Phase::Uninitialized,
            "sealed": phase != Phase::Unsealed,
            "standby": phase != Phase::Unsealed,
            "performance_standby": false,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": at.unix_seconds(),
            "version": self.version,
            "enterprise": false,
        });
        if phase == Phase::Unsealed {
            self.name_the_store(&mut body);
        }
        Ok(Reply::raw(Status(status), &body))
    }

    /// `sys/seal-status`, and the answer to a share.
    pub fn seal_status(&self, phase: Phase) -> Reply {
        let (progress, nonce) = match &phase {
            Phase::Sealed { progress, nonce } => (*progress, nonce.as_str()),
            Phase::Uninitialized | Phase::Unsealed => (0, ""),
        };
        let mut body = json!({
            "type": if self.shares.is_some() { "shamir" } else { "slots" },
            "initialized": phase != Phase::Uninitialized,
            "sealed": phase != Phase::Unsealed,
            "t": self.shares.map_or(0, |s| s.threshold),
            "n": self.shares.map_or(0, |s| s.count),
            "progress": progress,
            "nonce": nonce,
            "version": self.version,
            "build_date": self.build_date,
            "commit_date": self.build_date,
            "migration": false,
            "recovery_seal": self.shares.is_none(),
            "storage_type": "sqlite",
        });
        if phase == Phase::Unsealed {
            self.name_the_store(&mut body);
        }
        Reply::raw(Status::OK, &body)
    }

    /// `sys/leader`: there is one node.
    pub fn leader(&self) -> Reply {
        Reply::raw(
            Status::OK,
            &json!({
                "ha_enabled": false,
                "is_self": false,
                "active_time": "0001-01-01T00:00:00Z",
                "leader_address": "",
                "leader_cluster_address": "",
                "performance_standby": false,
                "performance_standby_last_remote_wal": 0,
            }),
        )
    }

    /// `sys/init`.
    pub fn init(&self, phase: Phase) -> Reply {
        Reply::raw(Status::OK, &json!({ "initialized": phase != Phase::Uninitialized }))
    }

    fn name_the_store(&self, body: &mut Value) {
        if let Value::Object(fields) = body {
            fields.insert("cluster_name".to_owned(), json!(self.cluster_name));
            fields.insert("cluster_id".to_owned(), json!(self.cluster_id));
        }
    }
}

/// The codes that a caller of `sys/health` may choose. Some are for states that one node never has.
const CODES: [&str; 7] = [
    "uninitcode",
    "sealedcode",
    "activecode",
    "standbycode",
    "drsecondarycode",
    "performancestandbycode",
    "haunhealthycode",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            version: "0.1.0".to_owned(),
            build_date: "2026-11-22T00:00:00Z".to_owned(),
            cluster_name: "edgekeep-1".to_owned(),
            cluster_id: "id".to_owned(),
            shares: None,
        }
    }

    fn sealed() -> Phase {
        Phase::Sealed { progress: 0, nonce: String::new() }
    }

    fn health(phase: Phase, query: &[(&str, &'static str)]) -> Result<u16, EngineError> {
        let find = |name: &str| query.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        facts().health(phase, &find, WallTime(0)).map(|reply| reply.status.0)
    }

    #[test]
    fn the_status_of_health_is_the_state() {
        assert_eq!(health(Phase::Unsealed, &[]).unwrap(), 200);
        assert_eq!(health(sealed(), &[("standbyok", "true")]).unwrap(), 503);
        assert_eq!(health(Phase::Uninitialized, &[]).unwrap(), 501);
        assert_eq!(health(sealed(), &[("sealedcode", "299")]).unwrap(), 299);
        assert_eq!(health(Phase::Unsealed, &[("sealedcode", "299")]).unwrap(), 200);
        for bad in ["x", "100", "600", "-1"] {
            assert_eq!(health(sealed(), &[("activecode", bad)]).unwrap_err().status(), Status::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn seal_status_has_every_field_that_typed_clients_demand() {
        let api::Payload::Raw { bytes, .. } = facts().seal_status(sealed()).payload else {
            panic!("it has no envelope")
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        for field in [
            "type",
            "initialized",
            "sealed",
            "t",
            "n",
            "progress",
            "nonce",
            "version",
            "migration",
            "recovery_seal",
            "storage_type",
        ] {
            assert!(body.get(field).is_some(), "{field}");
        }
        assert_eq!((&body["sealed"], &body["recovery_seal"]), (&json!(true), &json!(true)));
        assert!(body.get("cluster_id").is_none(), "a sealed store does not name itself");
    }
}
