//! Thirty days of a device with twenty services, by a clock that is held: no service that runs holds a dead token,
//! whatever becomes of edgekeep meanwhile.

use api::Ttl;

use super::*;
use crate::plan::ServicePlan;

const SERVICES: usize = 20;
/// Switched off from hour 100 to hour 300.
const LATE: usize = 12;
/// Its token has an hour.
const PERIODS: [u64; 4] = [1, 4, 12, 24];

/// As EdgeX's services do it: each reads its file when it starts, and never again.
struct Clients {
    names: Vec<String>,
    held: Vec<Option<Token>>,
}

impl Clients {
    fn start(&mut self, device: &Device, one: usize) {
        self.held[one] = Some(device.token(&self.names[one]));
    }

    /// A dead token never lives again: one that lives now has lived at every moment since it was read.
    async fn all_live(&self, running: &Running, when: &str) {
        for (name, token) in self.names.iter().zip(&self.held) {
            if let Some(token) = token {
                assert!(lives(running, token).await, "{name} holds a dead token {when}");
            }
        }
    }
}

fn device() -> (Device, Clients) {
    let mut device = Device::new();
    let names: Vec<String> = (0..SERVICES).map(|n| format!("service-{n:02}")).collect();
    let service = |(n, name): (usize, &String)| {
        let mut service = ServicePlan::usual(name.parse().unwrap());
        service.token.period = Ttl::seconds(3600 * PERIODS[n % 4]);
        service
    };
    device.plan.services = names.iter().enumerate().map(service).collect();
    device.plan.credentials = Vec::new();
    let held = names.iter().map(|_| None).collect();
    (device, Clients { names, held })
}

/// Tokens are looked at each hour, before edgekeep has had its turn: the worst moment.
#[tokio::test]
async fn no_service_holds_a_dead_token_in_thirty_days() {
    let (mut device, mut clients) = device();
    let mut running = device.up().await;
    (0..SERVICES).for_each(|n| clients.start(&device, n));
    let directory = running.token_directory(&clients.names[LATE].parse().unwrap());
    for hour in 0..30 * 24 {
        for _ in 0..2 {
            device.clock.advance(Duration::from_secs(30 * 60));
            if device.clock.boottime().0 / 60_000 % 60 < 30 {
                clients.all_live(&running, &format!("in hour {hour}")).await;
            }
            running.tick().await;
            assert_eq!(open(&running), BOTH, "in hour {hour}");
        }
        match hour {
            100 => clients.held[LATE] = None,
            // Somebody tidies up while it is off.
            200 => OsDisk.remove_tree(&directory).unwrap(),
            // And again, in the very second in which it starts.
            300 => {
                OsDisk.remove_tree(&directory).unwrap();
                device.clock.advance(Duration::from_secs(1));
                running.tick().await;
                clients.start(&device, LATE);
                clients.all_live(&running, "a second after the late one's start").await;
            }
            // A crash, and a restart at once.
            400 => {
                drop(running);
                running = device.up().await;
                assert_eq!(device.ears.heard(|n| matches!(n, Note::Token { issued: true, .. })), 0);
            }
            // A seal, and a person who unseals before the shortest tokens' hour is over.
            500 => {
                running.seal().await;
                device.clock.advance(Duration::from_secs(50 * 60));
                running.unseal().await;
            }
            // Another boot of the kernel: services start anew too.
            600 => {
                running.shutdown().await;
                OsDisk.remove_tree(&device.plan.run_dir).unwrap();
                device.clock.reboot();
                running = device.up().await;
                (0..SERVICES).for_each(|n| clients.start(&device, n));
            }
            _ => {}
        }
    }
}
