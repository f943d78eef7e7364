//! The executable beside a real OpenBao: as its guest, and as its owner.

#![allow(clippy::disallowed_methods)] // what is measured here is measured by a clock of the test's own

use std::path::Path;
use std::time::{Duration, Instant};

use api::Operation;
use serde_json::{Value, json};
use testkit::OpenBao;

use crate::device::Device;
use crate::part;
use crate::wire::Wire;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn store_at(bao: &OpenBao, terms: &str) -> String {
    store_by(&bao.url(), bao, terms)
}

/// The same, reached by another way.
fn store_by(url: &str, bao: &OpenBao, terms: &str) -> String {
    format!("[store]\nexternal = {url:?}\nca = {:?}\n{terms}\n", bao.ca_file())
}

const SERVICES: &str = "[[service]]\nname = \"sensor\"\n[[service]]\nname = \"uploader\"\n\
    [[credential]]\nkind = \"redisdb\"\nservices = [\"sensor\"]\n";

/// A token under the documented policy, as the store's operator makes it.
fn token_file(runtime: &tokio::runtime::Runtime, bao: &OpenBao, dir: &Path) -> String {
    let policy = include_str!("../../docs/external-policy.hcl");
    let token = runtime.block_on(async {
        bao.as_root(Operation::Write, "sys/policies/acl/edgekeep", json!({ "policy": policy })).await;
        let body = json!({ "policies": ["edgekeep"], "no_default_policy": true, "no_parent": true, "period": "1h" });
        bao.as_root(Operation::Write, "auth/token/create", body).await
    });
    let file = dir.join("store-token");
    host::Disk::write_new(&host::OsDisk, &file, token["client_token"].as_str().unwrap().as_bytes(), 0o600, None)
        .unwrap();
    format!("token_file = {file:?}")
}

#[test]
fn a_guest_opens_its_gates_and_shuts_them_while_the_store_is_sealed() {
    if testkit::is_skipped("clients") {
        return;
    }
    let runtime = runtime();
    let mut bao = OpenBao::start();
    runtime.block_on(bao.make());
    let dir = tempfile::tempdir().unwrap();
    let terms = token_file(&runtime, &bao, dir.path());
    let mut device = Device::elsewhere(&(store_at(&bao, &terms) + SERVICES));

    let check = device.plan();
    for said in [&bao.url(), "somebody else makes and unseals it", "store-token", "receipts", "the gates"] {
        assert!(check.contains(said), "{said}: {check}");
    }
    for absent in ["store.db", "key source", "recovery key", "the API, for services"] {
        assert!(!check.contains(absent), "{absent}: {check}");
    }

    device.up();
    let put = device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/wifi", "ssid=lab"]);
    assert!(put.status.success(), "our own client finds the store: {put:?}");
    assert_eq!(device.field("sensor", "secret/edgex/sensor/wifi", "ssid"), "lab");
    assert_eq!(device.field("sensor", "secret/edgex/sensor/redisdb", "username"), "default");
    let refused = device.as_service("uploader", &["kv", "get", "secret/edgex/sensor/wifi"]);
    assert!(!refused.status.success(), "{refused:?}");

    runtime.block_on(bao.as_root(Operation::Write, "sys/seal", Value::Null));
    device.until_gate("ready-to-run", false);
    runtime.block_on(bao.unseal());
    device.until_gate("ready-to-run", true);
    assert_eq!(device.stop(), Some(0));
}

/// The store is killed and started again, five times; each time it is unsealed, and nobody has to read anything again.
/// Printed: how long it was sealed after its first answer.
#[test]
fn an_owner_unseals_a_store_that_is_killed() {
    if testkit::is_skipped("clients") {
        return;
    }
    let runtime = runtime();
    let mut bao = OpenBao::start();
    let mut device = Device::keeping(&(store_at(&bao, "owned = true") + SERVICES));
    device.up();
    let token = device.token("sensor");
    let mut sealed_for = Vec::new();
    for _ in 0..5 {
        bao.kill();
        device.until_gate("ready-to-run", false);
        bao.start_again();
        sealed_for.push(runtime.block_on(sealed_after_the_first_answer(&bao)));
        device.until_gate("ready-to-run", true);
        assert_eq!(device.token("sensor"), token);
        assert!(runtime.block_on(bao.knows(&token)));
    }
    sealed_for.sort();
    println!("sealed after the first answer: median {:?}, all {sealed_for:?}", sealed_for[2]);
    assert!(sealed_for[2] < Duration::from_millis(100) || !testkit::are_figures_held(), "{sealed_for:?}");

    let kept = device.run_dir().join("store-token");
    assert!(kept.exists());
    let sealed = device.admin(&["seal"]);
    let said = String::from_utf8(sealed.stdout).unwrap();
    assert!(sealed.status.success() && said.starts_with("the gates are shut: "), "{said}");
    assert!(said.contains("stays open: seal it there") && !said.contains("gone from memory"), "{said}");
    assert!(!kept.exists(), "nothing that enters the store is left");
    device.until_gate("ready-to-run", false);
    assert!(runtime.block_on(bao.knows(&token)), "the store is open, as was said");
    let doctor = String::from_utf8(device.admin(&["doctor"]).stdout).unwrap();
    assert!(doctor.starts_with("edgekeep is shut ") && doctor.contains("stays open"), "{doctor}");
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert!(kept.exists(), "the shares open the way again");
    assert_eq!(device.stop(), Some(0));
}

/// OpenBao elects itself for a second in the middle of its `sys/init`, and gives its key shares only to whoever asked.
/// `up` is killed while the answer is on its way: the process that asked goes on, and the next start waits for what it
/// keeps.
#[test]
fn a_start_that_is_killed_while_the_store_makes_itself_loses_no_share() {
    if testkit::is_skipped("clients") {
        return;
    }
    let runtime = runtime();
    let bao = OpenBao::start();
    let (electing, log) = ("entering follower state", bao.log_file());
    let is_electing = move || std::fs::read_to_string(&log).is_ok_and(|said| said.contains(electing));
    let wire = Wire::to(bao.address(), is_electing);
    let mut device = Device::keeping(&(store_by(&wire.url(), &bao, "owned = true") + SERVICES));
    device.start();
    bao.until_it_says(electing);
    device.kill();
    let kept = device.data_dir().join("data/resp-init.json");
    assert!(!kept.exists(), "nobody has had a share until now");
    assert!(is_being_made(&device), "it went with `up`");
    wire.lets_go();
    device.up();
    assert!(kept.exists());
    // It has kept what was waited for, and has only to end.
    part::until(|| !is_being_made(&device), || device.said());
    let token = device.token("sensor");
    assert!(runtime.block_on(bao.knows(&token)));
    assert_eq!(device.stop(), Some(0));
}

/// Whether a process makes the store of this device.
fn is_being_made(device: &Device) -> bool {
    let config = device.config();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        words.nth(1) == Some(b"make-store") && words.any(|word| word == config.as_os_str().as_encoded_bytes())
    })
}

async fn sealed_after_the_first_answer(bao: &OpenBao) -> Duration {
    let began = Instant::now();
    let mut first = None;
    let vault = bao.vault();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", bao.said());
        let request = api::Request::new(Operation::Read, api::ApiPath::parse("sys/seal-status").unwrap());
        if let Ok(reply) = client::Vault::call(&vault, request).await {
            let first = *first.get_or_insert_with(Instant::now);
            let status: Value =
                client::text_of(&reply).and_then(|t| serde_json::from_slice(t).ok()).unwrap_or_default();
            if status["sealed"] == json!(false) {
                return first.elapsed();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a name leads to is not what is believed: at the address stands a store that does everything right, and cannot
/// show the pinned CA.
#[test]
fn a_store_that_cannot_show_the_pinned_ca_gets_nothing() {
    if testkit::is_skipped("clients") {
        return;
    }
    let runtime = runtime();
    let mut other = OpenBao::start();
    runtime.block_on(other.make());
    let pinned = OpenBao::start();
    let dir = tempfile::tempdir().unwrap();
    let terms = token_file(&runtime, &other, dir.path());
    let store = format!("[store]\nexternal = \"{}\"\nca = {:?}\n{terms}\n", other.url(), pinned.ca_file());
    let mut device = Device::elsewhere(&(store + SERVICES));
    let said = device.up_until_it_says(|line| line.starts_with("edgekeep waits for the store at"));
    assert!(said.contains("nothing is sent to") && said.contains("is not the store"), "{said}");
    let (code, said) = device.wait(&["--gate", "ready-to-run", "--timeout", "0"]);
    assert_eq!(code, Some(2), "{said}");
    let mounts = runtime.block_on(other.as_root(Operation::Read, "sys/mounts", Value::Null));
    assert!(mounts.get("secret/").is_none(), "nothing was made there");
}
