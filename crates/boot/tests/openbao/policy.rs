//! docs/external-policy.hcl is enough, and no more: each of its capabilities is taken away in turn, and each time
//! something breaks.

use std::time::Duration;

use api::Operation;
use host::{Disk, OsDisk};
use serde_json::{Value, json};
use testkit::OpenBao;

use crate::device::{BOTH, Device, POLICY, let_in, open};

/// One path with its capabilities, as the file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    path: String,
    capabilities: Vec<String>,
}

fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in POLICY.lines() {
        let quoted: Vec<String> = line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        if line.starts_with("path ") {
            lines.push(Line { path: quoted[0].clone(), capabilities: Vec::new() });
        } else if line.trim_start().starts_with("capabilities") {
            lines.last_mut().unwrap().capabilities = quoted;
        }
    }
    lines
}

fn text(lines: &[Line]) -> String {
    let one = |l: &Line| format!("path {:?} {{\n  capabilities = {:?}\n}}\n", l.path, l.capabilities);
    lines.iter().map(one).collect()
}

/// Everything that a device does in its life: what did not go as it should, or nothing.
async fn life(bao: &OpenBao, policy: &str) -> Option<String> {
    let (role_id, secret_id) = let_in(bao, policy).await;
    let mut device = Device::of(bao, &role_id, &secret_id);
    let mut running = device.up().await;
    if open(&running) != BOTH {
        return Some(format!("the first start: {:?}", device.complaints()));
    }
    // A start that finds everything there writes nothing.
    drop(running);
    running = device.up().await;
    if open(&running) != BOTH || !device.complaints().is_empty() {
        return Some(format!("a start that finds all: {:?}", device.complaints()));
    }
    // The plan changes: policy, token and role of a service follow; a credential is copied to one that lost it.
    drop(running);
    let first = device.plan.services[0].clone();
    device.plan.services[0].token.period = api::Ttl::seconds(7200);
    device.plan.services[0].jwt.audience = "other".into();
    device.plan.services[0].policy.defaults = false;
    bao.as_root(Operation::Write, "secret/edgex/sensor/redisdb", json!({ "username": "u", "password": "p" })).await;
    bao.as_root(Operation::Write, "identity/entity/name/sensor", json!({ "policies": [] })).await;
    running = device.up().await;
    if open(&running) != BOTH || !device.complaints().is_empty() {
        return Some(format!("a start with a changed plan: {:?}", device.complaints()));
    }
    drop(running);
    device.plan.services[0] = first;
    running = device.up().await;
    // Time passes: all tokens are kept alive, ours as well.
    let kept = [device.token("sensor"), device.token("uploader")];
    for _ in 0..4 {
        device.after(&mut running, Duration::from_secs(1200)).await;
    }
    if open(&running) != BOTH || !device.complaints().is_empty() {
        return Some(format!("the passing of time: {:?}", device.complaints()));
    }
    if [device.token("sensor"), device.token("uploader")] != kept {
        return Some("a token was given up that was to be kept".into());
    }
    // Its file is lost: another is issued, and the lost one ends.
    OsDisk.remove_tree(&running.token_directory(&"uploader".parse().unwrap())).unwrap();
    device.after(&mut running, Duration::from_secs(1)).await;
    if bao.knows(&kept[1]).await {
        return Some("the lost token lives".into());
    }
    // The next boot.
    running.shutdown().await;
    device.clock.reboot();
    running = device.up().await;
    if open(&running) != BOTH || bao.knows(&kept[0]).await {
        return Some(format!("the next boot: {:?}", device.complaints()));
    }
    running.shutdown().await;
    // A token in a file in place of the role.
    device.comes_by(&token(bao).await);
    running = device.up().await;
    device.after(&mut running, Duration::from_secs(1200)).await;
    if open(&running) != BOTH || !device.complaints().is_empty() {
        return Some(format!("a token in a file: {:?}", device.complaints()));
    }
    None
}

/// A token that may do what the role's tokens may.
async fn token(bao: &OpenBao) -> String {
    let body = json!({ "policies": ["edgekeep"], "no_default_policy": true, "no_parent": true, "period": "1h" });
    let made = bao.as_root(Operation::Write, "auth/token/create", body).await;
    made["client_token"].as_str().unwrap().to_owned()
}

/// A store in which nobody has been: all that [`life`] makes is taken away again.
async fn clean(bao: &OpenBao) {
    for mount in ["sys/mounts/secret", "sys/auth/userpass"] {
        bao.as_root(Operation::Delete, mount, Value::Null).await;
    }
    for service in ["sensor", "uploader"] {
        for path in ["sys/policies/acl/edgex-service-", "identity/entity/name/", "identity/oidc/role/"] {
            bao.as_root(Operation::Delete, &format!("{path}{service}"), Value::Null).await;
        }
    }
    bao.as_root(Operation::Delete, "identity/oidc/key/edgex-identity", Value::Null).await;
}

#[tokio::test]
async fn the_written_policy_is_enough_and_each_of_its_words_is_needed() {
    if testkit::is_skipped("clients") {
        return;
    }
    let mut bao = OpenBao::start();
    bao.make().await;
    let lines = lines();
    assert!(lines.len() > 10 && lines.iter().all(|l| !l.capabilities.is_empty()), "{lines:?}");

    assert_eq!(life(&bao, POLICY).await, None, "as it is written it is enough");
    clean(&bao).await;
    let mut needless = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        for capability in &line.capabilities {
            let mut less = lines.clone();
            less[at].capabilities.retain(|c| c != capability);
            if less[at].capabilities.is_empty() {
                less.remove(at);
            }
            match life(&bao, &text(&less)).await {
                Some(broken) => println!("{} without {capability}: {broken}", line.path),
                None => needless.push(format!("{} {capability}", line.path)),
            }
            clean(&bao).await;
        }
    }
    assert_eq!(needless, [""; 0], "without these nothing breaks");
}
