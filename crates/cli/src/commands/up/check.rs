//! `up --check`: everything that `up` would do, on paper.

use std::fmt::Write;
use std::path::Path;

use api::Ttl;
use boot::plan::{
    Access, AuditSync, ExternalStore, GatePlan, MountKind, Need, Plan, RecoverySpec, Reunseal, ServicePlan, SourceSpec,
    StoreSpec, Terms,
};
use config::Config;

pub(super) fn text(config: &Config, file: &Path, awaited: &[String]) -> String {
    let plan = &config.plan;
    let mut out = String::new();
    let mut put = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    put(format!("plan of {} (profile {}); nothing was changed", file.display(), plan.profile.as_str()));
    match plan.store.external() {
        None => put(kept(plan)),
        Some(store) => put(kept_elsewhere(plan, store)),
    }
    put(mounts(plan));
    put(services(plan));
    put(credentials(plan));
    put(listens(plan));
    put(gates(plan));
    put(policies(plan));
    put(list("protections lacking", &crate::lacking::of_plan(plan)));
    if let Some(shared) = super::super::ikm::gate_shared_with_the_hook(plan) {
        put(list("what will not work", &[shared]));
    }
    if !awaited.is_empty() {
        put(list("what is waited for, or gone on without", awaited));
    }
    if !config.notes.is_empty() {
        put(list("settings without effect", &config.notes));
    }
    out.trim_end().to_owned()
}

/// One source, and what it is held to.
fn source(source: &SourceSpec) -> String {
    match source {
        SourceSpec::Exec { path, env, deadline } => {
            let names: Vec<&str> = env.keys().map(String::as_str).collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            format!("exec {}, killed after {} s, its environment: {names}", path.display(), deadline.as_secs())
        }
        SourceSpec::Software { file } => format!("software {}, mode 0600", file.display()),
        SourceSpec::Tang { servers, .. } => {
            let names: Vec<String> = servers.all().iter().map(|s| s.origin.to_string()).collect();
            format!("tang, any {} of {}", servers.threshold(), names.join(", "))
        }
        SourceSpec::Credential { directory, name, form } => {
            let form = if *form == seal::CredentialForm::Hex { "hexadecimal digits" } else { "octets" };
            format!("systemd credential {name} in {}, {form}", directory.display())
        }
        SourceSpec::Escrow { holder, .. } => {
            format!("kept by {}, which is believed by {}", holder.address(), holder.ca.display())
        }
        SourceSpec::Combined { threshold, parts } => {
            let rule = threshold.map_or_else(|| "all of".to_owned(), |t| format!("any {t} of"));
            let parts: Vec<String> =
                parts.iter().enumerate().map(|(i, p)| format!("\n    {}. {}", i + 1, self::source(p))).collect();
            format!("{rule}{}", parts.concat())
        }
        SourceSpec::Pkcs11 { setup, pin, .. } => {
            let mut text = format!("token {} (serial number {})", setup.token.label, setup.token.serial);
            let _ = write!(text, " through {}, in a process of its own", setup.module.display());
            if let Some(pin) = pin {
                let _ = write!(text, "; PIN in {pin}");
            }
            text
        }
        SourceSpec::Tpm(tpm) => {
            let mut text = format!("TPM {}", tpm.device.display());
            if tpm.pcrs.is_empty() {
                text.push_str(", whatever was booted");
            } else {
                let _ = write!(text, ", with PCRs {} as at the first boot", tpm.pcrs);
            }
            match tpm.releases_per_boot {
                Some(n) => drop(write!(text, "; {n} releases a boot, counted in PCR {}", tpm.gate_pcr)),
                None => text.push_str("; releases without limit"),
            }
            if let Some(window) = tpm.window {
                let _ = write!(text, "; within {} s of the start", window.as_secs());
            }
            if let Some(pin) = &tpm.pin {
                let _ = write!(text, "; PIN in {pin}");
            }
            text
        }
    }
}

fn kept(plan: &Plan) -> String {
    let dir = plan.state_dir();
    let sync = match plan.audit.sync {
        AuditSync::Never => "when the system likes".to_owned(),
        AuditSync::Interval(d) => format!("within {} s", d.as_secs()),
        AuditSync::Each => "before each reply".to_owned(),
    };
    let mut out = format!("\nkept in {} (mode 0700, owner: who runs this)\n", dir.display());
    let _ = writeln!(out, "  slots.a, slots.b  the root key, wrapped by the key source");
    let _ = writeln!(out, "  store.db          every secret, encrypted");
    let _ = writeln!(
        out,
        "  audit/            {} segments of {} KiB, on the disk {sync}",
        plan.audit.segments,
        plan.audit.segment_bytes / 1024
    );
    out + &opened_by(plan)
}

/// A store in another process, and on which terms we are there.
fn kept_elsewhere(plan: &Plan, store: &ExternalStore) -> String {
    let mut out = format!("\nkept at {}, believed by {}", store.address(), store.ca.display());
    if let Some(name) = &store.server_name {
        let _ = write!(out, " as {name}");
    }
    let receipts = plan.data_dir.join("receipts");
    match &store.terms {
        Terms::Guest(access) => {
            out.push_str("\n  somebody else makes and unseals it; docs/external-policy.hcl says what our token must be allowed\n");
            let _ = match access {
                Access::TokenFile(path) => writeln!(out, "  token      {}", path.display()),
                Access::AppRole { mount, role_id, secret_id_file } => {
                    writeln!(out, "  role       {role_id} at auth/{mount}, secret id in {}", secret_id_file.display())
                }
            };
            let _ = write!(out, "  receipts   {}", receipts.display());
        }
        Terms::Owner { counts, reunseal } => {
            let often = match reunseal {
                Reunseal::Always => "whenever it is found sealed",
                Reunseal::OncePerBoot => "once in a boot of this device",
            };
            let _ = writeln!(out, "\n  made with {} key shares, {} of which open it", counts.shares, counts.threshold);
            let _ = writeln!(out, "  unsealed by us {often}");
            let dir = plan.state_dir();
            let _ = writeln!(out, "  slots.a, slots.b  in {}: the root key, wrapped by the key source", dir.display());
            let _ = writeln!(out, "  resp-init.json    beside them: the key shares, wrapped under the root key");
            let _ = writeln!(out, "  receipts          {}", receipts.display());
            out.push_str(&opened_by(plan));
        }
    }
    out
}

/// Who opens our slots.
fn opened_by(plan: &Plan) -> String {
    let dir = plan.state_dir();
    let sources = match &plan.sources[..] {
        [one] => source(one),
        several => {
            let numbered = several.iter().enumerate().map(|(i, s)| format!("{}. {}", i + 1, source(s)));
            numbered.collect::<Vec<_>>().join("\n  ")
        }
    };
    let recovery = match &plan.recovery {
        Some(RecoverySpec::Age(recipients)) => {
            format!("sealed to {recipients} in {}", dir.join("recovery.age").display())
        }
        Some(RecoverySpec::File(path)) => format!("{}, mode 0600", path.display()),
        Some(RecoverySpec::Terminal) => "shown once on the terminal".into(),
        Some(RecoverySpec::None) | None => "none".into(),
    };
    let title = if plan.sources.len() > 1 { "key sources, each of which opens the store" } else { "key source" };
    format!("{title}\n  {sources}\nrecovery key\n  {recovery}")
}

fn mounts(plan: &Plan) -> String {
    let mut out = String::from("mounts");
    for mount in &plan.mounts {
        let kind = match mount.kind {
            MountKind::KvV1 => "kv version 1",
            MountKind::Userpass => "userpass",
        };
        let _ = write!(out, "\n  {}/  {kind}", mount.path);
    }
    out
}

fn services(plan: &Plan) -> String {
    let mut out = format!("\ntokens ({} services)", plan.services.len());
    for s in &plan.services {
        let file = plan.run_dir.join("secrets").join(s.name.as_str()).join("secrets-token.json");
        let owner =
            s.owner.map_or_else(|| "owner: who runs this".to_owned(), |o| format!("uid {} gid {}", o.uid, o.gid));
        let _ = write!(
            out,
            "\n  {}  mode {:04o} in a directory of mode {:04o}, {owner}, period {}",
            file.display(),
            s.mode.bits(),
            delivery::directory_mode(s.owner),
            Ttl::to_go(s.token.period)
        );
    }
    out
}

fn credentials(plan: &Plan) -> String {
    let mut out = format!("\ncredentials ({}, each made once)", plan.credentials.len());
    for c in &plan.credentials {
        let _ = write!(out, "\n  secret/{}  user {}", c.source, c.user);
        for service in &c.copies {
            let _ = write!(out, "\n    copied to secret/{}", c.copy_path(service));
        }
    }
    out
}

fn listens(plan: &Plan) -> String {
    let listen = &plan.listen;
    let mut out = String::from("\nlistens");
    if let Some(tcp) = &listen.tcp {
        let security = if plan.dangers.plain_http { "WITHOUT TLS" } else { "TLS" };
        let by = match &listen.operator_tls {
            Some(files) => format!("certificate {}", files.certificate.display()),
            None => "certificate of the device's own CA".to_owned(),
        };
        let _ = write!(out, "\n  {tcp}  {security}, {by}, as {}", listen.names.join(", "));
    }
    if plan.store == StoreSpec::Ours {
        let _ = write!(out, "\n  {}  the API, for services", listen.api_socket.display());
    }
    let _ = write!(out, "\n  {}  for root and edgekeep's own user alone", listen.admin_socket.display());
    let _ = write!(out, "\n  {}  the gates", listen.gate_socket.display());
    out
}

fn gates(plan: &Plan) -> String {
    let mut out = String::from("\ngates, in this order");
    for g in &plan.gates {
        let _ = write!(out, "\n  {}  {}", g.name, needs(g));
        if let Some(hint) = g.hint {
            let _ = write!(out, "; opens {hint}");
        }
    }
    out
}

fn needs(gate: &GatePlan) -> String {
    let words: Vec<String> = gate
        .needs
        .iter()
        .map(|need| match need {
            Need::Store => "the store".into(),
            Need::AllServices => "all tokens".into(),
            Need::Service(name) => format!("the token of {name}"),
            Need::AllCredentials => "all credentials".into(),
            Need::Gate(name) => format!("the gate {name}"),
            Need::Probe(probe) => format!("an answer of {probe}"),
        })
        .collect();
    let deadline = gate.deadline.map(|d| format!(", within {} s", d.as_secs())).unwrap_or_default();
    if words.is_empty() { "needs nothing".into() } else { format!("needs {}{deadline}", words.join(", ")) }
}

fn policies(plan: &Plan) -> String {
    let mut out = String::from("\npolicies");
    for s in &plan.services {
        let _ = write!(out, "\n  {}", s.policy_name());
        for (path, capabilities) in rules(s) {
            let _ = write!(out, "\n    {path}  {capabilities}");
        }
    }
    out
}

/// As the store will get them, defaults and custom rules together.
fn rules(service: &ServicePlan) -> Vec<(String, String)> {
    let text: serde_json::Value = serde_json::from_str(&service.policy_text()).expect("a plan's policy is JSON");
    let rules = text["path"].as_object().into_iter().flatten();
    rules
        .map(|(path, rule)| {
            let list = rule["capabilities"].as_array().into_iter().flatten().filter_map(|c| c.as_str());
            (path.clone(), list.collect::<Vec<_>>().join(", "))
        })
        .collect()
}

fn list(heading: &str, items: &[String]) -> String {
    let mut out = format!("\n{heading}");
    for item in items {
        let _ = write!(out, "\n  - {item}");
    }
    out
}
