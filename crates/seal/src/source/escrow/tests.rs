//! Against the real OpenBao, as the holder of a site's keys: its policies are those of packaging/escrow.

mod slow_logout;

use std::path::{Path, PathBuf};

use host::{OsClock, OsDisk, OsEntropy};
use testkit::{Bao, is_skipped};

use super::super::contract::key_source_contract;
use super::super::{NoAuth, Remedy};
use super::*;

const TRANSIT_POLICY: &str = include_str!("../../../../../packaging/escrow/devices.hcl");
const KV_POLICY: &str = include_str!("../../../../../packaging/escrow/devices-kv.hcl");

/// A holder set up as docs/hardware.md says, and a directory for devices' files.
struct Site {
    bao: Bao,
    dir: tempfile::TempDir,
    accessor: String,
}

impl Site {
    /// `None` where OpenBao is skipped.
    fn new() -> Option<Self> {
        if is_skipped("openbao") {
            return None;
        }
        let bao = Bao::start();
        bao.bao(&["auth", "enable", "cert"], "");
        bao.bao(&["secrets", "enable", "transit"], "");
        bao.bao(&["secrets", "enable", "-path=escrow", "-version=2", "kv"], "");
        let accessor = bao.bao(&["read", "-field=accessor", "sys/auth/cert"], "").trim().to_owned();
        let site = Self { bao, dir: testkit::scratch_dir(), accessor };
        site.policy("edgekeep-devices", TRANSIT_POLICY);
        site.policy("edgekeep-devices-kv", KV_POLICY);
        site.role("edgekeep-devices,edgekeep-devices-kv");
        Some(site)
    }

    fn policy(&self, name: &str, text: &str) {
        self.bao.bao(&["policy", "write", name, "-"], &text.replace("ACCESSOR", &self.accessor));
    }

    fn role(&self, policies: &str) {
        let ca = format!("certificate=@{}", self.bao.ca_file().display());
        let (policies, names) = (format!("token_policies={policies}"), "allowed_common_names=device-*");
        let alone = "token_no_default_policy=true";
        self.bao.bao(&["write", "auth/cert/certs/devices", &ca, &policies, names, alone, "token_ttl=60s"], "");
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        OsDisk.replace(&path, text.as_bytes(), mode, None).unwrap();
        path
    }

    /// A device with a certificate of the site.
    fn device(&self, name: &str, hold: Hold) -> Escrow {
        let (certificate, key) = self.bao.device(name);
        Escrow {
            host: self.bao.host().into(),
            port: self.bao.port(),
            ca: self.bao.ca_file(),
            server_name: None,
            identity: Some(Identity {
                certificate: self.file(&format!("{name}.pem"), &certificate, 0o644),
                key: self.file(&format!("{name}.key"), &key, 0o600),
            }),
            login: Login::Certificate { mount: named("cert"), role: Some(named("devices")) },
            hold,
        }
    }

    fn by_transit(&self, name: &str) -> Escrow {
        self.device(name, Hold::Transit { mount: named("transit"), key: named(name) })
    }

    fn by_kv(&self, name: &str) -> Escrow {
        self.device(name, Hold::Kv { mount: named("escrow"), path: named(name), version: 2 })
    }

    fn entity(&self, device: &str) -> String {
        let (alias, mount) = (format!("alias_name={device}"), format!("alias_mount_accessor={}", self.accessor));
        self.bao.bao(&["write", "-field=id", "identity/lookup/entity", &alias, &mount], "").trim().to_owned()
    }

    fn shut_out(&self, device: &str, out: bool) {
        let entity = format!("identity/entity/id/{}", self.entity(device));
        self.bao.bao(&["write", &entity, &format!("disabled={out}")], "");
    }

    /// How many decryptions for a device have been answered, by the audit.
    fn releases(&self, device: &str) -> usize {
        let of_it = |line: &&str| {
            let answered = line.contains(r#""type":"response""#) && !line.contains(r#""error":"#);
            answered && line.contains(&format!(r#""path":"transit/decrypt/{device}""#))
        };
        self.bao.audit().lines().filter(of_it).count()
    }
}

fn named(text: &str) -> EscrowName {
    text.parse().unwrap()
}

fn source(setup: &Escrow) -> EscrowSource {
    EscrowSource::new(setup.clone(), Arc::new(OsDisk), Arc::new(OsClock::new().unwrap()), Arc::new(OsEntropy))
}

fn within(limit: Duration) -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), limit)
}

const LONG: Duration = Duration::from_secs(30);

fn provision(setup: &Escrow) -> Result<Provisioned, SourceError> {
    source(setup).provision(&PolicyRequest::default(), &NoAuth, within(LONG))
}

fn release(setup: &Escrow, made: &Provisioned) -> Result<Released, SourceError> {
    source(setup).release(&made.public, &NoAuth, within(LONG))
}

fn opens(setup: &Escrow, made: &Provisioned) {
    assert!(release(setup, made).unwrap().ikm.ct_eq(&made.ikm));
}

/// What a refusal says; each is asked again.
fn withheld(result: Result<Released, SourceError>) -> String {
    let e = result.unwrap_err();
    assert_eq!(e.remedy(), Remedy::Retry, "{e}");
    match e {
        SourceError::Withheld { defect, .. } => defect,
        other => panic!("{other:?}"),
    }
}

fn unreachable(result: Result<Released, SourceError>) -> String {
    let e = result.unwrap_err();
    assert_eq!(e.remedy(), Remedy::Retry, "{e}");
    match e {
        SourceError::Unreachable { defect, .. } => defect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ways_of_holding_keep_to_the_contract() {
    let Some(site) = Site::new() else { return };
    let (transit, kv) = (site.by_transit("device-01"), site.by_kv("device-02"));
    key_source_contract(&|| Box::new(source(&transit)), &PolicyRequest::default(), &NoAuth);
    key_source_contract(&|| Box::new(source(&kv)), &PolicyRequest::default(), &NoAuth);
    assert!(!site.bao.audit().contains("device-01.key"));
}

/// A site of 30. One of them is stolen.
#[test]
fn a_device_that_is_shut_out_stays_sealed_while_its_neighbours_start() {
    let Some(site) = Site::new() else { return };
    let devices: Vec<(String, Escrow)> =
        (1..=30).map(|n| format!("device-{n:02}")).map(|name| (name.clone(), site.by_transit(&name))).collect();
    let all_at_once = |ask: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for n in 0..devices.len() {
                scope.spawn(move || ask(n));
            }
        });
    };
    let made: Vec<std::sync::OnceLock<Provisioned>> = devices.iter().map(|_| std::sync::OnceLock::new()).collect();
    all_at_once(&|n| drop(made[n].set(provision(&devices[n].1).unwrap())));
    let made: Vec<Provisioned> = made.into_iter().map(|m| m.into_inner().unwrap()).collect();

    site.shut_out("device-07", true);
    let before: Vec<usize> = devices.iter().map(|(name, _)| site.releases(name)).collect();
    all_at_once(&|n| match n {
        6 => {
            let said = withheld(release(&devices[n].1, &made[n]));
            assert!(said.contains("refused with status 403"), "{said}");
        }
        _ => opens(&devices[n].1, &made[n]),
    });
    for (n, (name, _)) in devices.iter().enumerate() {
        assert_eq!(site.releases(name) - before[n], usize::from(n != 6), "the audit has each release of {name}");
    }
    // It was found again.
    site.shut_out("device-07", false);
    opens(&devices[6].1, &made[6]);

    // One device's certificate is of no use for another's key.
    let mut thief = devices[1].1.clone();
    thief.identity.clone_from(&devices[0].1.identity);
    let said = withheld(release(&thief, &made[1]));
    assert!(said.contains("decryption is refused with status 403"), "{said}");
}

#[test]
fn keys_that_are_rotated_withdrawn_and_replaced() {
    let Some(site) = Site::new() else { return };
    let (setup, bao) = (site.by_transit("device-01"), &site.bao);
    let made = provision(&setup).unwrap();
    bao.bao(&["write", "-f", "transit/keys/device-01/rotate"], "");
    opens(&setup, &made);
    bao.bao(&["write", "transit/keys/device-01/config", "min_decryption_version=2"], "");
    let said = withheld(release(&setup, &made));
    assert!(said.contains("too old"), "{said}");
    bao.bao(&["write", "transit/keys/device-01/config", "min_decryption_version=1", "deletion_allowed=true"], "");
    opens(&setup, &made);
    bao.bao(&["delete", "transit/keys/device-01"], "");
    withheld(release(&setup, &made));

    let setup = site.by_kv("device-02");
    let made = provision(&setup).unwrap();
    let other = "ab".repeat(16) + &"cd".repeat(16);
    bao.bao(&["kv", "put", "-mount=escrow", "device-02", &format!("ikm={other}")], "");
    assert_eq!(withheld(release(&setup, &made)), "it gives another key than the slot was made with");
    bao.bao(&["kv", "rollback", "-mount=escrow", "-version=1", "device-02"], "");
    opens(&setup, &made);
    bao.bao(&["kv", "delete", "-mount=escrow", "device-02"], "");
    assert_eq!(withheld(release(&setup, &made)), "the key is not there");
}

/// A holder that decrypts to something else, of the right length: it is told, and asked again.
#[test]
fn a_holder_that_gives_other_octets_is_not_believed() {
    let Some(site) = Site::new() else { return };
    let setup = site.by_transit("device-01");
    let made = provision(&setup).unwrap();
    // Under its own key, by its own hand: the ciphertext is good, and is of another plaintext.
    let plaintext = format!("plaintext={}", "QUJD".repeat(10) + "QUI=");
    let ciphertext = site.bao.bao(&["write", "-field=ciphertext", "transit/encrypt/device-01", &plaintext], "");
    let read = EscrowSlot::read(&made.public).unwrap();
    let lied = EscrowSlot { ciphertext: Some(ciphertext.trim().to_owned()), ..read };
    let lied = Provisioned { public: lied.write().unwrap(), ikm: made.ikm };
    assert_eq!(withheld(release(&setup, &lied)), "it gives another key than the slot was made with");
    opens(&setup, &Provisioned { public: made.public, ikm: lied.ikm });
}

#[test]
fn a_holder_that_is_down_asleep_or_sealed_is_told_and_waited_for() {
    let Some(mut site) = Site::new() else { return };
    let setup = site.by_transit("device-01");
    let made = provision(&setup).unwrap();

    site.bao.seal();
    assert!(unreachable(release(&setup, &made)).contains("sealed"));
    let told = source(&setup).probe(within(LONG)).unwrap();
    assert!(told.0.contains(&("holder says", "it is sealed".into())), "{told:?}");
    site.bao.unseal();
    opens(&setup, &made);

    site.bao.sleeps();
    let limit = Duration::from_millis(300);
    let said = unreachable(source(&setup).release(&made.public, &NoAuth, within(limit)));
    assert!(said.contains("did not"), "{said}");
    site.bao.wakes();
    opens(&setup, &made);

    site.bao.stop();
    assert!(unreachable(release(&setup, &made)).contains("does not answer"));
    assert!(source(&setup).probe(within(LONG)).is_ok(), "a fact, and no error");
}

#[test]
fn nobody_else_is_taken_for_the_holder() {
    let Some(site) = Site::new() else { return };
    let setup = site.by_transit("device-01");
    let made = provision(&setup).unwrap();
    // Somebody has taken its address: with a certificate, but not of the CA that was pinned.
    let impostor = Bao::start();
    let posing = Escrow { host: impostor.host().into(), port: impostor.port(), ..setup.clone() };
    let said = unreachable(release(&posing, &made));
    assert!(said.contains("is not the server that this device trusts"), "{said}");
    assert_eq!(impostor.audit().matches("auth/cert/login").count(), 0, "nothing was said to it");
    let other_name = Escrow { server_name: Some("elsewhere.site".into()), ..setup };
    assert!(unreachable(release(&other_name, &made)).contains("is not the server that this device trusts"));
}

#[test]
fn a_device_without_its_certificate_is_not_let_in() {
    let Some(site) = Site::new() else { return };
    let setup = site.by_transit("device-01");
    let made = provision(&setup).unwrap();
    let without = Escrow { identity: None, ..setup.clone() };
    assert!(withheld(release(&without, &made)).starts_with("the login is refused with status 400"));
    // A certificate of another site, under the same name.
    let (certificate, key) = Bao::start().device("device-01");
    let foreign = Identity {
        certificate: site.file("foreign.pem", &certificate, 0o644),
        key: site.file("foreign.key", &key, 0o600),
    };
    let said = withheld(release(&Escrow { identity: Some(foreign), ..setup.clone() }, &made));
    assert!(said.starts_with("the login is refused"), "{said}");
    // A private key that others may read is no longer private.
    let open = |path: &Path| OsDisk.set_mode(path, 0o644).unwrap();
    open(&setup.identity.as_ref().unwrap().key);
    assert!(matches!(release(&setup, &made), Err(SourceError::NotTrusted { .. })));
}

#[test]
fn an_approle_does_where_there_is_no_certificate() {
    let Some(site) = Site::new() else { return };
    let bao = &site.bao;
    bao.bao(&["auth", "enable", "approle"], "");
    let policy = "path \"transit/*\" { capabilities = [\"create\", \"update\"] }";
    bao.bao(&["policy", "write", "one", "-"], policy);
    bao.bao(&["write", "auth/approle/role/device-01", "token_policies=one"], "");
    let role_id = bao.bao(&["read", "-field=role_id", "auth/approle/role/device-01/role-id"], "");
    let secret_id = bao.bao(&["write", "-f", "-field=secret_id", "auth/approle/role/device-01/secret-id"], "");
    let file = site.file("secret-id", &format!("{}\n", secret_id.trim()), 0o600);
    let login = Login::AppRole { mount: named("approle"), role_id: named(role_id.trim()), secret_id: file.clone() };
    let setup = Escrow { identity: None, login, ..site.by_transit("device-01") };
    let made = provision(&setup).unwrap();
    opens(&setup, &made);
    site.file("secret-id", "another\n", 0o600);
    assert!(withheld(release(&setup, &made)).starts_with("the login is refused"));
    site.file("secret-id", "", 0o600);
    assert!(matches!(release(&setup, &made), Err(SourceError::BadOutput { .. })));
}

/// Where a key was laid ready, it is taken; the policy then needs no `create`.
#[test]
fn a_key_that_is_kept_already_is_never_displaced() {
    let Some(site) = Site::new() else { return };
    let setup = site.by_kv("device-01");
    let one = provision(&setup).unwrap();
    let again = provision(&setup).unwrap();
    assert!(one.ikm.ct_eq(&again.ikm));
    opens(&setup, &one);
}

/// The policies are enough, as all tests here show; and each of their lines is needed.
#[test]
fn each_line_of_the_policies_is_needed() {
    let Some(site) = Site::new() else { return };
    let whole = |setup: &Escrow, name: &str| {
        let before = site.bao.audit().len();
        let made = provision(setup).map_err(|e| e.to_string())?;
        release(setup, &made).map_err(|e| e.to_string())?;
        // The token is gone.
        let audit = site.bao.audit().split_off(before);
        let refused = |line: &str| line.contains("auth/token/revoke-self") && line.contains("permission denied");
        if audit.lines().any(refused) { Err(format!("{name} could not log out")) } else { Ok(()) }
    };
    for (name, text) in [("edgekeep-devices", TRANSIT_POLICY), ("edgekeep-devices-kv", KV_POLICY)] {
        let fresh = |n: usize| {
            let device = format!("device-{name}-{n}");
            if name.ends_with("kv") { site.by_kv(&device) } else { site.by_transit(&device) }
        };
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("path ")).collect();
        site.role(name);
        site.policy(name, text);
        assert_eq!(whole(&fresh(0), name), Ok(()));
        for (n, line) in lines.iter().enumerate() {
            site.policy(name, &text.replace(line, ""));
            assert!(whole(&fresh(n + 1), name).is_err(), "{name} does without {line}");
        }
    }
}
