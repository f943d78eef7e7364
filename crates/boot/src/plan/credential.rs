//! A credential that the boot makes: one password, kept at its source and copied to each service that may use it.

use api::ApiPath;

use super::ServiceName;

/// One generated credential. The password is made once and never changed by a boot.
#[derive(Clone, Debug)]
pub struct CredentialPlan {
    /// What it is for.
    pub kind: CredentialKind,
    /// The secret's name at each service, such as `redisdb`.
    pub name: String,
    /// The user that goes with the password.
    pub user: String,
    /// Path below `secret/` of the copy from which all others are made, such as
    /// `edgex/security-bootstrapper-redis/redisdb`.
    pub source: String,
    /// Services that get a copy at `edgex/<service>/<name>`.
    pub copies: Vec<ServiceName>,
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// Redis: one password for all.
    RedisDb,
    /// PostgreSQL: one for each service, and one for the superuser.
    Postgres,
    /// The message bus: one for all.
    MessageBus,
    /// Something of the operator's own.
    Custom,
}

impl CredentialPlan {
    /// Redis as EdgeX has it.
    pub fn redis(copies: Vec<ServiceName>) -> Self {
        Self {
            kind: CredentialKind::RedisDb,
            name: "redisdb".into(),
            user: "default".into(),
            source: "edgex/security-bootstrapper-redis/redisdb".into(),
            copies,
        }
    }

    /// PostgreSQL's superuser as EdgeX has it; no service gets a copy.
    pub fn postgres_superuser() -> Self {
        Self {
            kind: CredentialKind::Postgres,
            name: "postgres".into(),
            user: "postgres".into(),
            source: "edgex/security-bootstrapper-postgres/postgres".into(),
            copies: Vec::new(),
        }
    }

    /// PostgreSQL for one service as EdgeX has it.
    pub fn postgres(service: ServiceName, user: impl Into<String>) -> Self {
        Self {
            kind: CredentialKind::Postgres,
            name: "postgres".into(),
            user: user.into(),
            source: format!("edgex/security-bootstrapper-postgres/{service}/postgres"),
            copies: vec![service],
        }
    }

    /// The message bus as EdgeX has it.
    pub fn message_bus(copies: Vec<ServiceName>) -> Self {
        Self {
            kind: CredentialKind::MessageBus,
            name: "message-bus".into(),
            user: "msgbususer".into(),
            source: "edgex/security-bootstrapper-messagebus/message-bus".into(),
            copies,
        }
    }

    /// Path below `secret/` of the copy of `service`.
    pub fn copy_path(&self, service: &ServiceName) -> String {
        format!("edgex/{service}/{}", self.name)
    }

    /// Whether names and paths can stand in a request.
    ///
    /// # Errors
    /// [`CredentialPlanError`].
    pub fn check(&self) -> Result<(), CredentialPlanError> {
        let plain = |t: &str| {
            !t.is_empty() && t.len() <= 64 && t.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        if !plain(&self.name) || self.name.contains("..") {
            return Err(CredentialPlanError::Name { name: self.name.escape_default().take(64).collect() });
        }
        if !plain(&self.user) {
            return Err(CredentialPlanError::User { user: self.user.escape_default().take(64).collect() });
        }
        let sound = ApiPath::parse(&self.source).is_ok_and(|p| p.as_str() == self.source && !p.is_folder());
        if !sound || self.source.is_empty() {
            return Err(CredentialPlanError::Source { path: self.source.escape_default().take(200).collect() });
        }
        Ok(())
    }
}

/// Why a credential is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialPlanError {
    /// It becomes a segment of a path.
    #[error("{name:?} is no name for a secret; allowed are letters, digits, '_', '.' and '-'")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// It goes into databases' and brokers' configuration.
    #[error("{user:?} is no user name; allowed are letters, digits, '_', '.' and '-'")]
    User {
        /// The user, escaped.
        user: String,
    },
    /// Not a clean path.
    #[error("{path:?} is no path below secret/")]
    Source {
        /// The path, escaped.
        path: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edgexs_paths() {
        let svc: ServiceName = "core-data".parse().unwrap();
        let pg = CredentialPlan::postgres(svc.clone(), "core_data");
        assert_eq!(pg.source, "edgex/security-bootstrapper-postgres/core-data/postgres");
        assert_eq!(pg.copy_path(&svc), "edgex/core-data/postgres");
        for c in [
            pg,
            CredentialPlan::redis(vec![svc.clone()]),
            CredentialPlan::message_bus(vec![svc]),
            CredentialPlan::postgres_superuser(),
        ] {
            assert_eq!(c.check(), Ok(()));
        }
    }

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused() {
        let mut c = CredentialPlan::redis(Vec::new());
        for bad in ["", "/edgex/a", "edgex/../a", "edgex//a", "edgex/a/", "a\n"] {
            c.source = bad.into();
            assert!(matches!(c.check(), Err(CredentialPlanError::Source { .. })), "{bad:?}");
        }
        c = CredentialPlan::redis(Vec::new());
        c.name = "a/b".into();
        assert!(matches!(c.check(), Err(CredentialPlanError::Name { .. })));
    }
}
