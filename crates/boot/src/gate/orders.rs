//! Twenty services, a database and edgekeep itself start in 200 orders, and some are killed half-way: nobody is let go
//! before what it waits for is there, and the end is always the same. The gates are the real ones, on real sockets;
//! time is not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use host::{BootId, OsDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Board, Database, Evidence, Facts, GateSocket, Hints, Pace, Trust, persist, wait_for};
use crate::plan::{GateName, GatePlan, Need, Plan, ServiceName, ServicePlan};
use crate::testing::demo_plan;

const SERVICES: u8 = 20;
const BOOT: BootId = BootId([9; 16]);
const TOKENS: &str = "tokens-ready";
const READY: &str = "ready-to-run";

/// What is true, whatever anybody believes.
#[derive(Default)]
struct Truth {
    /// Gone when edgekeep is killed.
    unsealed: bool,
    /// Durable from the moment that they are here.
    tokens: BTreeSet<ServiceName>,
    credentials: bool,
    /// Whether the database takes queries.
    queries: bool,
    /// Whether a gate was opened: from then on edgekeep is left alone.
    opened: bool,
    started: BTreeSet<u8>,
}

struct Device {
    plan: Plan,
    socket: PathBuf,
    database: SocketAddr,
    truth: Mutex<Truth>,
}

impl Device {
    fn new(dir: &std::path::Path) -> Self {
        let ip = testkit::loopback();
        let at = |port: u16| SocketAddr::from((ip, port));
        let gate = |name: &str, needs, port| GatePlan {
            name: name.parse().unwrap(),
            needs,
            deadline: None,
            hint: Some(at(port)),
        };
        let database = at(5432);
        let probe = Need::Probe(format!("tcp:{database}").parse().unwrap());
        let mut plan = demo_plan(dir, dir);
        plan.services = (0..SERVICES).map(|n| ServicePlan::usual(format!("service-{n}").parse().unwrap())).collect();
        plan.gates = vec![
            gate(TOKENS, vec![Need::AllServices, Need::AllCredentials], 54322),
            gate(READY, vec![Need::Gate(TOKENS.parse().unwrap()), probe], 54329),
        ];
        Self { plan, socket: dir.join("gate.sock"), database, truth: Mutex::default() }
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    fn hint(&self, gate: &str) -> SocketAddr {
        self.plan.gates.iter().find(|g| g.name.as_str() == gate).unwrap().hint.unwrap()
    }

    /// What whoever was let go at this gate relies on.
    fn rely_on(&self, gate: &str, who: &str) {
        let truth = self.truth();
        assert!(truth.unsealed && truth.credentials, "{who} ran ahead of the store");
        assert_eq!(truth.tokens.len(), usize::from(SERVICES), "{who} ran ahead of a token");
        assert!(gate == TOKENS || truth.queries, "{who} ran ahead of the database");
    }

    /// Waits by the evidence at the socket.
    async fn wait_by_evidence(&self, gate: &str) {
        let trust = Trust { boot: BOOT, uid: rustix::process::geteuid().as_raw(), ca: Some([1; 32]) };
        let gate: GateName = gate.parse().unwrap();
        wait_for(&self.socket, &gate, &trust, Duration::from_secs(3600)).await.unwrap();
    }

    /// Waits by the port, as EdgeX's `waitFor`.
    async fn wait_by_port(&self, gate: &str) {
        persist(PACE, || TcpStream::connect(self.hint(gate))).await.unwrap();
    }
}

/// edgekeep: what it finds done it does not do again.
async fn keeper(device: Arc<Device>, mut dice: Dice) {
    let (send, receive) = watch::channel(Board::shut(&device.plan, BOOT));
    let mut tasks = JoinSet::new();
    let us = rustix::process::geteuid().as_raw();
    tasks.spawn(GateSocket::bind(&OsDisk, &device.socket, us).unwrap().serve(receive));
    let (mut hints, mut probes) = (Hints::new(&device.plan), BTreeSet::new());
    dice.rest(20).await;
    device.truth().unsealed = true;
    loop {
        let facts = {
            let truth = device.truth();
            Facts {
                store: true,
                services: truth.tokens.clone(),
                credentials: truth.credentials,
                probes: probes.clone(),
            }
        };
        let open = facts.open(&device.plan);
        device.truth().opened |= !open.is_empty();
        send.send_modify(|board| board.set(&open, Evidence { ca: [1; 32], receipts: [2; 32] }));
        let board = send.borrow().clone();
        assert!(hints.follow(&board).await.is_empty(), "a port is taken");
        dice.rest(4).await;
        let next = device.plan.services.iter().find(|s| !facts.services.contains(&s.name));
        if let Some(service) = next {
            device.truth().tokens.insert(service.name.clone());
        } else if !facts.credentials {
            device.truth().credentials = true;
        } else if probes.is_empty() {
            let (host, port) = (device.database.ip().to_string(), device.database.port());
            persist(PACE, || Database::Postgres.accepts_queries(&host, port)).await.unwrap();
            probes.insert((READY.parse().unwrap(), 1));
        } else {
            std::future::pending::<()>().await;
        }
    }
}

/// PostgreSQL, as a dialler sees it: a port that says "starting up" for a while.
async fn database(device: Arc<Device>, mut dice: Dice) {
    device.wait_by_evidence(TOKENS).await;
    device.rely_on(TOKENS, "the database");
    dice.rest(10).await;
    let listener = TcpListener::bind(device.database).await.unwrap();
    let recovery = tokio::spawn({
        let device = Arc::clone(&device);
        async move {
            dice.rest(60).await;
            device.truth().queries = true;
        }
    });
    let _ended_with_us = AbortOnDrop(recovery);
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _asked = stream.read(&mut [0; 64]).await;
        let code = if device.truth().queries { "28000" } else { "57P03" };
        let fields = format!("SFATAL\0C{code}\0\0");
        let mut answer = vec![b'E', 0, 0, 0, u8::try_from(fields.len() + 4).unwrap()];
        answer.extend_from_slice(fields.as_bytes());
        stream.write_all(&answer).await.ok();
    }
}

async fn service(device: Arc<Device>, n: u8) {
    // A third needs no database.
    let gate = if n.is_multiple_of(3) { TOKENS } else { READY };
    if n.is_multiple_of(4) {
        device.wait_by_evidence(gate).await
    } else {
        device.wait_by_port(gate).await
    }
    device.rely_on(gate, &format!("service-{n}"));
    device.truth().started.insert(n);
}

/// Starts after a while, and as often as the dice say is killed in the middle and started again; `spared` tells when no
/// more.
async fn life<F: Future<Output = ()>>(
    mut dice: Dice,
    start: impl Fn(Dice) -> F,
    spared: impl Fn() -> bool,
    buried: impl Fn(),
) {
    dice.rest(60).await;
    for _ in 0..dice.below(4) {
        let mut work = Box::pin(start(dice.fork()));
        let kill = Duration::from_millis(dice.below(60_000));
        if timeout(kill, &mut work).await.is_ok() {
            return;
        }
        if spared() {
            return work.await;
        }
        drop(work);
        buried();
        dice.rest(60).await;
    }
    start(dice.fork()).await;
}

async fn one_order(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(Device::new(dir.path()));
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut others = JoinSet::new();
    others.spawn({
        let (d, e, f) = (Arc::clone(&device), Arc::clone(&device), Arc::clone(&device));
        life(
            dice.fork(),
            move |dice| keeper(Arc::clone(&d), dice),
            move || e.truth().opened,
            move || f.truth().unsealed = false,
        )
    });
    others.spawn({
        let (d, e) = (Arc::clone(&device), Arc::clone(&device));
        life(dice.fork(), move |dice| database(Arc::clone(&d), dice), move || e.truth().queries, || {})
    });
    let mut services = JoinSet::new();
    for n in 0..SERVICES {
        let d = Arc::clone(&device);
        services.spawn(life(dice.fork(), move |_| service(Arc::clone(&d), n), || false, || {}));
    }
    let all = async {
        loop {
            tokio::select! {
                ended = services.join_next() => match ended {
                    Some(service) => service.unwrap(),
                    None => return,
                },
                Some(failed) = others.join_next() => failed.unwrap(),
            }
        }
    };
    timeout(Duration::from_secs(3 * 3600), all).await.unwrap_or_else(|_| panic!("order {seed} never ends"));
    assert_eq!(device.truth().started, (0..SERVICES).collect(), "order {seed}");
}

#[tokio::test(start_paused = true)]
async fn nobody_runs_ahead_of_a_gate_in_200_orders() {
    for seed in 0..200 {
        one_order(seed).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Numbers that are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }

    fn fork(&mut self) -> Self {
        Self(self.below(u64::from(u32::MAX)) * 2 + 1)
    }

    async fn rest(&mut self, most_seconds: u64) {
        sleep(Duration::from_millis(self.below(most_seconds * 1000))).await;
    }
}

const PACE: Pace = Pace { attempt: Duration::from_secs(5), pause: Duration::from_secs(1), total: None };
