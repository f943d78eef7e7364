//! What the boot did, kept while it goes on and told in one screen when it is there.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use boot::driver::{Note, Observer};
use boot::plan::{GateName, Plan, Profile, ServiceName};
use seal::RecoveryKey;

use crate::process::Memory;

/// The notes so far. Shared, as the driver tells and the command reads.
#[derive(Clone, Default)]
pub(super) struct Story(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// Whether a store was made by this boot.
    made: bool,
    recovery: Option<PathBuf>,
    tokens: Vec<(ServiceName, PathBuf)>,
    gates: Vec<(GateName, u64)>,
    warnings: Vec<String>,
    /// Once the screen was shown, what comes later is told line by line.
    shown: bool,
}

/// The end of the driver's line.
pub(super) struct Listener(Story);

impl Story {
    pub(super) fn listener(&self) -> Listener {
        Listener(self.clone())
    }

    /// Something to be told with the rest.
    pub(super) fn warn(&self, text: &str) {
        self.told(|t| t.warnings.push(text.to_owned()));
    }

    /// The gates that are open, by name.
    pub(super) fn open_gates(&self) -> Vec<String> {
        self.told(|t| t.gates.iter().map(|(name, _)| name.to_string()).collect())
    }

    /// The screen; from now on everything else is a line of the log.
    pub(super) fn tell(&self, plan: &Plan, address: Option<&str>, memory: Memory, program: &str) -> String {
        self.told(|told| {
            told.shown = true;
            screen(told, plan, address, memory, program)
        })
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Listener {
    fn note(&mut self, note: Note) {
        self.0.told(|told| match note {
            Note::Phase { name, at_ms } => {
                told.made |= name == "made";
                tracing::debug!(phase = name, at_ms, "boot");
            }
            Note::RecoveryAt(path) => told.recovery = Some(path),
            Note::Token { service, place, issued } => {
                tracing::debug!(service = %service, place = %place.display(), issued, "token");
                told.tokens.retain(|(name, _)| *name != service);
                told.tokens.push((service, place));
            }
            Note::GateOpen { gate, at_ms } => {
                if told.shown {
                    tracing::info!(gate = %gate, "gate open");
                }
                told.gates.push((gate, at_ms));
            }
            Note::GateShut { gate } => {
                tracing::warn!(gate = %gate, "gate shut");
                told.gates.retain(|(name, _)| *name != gate);
            }
            // The driver has written these to the log itself.
            Note::Warning(_) | Note::Alarm(_) | Note::Halted(_) => {}
        });
    }

    fn show_recovery_key(&mut self, key: &RecoveryKey) -> std::io::Result<()> {
        crate::output::show_recovery_key(&key.format())
    }
}

/// At most 25 lines for the demo: what was made, where each token is, which gates are open, what is lacking, what to
/// try.
fn screen(told: &Told, plan: &Plan, address: Option<&str>, memory: Memory, program: &str) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "  {name:<9} {text}");
    };
    let verb = if told.made { "made" } else { "opened" };
    match plan.store.external() {
        None => {
            line(
                verb,
                format!("the store in {}: key slots, secrets, audit ring, device CA", plan.state_dir().display()),
            );
        }
        Some(store) => {
            if store.is_kept() {
                line(verb, format!("the key shares in {}", plan.state_dir().display()));
            }
            line("store", format!("{}, CA {}", store.address(), plan.run_dir.join("ca.pem").display()));
        }
    }
    if let Some(path) = &told.recovery {
        line("recovery", path.display().to_string());
    }
    if let Some(address) = address {
        line("listens", format!("{address}, CA {}", plan.run_dir.join("ca.pem").display()));
    }
    let mut tokens = told.tokens.clone();
    tokens.sort();
    for (service, place) in tokens.iter().take(MAX_TOKENS) {
        line("token", format!("{service:<9} {}", place.display()));
    }
    if tokens.len() > MAX_TOKENS {
        line("", format!("and {} more in {}", tokens.len() - MAX_TOKENS, plan.run_dir.join("secrets").display()));
    }
    for gate in &plan.gates {
        match told.gates.iter().find(|(name, _)| *name == gate.name) {
            Some((name, at_ms)) => line("gate", format!("{name} is open after {at_ms} ms")),
            None => line("gate", format!("{} is shut", gate.name)),
        }
    }
    for warning in &told.warnings {
        line("warning", warning.clone());
    }
    let mut lacking = crate::lacking::of_plan(plan);
    lacking.extend(memory.lacking());
    let _ = writeln!(out, "protection that is lacking:");
    for l in &lacking {
        let _ = writeln!(out, "  - {l}");
    }
    let mut head = format!("edgekeep {} ({})\n", env!("CARGO_PKG_VERSION"), plan.profile.as_str());
    head.push_str(&out);
    if plan.profile == Profile::Demo {
        let _ = writeln!(head, "try in a second terminal:");
        let _ = writeln!(head, "  {program} --as sensor kv put secret/edgex/sensor/wifi ssid=lab    # works");
        let _ = writeln!(
            head,
            "  {program} --as uploader kv get secret/edgex/sensor/wifi           # refused: not its own"
        );
    }
    head
}

const MAX_TOKENS: usize = 40;

#[cfg(test)]
mod tests {
    use secret::Protection;

    use super::*;
    use std::path::Path;

    fn demo() -> Plan {
        config::demo(&config::Demo { data_dir: Path::new("/d"), run_dir: Path::new("/run/edgekeep"), listen: None })
            .unwrap()
    }

    fn notes(story: &Story) {
        let mut listener = story.listener();
        listener.note(Note::Phase { name: "made", at_ms: 60 });
        for name in ["uploader", "sensor"] {
            let place = PathBuf::from(format!("/run/edgekeep/secrets/{name}/secrets-token.json"));
            listener.note(Note::Token { service: name.parse().unwrap(), place, issued: true });
        }
        for gate in ["tokens-ready", "ready-to-run"] {
            listener.note(Note::GateOpen { gate: gate.parse().unwrap(), at_ms: 118 });
        }
    }

    #[test]
    fn the_demo_fits_a_screen() {
        let story = Story::default();
        notes(&story);
        let text = story.tell(
            &demo(),
            Some("https://127.0.0.1:8200"),
            Memory { keys: Protection::Swappable, locked: false },
            "edgekeep",
        );
        assert!(text.lines().count() <= 25, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "plain: no escapes");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/up-demo.txt");
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            host::Disk::replace(&host::OsDisk, &golden, text.as_bytes(), 0o644, None).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn a_gate_that_is_shut_is_said_to_be_shut() {
        let story = Story::default();
        notes(&story);
        story.listener().note(Note::GateShut { gate: "ready-to-run".parse().unwrap() });
        let text = story.tell(&demo(), None, Memory { keys: Protection::Secret, locked: true }, "edgekeep");
        assert!(text.contains("ready-to-run is shut") && !text.contains("ready-to-run is open"), "{text}");
        assert_eq!(story.open_gates(), ["tokens-ready"]);
    }
}
