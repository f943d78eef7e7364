//! What a user or a role says of the tokens that its logins earn: the fields `token_*`, and the older names of some.

use std::collections::BTreeMap;

use api::Ttl;
use pipeline::{EngineError, Grant, TokenEntry, TtlRules, sanitized};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::Input;

/// The fields, as they are kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Terms {
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    max_ttl: u64,
    #[serde(default)]
    period: u64,
    #[serde(default)]
    explicit_max_ttl: u64,
    #[serde(default)]
    num_uses: u64,
    #[serde(default)]
    no_default_policy: bool,
    #[serde(default)]
    token_type: TokenType,
    /// Which fields were written under the names that Vault has retired; a read repeats them.
    #[serde(default)]
    retired: Retired,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum TokenType {
    #[default]
    #[serde(rename = "default")]
    Default,
    #[serde(rename = "service")]
    Service,
    #[serde(rename = "default-service")]
    DefaultService,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Retired {
    policies: bool,
    ttl: bool,
    max_ttl: bool,
}

impl Terms {
    /// Takes over the fields of a body.
    pub(crate) fn update(&mut self, input: &Input<'_>) -> Result<(), EngineError> {
        self.update_policies(input)?;
        Self::update_ttl(input, ["token_ttl", "ttl"], &mut self.ttl, &mut self.retired.ttl)?;
        Self::update_ttl(input, ["token_max_ttl", "max_ttl"], &mut self.max_ttl, &mut self.retired.max_ttl)?;
        let seconds = |name: &str| input.ttl(name).map(|t| t.map(Ttl::as_seconds));
        self.period = seconds("token_period")?.unwrap_or(self.period);
        self.explicit_max_ttl = seconds("token_explicit_max_ttl")?.unwrap_or(self.explicit_max_ttl);
        self.num_uses = input.number("token_num_uses")?.unwrap_or(self.num_uses);
        self.no_default_policy = input.flag("token_no_default_policy")?.unwrap_or(self.no_default_policy);
        if let Some(wanted) = input.text("token_type")? {
            self.token_type = match wanted.as_str() {
                "" | "default" => TokenType::Default,
                "service" => TokenType::Service,
                "default-service" => TokenType::DefaultService,
                _ => {
                    return Err(EngineError::bad_request(
                        "'token_type' can only be default, service or default-service",
                    ));
                }
            };
        }
        if self.max_ttl != 0 && self.ttl > self.max_ttl {
            return Err(EngineError::bad_request("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        // A limit that we would not enforce must not look as if we did.
        let bound =
            ["token_bound_cidrs", "bound_cidrs"].iter().map(|f| input.list(f)).collect::<Result<Vec<_>, _>>()?;
        if bound.into_iter().flatten().any(|l| !l.is_empty()) || input.flag("token_strictly_bind_ip")? == Some(true) {
            return Err(EngineError::bad_request("tokens bound to addresses are not supported"));
        }
        Ok(())
    }

    pub(crate) fn update_policies(&mut self, input: &Input<'_>) -> Result<(), EngineError> {
        if let Some(policies) = input.list("token_policies")? {
            (self.policies, self.retired.policies) = (policies, input.has("policies"));
        } else if let Some(policies) = input.list("policies")? {
            (self.policies, self.retired.policies) = (policies, true);
        }
        Ok(())
    }

    fn update_ttl(
        input: &Input<'_>,
        [name, old_name]: [&str; 2],
        to: &mut u64,
        retired: &mut bool,
    ) -> Result<(), EngineError> {
        if let Some(ttl) = input.ttl(name)? {
            (*to, *retired) = (ttl.as_seconds(), input.has(old_name));
        } else if let Some(ttl) = input.ttl(old_name)? {
            (*to, *retired) = (ttl.as_seconds(), true);
        }
        Ok(())
    }

    /// `data` of a read.
    pub(crate) fn to_data(&self) -> Value {
        let mut data = json!({
            "token_bound_cidrs": [],
            "token_explicit_max_ttl": self.explicit_max_ttl,
            "token_max_ttl": self.max_ttl,
            "token_no_default_policy": self.no_default_policy,
            "token_num_uses": self.num_uses,
            "token_period": self.period,
            "token_policies": self.policies,
            "token_strictly_bind_ip": false,
            "token_ttl": self.ttl,
            "token_type": self.token_type,
        });
        if self.retired.policies {
            data["policies"] = json!(self.policies);
        }
        if self.retired.ttl {
            data["ttl"] = json!(self.ttl);
        }
        if self.retired.max_ttl {
            data["max_ttl"] = json!(self.max_ttl);
        }
        data
    }

    /// What a login under these terms earns, for a caller whom the mount knows as `alias`.
    pub(crate) fn into_grant(self, display_name: String, alias: String, metadata: BTreeMap<String, String>) -> Grant {
        Grant {
            display_name,
            policies: self.policies,
            no_default_policy: self.no_default_policy,
            ttl: Ttl::seconds(self.ttl),
            max_ttl: Ttl::seconds(self.max_ttl),
            period: Ttl::seconds(self.period),
            explicit_max_ttl: Ttl::seconds(self.explicit_max_ttl),
            num_uses: self.num_uses,
            metadata,
            alias: Some(alias),
        }
    }

    /// By which rules the token of an earlier login is renewed today, if a login would give the same policies.
    pub(crate) fn renewal(self, token: &TokenEntry) -> Result<TtlRules, EngineError> {
        // `default` is added by the pipeline and no matter of the terms.
        if !sanitized(self.policies, true).iter().eq(&sanitized(token.policies.iter().cloned(), true)) {
            return Err(EngineError::bad_request("policies have changed, not renewing"));
        }
        Ok(TtlRules {
            period: Ttl::seconds(self.period),
            explicit_max_ttl: Ttl::seconds(token.explicit_max_ttl).or_less(Ttl::seconds(self.explicit_max_ttl)),
            default_ttl: Ttl::seconds(self.ttl),
            max_ttl: Ttl::seconds(self.max_ttl),
        })
    }
}
