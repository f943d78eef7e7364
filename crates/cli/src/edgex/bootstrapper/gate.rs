//! `gate`: the start port at once, the ready-to-run port while the database takes queries.
//!
//! ```text
//! start port open -> database asked -> takes queries: ready-to-run port open -> watched
//!                         ^---------- takes none any more: closed --------------'
//! ```

use std::cell::RefCell;
use std::time::Duration;

use boot::gate::{Database, NotReady, Pace, Standing, Watch, persist, until_lapsed};
use config::StageGates;

use super::listen::bind;
use super::signals::Signals;
use crate::failure::Failure;
use crate::output;

/// Runs until told to stop.
///
/// # Errors
/// If a port cannot be opened.
pub(super) async fn run(signals: &mut Signals, gates: &StageGates) -> Result<(), Failure> {
    signals.unless_told(serve(gates)).await.unwrap_or(Ok(()))
}

async fn serve(gates: &StageGates) -> Result<(), Failure> {
    let start = bind(&gates.host, gates.start_port).await?;
    let database = DatabaseGate::new(gates)?;
    let rounds = async {
        loop {
            let standing = database.until_ready().await;
            // The port lives no longer than the watch.
            let ready = bind(&gates.host, gates.to_run_port).await?;
            let seen = tokio::select! {
                () = ready.serve() => return Err(Failure::fault("the ready-to-run port closed by itself")),
                seen = database.until_lapsed(standing) => seen,
            };
            let seen = seen.as_ref().map_or_else(|| "no answer".to_owned(), |e| host::with_causes(e));
            output::error(&format!("closed: {} takes no queries any more: {seen}", database.name()));
        }
    };
    tokio::select! {
        () = start.serve() => Err(Failure::fault("the start port closed by itself")),
        ended = rounds => ended,
    }
}

struct DatabaseGate<'g> {
    gates: &'g StageGates,
    kind: Database,
    /// What was told last, so that a minute of waiting is one line.
    told: RefCell<String>,
}

impl<'g> DatabaseGate<'g> {
    fn new(gates: &'g StageGates) -> Result<Self, Failure> {
        let kind =
            Database::named(gates.database_type.as_deref(), gates.database_ready_port.get()).ok_or_else(|| {
                Failure::usage("StageGate.Database.Type is unknown").hint("write postgres, redis, or tcp for any other")
            })?;
        Ok(Self { gates, kind, told: RefCell::default() })
    }

    fn name(&self) -> String {
        format!("{}:{}", self.gates.database_host, self.gates.database_ready_port)
    }

    async fn ask(&self) -> Result<Standing, NotReady> {
        self.kind.accepts_queries(&self.gates.database_host, self.gates.database_ready_port.get()).await
    }

    async fn until_ready(&self) -> Standing {
        let pace = Pace { attempt: ATTEMPT, pause: PAUSE, total: None };
        let attempt = || async {
            let answer = self.ask().await;
            if let Err(e) = &answer {
                self.tell(host::with_causes(e));
            }
            answer
        };
        loop {
            // Without an end it does not give up.
            if let Ok(standing) = persist(pace, attempt).await {
                return standing;
            }
        }
    }

    async fn until_lapsed(&self, standing: Standing) -> Option<NotReady> {
        until_lapsed(WATCH, standing, || self.ask(), NotReady::is_certain).await
    }

    fn tell(&self, seen: String) {
        if self.told.replace(seen.clone()) != seen {
            output::error(&format!("waiting for {}: {seen}", self.name()));
        }
    }
}

/// EdgeX's own.
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// PostgreSQL starts a process for each question; a stop that closes its connections is seen at once.
const WATCH: Watch = Watch { attempt: ATTEMPT, pause: PAUSE, calm: Duration::from_secs(10) };
