//! Transcripts: what is typed, what the store is asked, what is shown, and the exit code, as files in
//! `tests/golden/cli`.
//!
//! `EDGEKEEP_BLESS=1` writes them anew; the difference is then for a person to read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use api::{Auth, Logical, Operation, Reply, Request, Status, Ttl};
use clap::{CommandFactory, Parser};
use client::{CallError, Vault};
use config::Environment;
use host::{Disk, OsDisk};
use secret::{Accessor, Token};
use serde_json::json;

use super::session::Session;
use super::{normalise, perform};
use crate::commands::Command;
use crate::failure::Failure;

/// A store that knows some answers and remembers the questions.
struct Fake {
    sealed: bool,
    asked: Mutex<Vec<String>>,
}

impl Vault for Fake {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let body = String::from_utf8(request.body.expose().to_vec()).unwrap();
        let token = request.token.as_ref().map_or("no token", |t| t.expose());
        let line = format!("{:?} {} {body}", request.operation, request.path);
        self.asked.lock().unwrap().push(format!("> {} ({token})", line.trim_end()));
        if self.sealed && request.path.as_str() != "sys/seal-status" {
            return Ok(Reply::error(Status::UNAVAILABLE, "Vault is sealed"));
        }
        Ok(self.answer(request.operation, request.path.as_str()))
    }
}

impl Fake {
    fn answer(&self, operation: Operation, path: &str) -> Reply {
        use Operation::{Delete, List, Read, Write};
        match (operation, path) {
            (Read, "sys/seal-status") => Reply::raw(
                Status::OK,
                &json!({"type": "edgekeep", "initialized": true, "sealed": self.sealed, "t": 0, "n": 0, "progress": 0,
                    "nonce": "", "recovery_seal": true, "version": "0.1.0", "migration": false, "storage_type": "sqlite"}),
            ),
            (Read, "secret/edgex/sensor/camera") => Reply::logical(Logical {
                data: Some(
                    br#"{"user":"admin","password":"p\"w","serial":12345678901234567890123,"tags":["a",{"b":1}]}"#
                        .to_vec()
                        .into(),
                ),
                lease_duration: Ttl::seconds(2_764_800),
                ..Logical::default()
            }),
            (Read, "secret/edgex/sensor/hostile") => Reply::data(&json!({"value": "\u{1b}[2Jgone"})),
            (Read, "kv/data/a") => Reply::data(
                &json!({"data": {"x": "1"}, "metadata": {"version": 3, "created_time": "2026-11-22T02:55:26Z"}}),
            ),
            (Write, "kv/data/a") => Reply::data(&json!({"version": 4, "created_time": "2026-11-22T02:55:27Z"})),
            (Read, p) if p.starts_with("sys/internal/ui/mounts/secret/") => {
                Reply::data(&json!({"path": "secret/", "type": "kv", "options": {"version": "1"}}))
            }
            (Read, p) if p.starts_with("sys/internal/ui/mounts/kv/") => {
                Reply::data(&json!({"path": "kv/", "type": "kv", "options": {"version": "2"}}))
            }
            (Read, p) if p.starts_with("sys/internal/ui/mounts/") => {
                Reply::error(Status::FORBIDDEN, "preflight capability check returned 403")
            }
            (List, "secret/edgex/sensor/") => Reply::data(&json!({"keys": ["camera", "old/"]})),
            (Write, "secret/edgex/sensor/camera") | (Delete, "secret/edgex/sensor/camera") => Reply::no_content(),
            (_, p) if p.starts_with("secret/edgex/uploader/") => {
                Reply::error(Status::FORBIDDEN, "1 error occurred:\n\t* permission denied\n\n")
            }
            (Write, "sys/policies/acl/p") | (Delete, "sys/policies/acl/p") => Reply::no_content(),
            (Read, "sys/policies/acl/p") => Reply::data(&json!({"name": "p", "policy": "path \"a\" {\n}\n"})),
            (Write, "sys/policies/acl/bad") => {
                Reply::error(Status::BAD_REQUEST, "failed to parse policy: path \"x\": invalid key \"bogus\" on line 2")
            }
            (List, "sys/policies/acl/") => Reply::data(&json!({"keys": ["default", "p", "root"]})),
            (Read, "auth/token/lookup-self") => Reply::data(
                &json!({"accessor": "acc", "id": "s.mine", "policies": ["default"], "ttl": 3599, "meta": null}),
            ),
            (Write, "auth/token/lookup-accessor") => Reply::data(&json!({"accessor": "acc", "id": ""})),
            (Write, "auth/token/revoke-accessor") => Reply::no_content(),
            (Write, "auth/token/create" | "auth/token/renew-self" | "auth/userpass/login/tech") => login_reply(),
            (_, p) if p.starts_with("broken/") => Reply::error(Status::INTERNAL, "internal error"),
            (_, p) if p.starts_with("nosuch/") => {
                Reply::error(Status::NOT_FOUND, "no handler for route \"nosuch/x\". route entry not found.")
            }
            _ => Reply::absent(),
        }
    }
}

fn login_reply() -> Reply {
    let auth = Auth {
        client_token: Token::parse("s.new").unwrap(),
        accessor: Accessor::parse("acc").unwrap(),
        policies: vec!["default".into(), "p".into()],
        token_policies: vec!["default".into()],
        identity_policies: vec!["p".into()],
        metadata: None,
        lease_duration: Ttl::seconds(3600),
        renewable: true,
        entity_id: "e".into(),
        token_type: "service",
        orphan: true,
        num_uses: 0,
    };
    let warnings = vec!["Policy \"p\" does not exist".into()];
    Reply::logical(Logical { auth: Some(auth), warnings, ..Logical::default() })
}

/// One line as it is typed, with what is on standard input, and whether there is a token.
struct Case {
    line: &'static str,
    stdin: &'static str,
    token: bool,
    sealed: bool,
}

fn case(line: &'static str) -> Case {
    Case { line, stdin: "", token: true, sealed: false }
}

fn run(case: &Case, token_file: &Path) -> String {
    let words: Vec<OsString> = case.line.split(' ').map(OsString::from).collect();
    let mut shown = format!("$ {}\n", case.line);
    let command = match crate::Cli::try_parse_from(normalise(words)) {
        Ok(crate::Cli { command: Command::Client(command) }) => command,
        Ok(_) => panic!("{}: no client command", case.line),
        Err(e) => return shown + &e.render().to_string() + "exit 64\n",
    };
    let style = command.common().0.style(&Environment::of([])).unwrap();
    let token = case.token.then(|| Token::parse("s.mine").unwrap());
    let vault = Fake { sealed: case.sealed, asked: Mutex::default() };
    let session = Session { vault, token, token_file: Some(token_file.to_owned()) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let done = runtime.block_on(perform(command, &session, &mut case.stdin.as_bytes())).and_then(|a| a.render(&style));
    session.vault.asked.lock().unwrap().iter().for_each(|line| shown += &format!("{line}\n"));
    let failure: Option<Failure> = match done {
        Ok((text, failure)) => {
            shown += &text;
            if !text.ends_with('\n') {
                shown += "(no line end)\n";
            }
            failure
        }
        Err(failure) => Some(failure),
    };
    match failure {
        None => shown + "exit 0\n",
        Some(f) => {
            let hint = f.hint.map_or_else(String::new, |h| format!(" hint: {h}\n"));
            shown + &format!("error: {}\n{hint}exit {}\n", f.fact, f.code as u8)
        }
    }
}

fn check(name: &str, cases: &[Case]) {
    let home = tempfile::tempdir().unwrap();
    let got: Vec<String> = cases.iter().map(|c| run(c, &home.path().join(".vault-token"))).collect();
    let got = got.join("\n");
    let file = golden().join(format!("{name}.txt"));
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        OsDisk.replace(&file, got.as_bytes(), 0o644, None).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(got, kept, "{name}: EDGEKEEP_BLESS=1 writes it anew");
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli")
}

#[test]
fn the_arguments_make_sense_to_clap() {
    crate::Cli::command().debug_assert();
}

#[test]
fn status_tells_the_state_by_its_exit_code() {
    let sealed = |line| Case { sealed: true, token: false, ..case(line) };
    check("status", &[case("edgekeep status"), sealed("edgekeep status"), sealed("edgekeep status -format=json")]);
}

#[test]
fn read_shows_a_table_json_or_one_field() {
    check(
        "read",
        &[
            case("edgekeep read secret/edgex/sensor/camera"),
            case("edgekeep read -format=json secret/edgex/sensor/camera"),
            case("edgekeep read -field=password secret/edgex/sensor/camera"),
            case("edgekeep read -field=none secret/edgex/sensor/camera"),
            case("edgekeep read secret/edgex/sensor/hostile"),
        ],
    );
}

#[test]
fn refusals_say_what_happened_and_what_to_do() {
    check(
        "refusals",
        &[
            case("edgekeep read secret/edgex/uploader/cloud"),
            Case { token: false, ..case("edgekeep read secret/edgex/uploader/cloud") },
            case("edgekeep read secret/edgex/sensor/none"),
            case("edgekeep read nosuch/x"),
            case("edgekeep read broken/x"),
            Case { sealed: true, ..case("edgekeep read secret/edgex/sensor/camera") },
            case("edgekeep read secret/../sys/policy"),
            case("edgekeep kv get other/x"),
            case("edgekeep write secret/edgex/sensor/camera"),
            case("edgekeep write secret/edgex/sensor/camera hunter2"),
            case("edgekeep token lookup s.somebodys"),
            case("edgekeep token revoke"),
            case("edgekeep policy write bad -"),
        ],
    );
}

#[test]
fn write_list_and_delete() {
    let stdin = |line, stdin| Case { stdin, ..case(line) };
    check(
        "write-list-delete",
        &[
            case("edgekeep write secret/edgex/sensor/camera user=admin"),
            stdin("edgekeep write secret/edgex/sensor/camera user=admin password=-", "p\"w"),
            stdin("edgekeep write secret/edgex/sensor/camera -", "{\"n\": 12345678901234567890123}"),
            case("edgekeep list secret/edgex/sensor"),
            case("edgekeep list --format json secret/edgex/sensor"),
            case("edgekeep delete secret/edgex/sensor/camera"),
        ],
    );
}

#[test]
fn kv_finds_the_version_of_the_mount() {
    check(
        "kv",
        &[
            case("edgekeep kv put secret/edgex/sensor/camera user=admin"),
            case("edgekeep kv get secret/edgex/sensor/camera"),
            case("edgekeep kv list secret/edgex/sensor"),
            case("edgekeep kv delete secret/edgex/sensor/camera"),
            case("edgekeep kv put kv/a x=1"),
            case("edgekeep kv get kv/a"),
            case("edgekeep kv get -field=x kv/a"),
            case("edgekeep kv get -format=json kv/a"),
        ],
    );
}

#[test]
fn token_and_policy() {
    check(
        "token-policy",
        &[
            case("edgekeep token lookup"),
            case("edgekeep token lookup -accessor acc"),
            case("edgekeep token create -policy=p -ttl=1h -orphan -metadata a=b"),
            case("edgekeep token create -field=token"),
            case("edgekeep token renew -increment=1h -format=json"),
            case("edgekeep token revoke -accessor=acc"),
            Case { stdin: "path \"a\" {}", ..case("edgekeep policy write p -") },
            case("edgekeep policy read p"),
            case("edgekeep policy list"),
            case("edgekeep policy delete p"),
        ],
    );
}

#[test]
fn login_keeps_the_token_for_its_owner_alone() {
    let stdin = |line, stdin| Case { stdin, token: false, ..case(line) };
    check(
        "login",
        &[
            stdin("edgekeep login", "s.mine\n"),
            stdin("edgekeep login -method=userpass username=tech password=-", "secret\n"),
            stdin("edgekeep login s.mine", ""),
            stdin("edgekeep login -method=userpass username=tech password=secret", ""),
            stdin("edgekeep login -method=oidc", ""),
        ],
    );
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".vault-token");
    run(&stdin("edgekeep login -method=userpass username=tech password=-", "secret"), &file);
    assert_eq!(&OsDisk.read(&file, 100).unwrap()[..], b"s.new");
    assert_eq!(OsDisk.meta(&file).unwrap().unwrap().mode, 0o600);
    let unkept = home.path().join("none");
    run(&stdin("edgekeep login -no-store", "s.mine"), &unkept);
    assert!(OsDisk.meta(&unkept).unwrap().is_none());
}

#[test]
fn flags_are_understood_in_vaults_notation() {
    let parsed = |line: &str| crate::Cli::try_parse_from(normalise(line.split(' ').map(OsString::from).collect()));
    for line in [
        "edgekeep --as sensor kv put secret/a b=c",
        "edgekeep -address=https://a:8200 -ca-cert=ca.pem read -field=x secret/a",
        "edgekeep kv get -as sensor secret/a",
        "edgekeep kv -format=json get secret/a",
        "edgekeep write -f auth/token/renew-self",
        "edgekeep status --danger-plain-http --address http://127.0.0.1:8200",
    ] {
        parsed(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    for line in [
        "edgekeep --as ../x status",
        "edgekeep --as sensor --address https://a status",
        "edgekeep read",
        "edgekeep kv put secret/a",
        "edgekeep read -format=xml a",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}
