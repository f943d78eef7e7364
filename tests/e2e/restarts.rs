//! What a service sees of an edgekeep that dies, and of a device that boots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use api::{ApiPath, Operation, Payload, Request};
use client::{Deadlines, HttpsVault, Trust, Vault};
use secret::Token;

use crate::device::Device;
use crate::part;

/// What one client saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    since_last_start: AtomicU64,
    refused: AtomicU64,
}

/// 18 clients poll with the token that they read once, while edgekeep is killed 50 times: no refusal, nothing to read
/// again.
#[test]
fn no_client_notices_fifty_kills() {
    let mut device = Device::edgex();
    device.up();
    let before = files(&device);
    assert_eq!(before.len(), 36, "18 tokens, each with its CA");
    let services: Vec<String> = std::fs::read_dir(device.secrets_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for service in &services {
        let output = device.as_service(service, &["kv", "put", &format!("secret/edgex/{service}/poll"), "n=1"]);
        assert!(output.status.success(), "{output:?}");
        let trust = Trust::of_pem(&std::fs::read(device.ca(service)).unwrap()).unwrap();
        let vault = HttpsVault::new(&device.ip, 8200, &trust, Deadlines::default()).unwrap();
        let (token, path) = (device.token(service), format!("secret/edgex/{service}/poll"));
        let (seen, over) = (Arc::new(Seen::default()), Arc::clone(&over));
        clients.push(Arc::clone(&seen));
        runtime.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let request = Request::new(Operation::Read, ApiPath::parse(&path).unwrap())
                    .with_token(Token::parse(&token).unwrap());
                match vault.call(request).await {
                    Ok(reply) if reply.status.0 == 200 => {
                        seen.answered.fetch_add(1, Ordering::Relaxed);
                        seen.since_last_start.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(reply) if reply.status.0 == 503 => {}
                    Ok(_) => drop(seen.refused.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => {}
                }
                // The pace of a client that polls, not a wait for an event.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    for round in 0..50 {
        for client in &clients {
            client.since_last_start.store(0, Ordering::Relaxed);
        }
        device.kill();
        device.up();
        let served = || {
            assert!(clients.iter().all(|c| c.refused.load(Ordering::Relaxed) == 0), "refused in round {round}");
            clients.iter().all(|c| c.since_last_start.load(Ordering::Relaxed) > 0)
        };
        part::until(served, || format!("a client has no answer in round {round}"));
    }
    over.store(true, Ordering::Relaxed);
    runtime.shutdown_timeout(Duration::from_secs(5));
    for (client, service) in clients.iter().zip(&services) {
        assert_eq!(client.refused.load(Ordering::Relaxed), 0, "{service}");
        assert!(client.answered.load(Ordering::Relaxed) >= 50, "{service}");
    }
    assert_eq!(files(&device), before, "no file had to be read again");
}

/// Another boot of the kernel (its id is bind-mounted over): every older token is refused at its first request.
#[test]
fn a_new_boot_refuses_every_older_token() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let mut device = Device::edgex();
    device.up();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let old = tokens(&device);
    let name = cluster_id(&device, &runtime);
    assert_eq!(name.len(), 36, "{name}");
    assert_eq!(device.stop(), Some(0));

    device.reboot();
    device.up();
    let new = tokens(&device);
    assert_eq!(cluster_id(&device, &runtime), name, "the same store, as clients know it");
    for (service, token) in &old {
        let trust = Trust::of_pem(&std::fs::read(device.ca(service)).unwrap()).unwrap();
        let vault = HttpsVault::new(&device.ip, 8200, &trust, Deadlines::default()).unwrap();
        let status = |token: &str| {
            let path = ApiPath::parse("auth/token/lookup-self").unwrap();
            let request = Request::new(Operation::Read, path).with_token(Token::parse(token).unwrap());
            runtime.block_on(vault.call(request)).unwrap().status.0
        };
        assert_ne!(new[service], *token);
        assert_eq!(status(token), 403, "{service}: the token of the boot before");
        assert_eq!(status(&new[service]), 200, "{service}: the token of this boot");
    }
}

/// By which clients tell one store from another.
fn cluster_id(device: &Device, runtime: &tokio::runtime::Runtime) -> String {
    let service = tokens(device).into_keys().next().unwrap();
    let trust = Trust::of_pem(&std::fs::read(device.ca(&service)).unwrap()).unwrap();
    let vault = HttpsVault::new(&device.ip, 8200, &trust, Deadlines::default()).unwrap();
    let request = Request::new(Operation::Read, ApiPath::parse("sys/health").unwrap());
    let Payload::Raw { bytes, .. } = runtime.block_on(vault.call(request)).unwrap().payload else {
        panic!("no envelope")
    };
    let health: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    health["cluster_id"].as_str().unwrap().to_owned()
}

fn tokens(device: &Device) -> BTreeMap<String, String> {
    std::fs::read_dir(device.secrets_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .map(|service| (service.clone(), device.token(&service)))
        .collect()
}

/// Every delivered file with its content.
fn files(device: &Device) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for service in std::fs::read_dir(device.secrets_dir()).unwrap() {
        let service = service.unwrap().path();
        for file in std::fs::read_dir(&service).unwrap() {
            let file = file.unwrap().path();
            files.insert(file.display().to_string(), std::fs::read(&file).unwrap());
        }
    }
    files
}
