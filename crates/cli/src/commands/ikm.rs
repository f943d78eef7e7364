//! `edgekeep ikm`: a key source as EdgeX's hook, and as a thing to be looked at.
//!
//! ```text
//! provision --as-hook   source -> hook file          what the hook will print is its own, no slot's
//! tpm, tang ...         hook file -> source -> one line of hexadecimal digits, never to a terminal
//!                       asked by EDGEKEEP_IKM_ASK=status: what is left in this boot, which spends nothing
//! ```
//! EdgeX runs a hook without arguments: called `edgekeep-ikm`, this executable takes the usual files.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boot::driver::SourceGround;
use boot::plan::SourceSpec;
use clap::{Args, Subcommand};
use config::{Inputs, KeySources};
use host::{Disk, OsClock, OsDisk, OsEntropy};
use seal::{
    Deadline, Fit, HOOK_LIMIT, HOOK_QUESTION, HookFile, HookStatus, Remedy, Runs, ShortIkmAllowed, SlotFiles,
    SlotPublic, SourceError, SourceKind, Unkept, Wanted, conformance, slot_and_parts,
};

use crate::failure::{Code, Failure};

/// Example: edgekeep ikm provision --as-hook --out /etc/edgekeep/ikm-hook.slot
#[derive(Args)]
pub(crate) struct Ikm {
    #[command(subcommand)]
    command: IkmCommand,
}

#[derive(Subcommand)]
enum IkmCommand {
    /// Make a secret that the hook will print, held by the source of a configuration.
    Provision(Provision),
    /// Say what each source would give, and how often it still does; nothing is used up.
    Status(Status),
    /// Try a vendor's hook, and report on it.
    Conformance(Conformance),
    /// Print the secret of a TPM's hook file.
    Tpm(Print),
    /// ... of an index in a TPM.
    TpmNv(Print),
    /// ... of a smart card's or HSM's.
    Pkcs11(Print),
    /// ... of Tang servers'.
    Tang(Print),
    /// ... of another machine's.
    Escrow(Print),
    /// ... of a systemd credential's.
    Credential(Print),
    /// ... of another hook's.
    Exec(Print),
    /// ... of a key file's.
    Software(Print),
    /// ... of several sources'.
    All(Print),
    /// ... of some of several sources'.
    Threshold(Print),
}

/// Example: edgekeep ikm provision --as-hook --config /etc/edgekeep/ikm-hook.toml --out /etc/edgekeep/ikm-hook.slot
#[derive(Args)]
struct Provision {
    /// Says that the secret is to be printed to whoever runs the hook.
    #[arg(long, required = true)]
    as_hook: bool,
    /// The hook file to be made; an existing one is never displaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A configuration, of which [source] is read.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

/// Example: edgekeep ikm status
#[derive(Args)]
struct Status {
    /// Look at this hook file, in place of the store's slots.
    #[arg(long, value_name = "FILE")]
    slot: Option<PathBuf>,
    /// A configuration; EDGEKEEP_CONFIG, or /etc/edgekeep/edgekeep.toml, or the hook's if --slot is given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Example: edgekeep ikm conformance /usr/lib/vendor/ikm-hook
#[derive(Args)]
struct Conformance {
    /// The executable.
    #[arg(value_name = "HOOK")]
    hook: PathBuf,
    /// How often it is run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    runs: u8,
    /// It counts its releases: run it once for its key, and try nothing that takes a second one. Without this a hook
    /// that says by itself that it counts is not run for its key at all.
    #[arg(long, conflicts_with = "runs")]
    counts: bool,
    /// A variable of its environment, which has no other; NAME=VALUE.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
}

/// Example: edgekeep ikm tpm --slot /etc/edgekeep/ikm-hook.slot
#[derive(Args)]
struct Print {
    /// The hook file.
    #[arg(long, value_name = "FILE", default_value = SLOT)]
    slot: PathBuf,
    /// A configuration, of which [source] is read.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

pub(super) fn run(ikm: &Ikm) -> Result<(), Failure> {
    match &ikm.command {
        IkmCommand::Provision(provision) => provision.run(),
        IkmCommand::Status(status) => status.run(),
        IkmCommand::Conformance(conformance) => conformance.run(),
        IkmCommand::Tpm(print) => print.run(SourceKind::Tpm),
        IkmCommand::TpmNv(print) => print.run(SourceKind::TpmNv),
        IkmCommand::Pkcs11(print) => print.run(SourceKind::Pkcs11),
        IkmCommand::Tang(print) => print.run(SourceKind::Tang),
        IkmCommand::Escrow(print) => print.run(SourceKind::Escrow),
        IkmCommand::Credential(print) => print.run(SourceKind::Credential),
        IkmCommand::Exec(print) => print.run(SourceKind::Exec),
        IkmCommand::Software(print) => print.run(SourceKind::Software),
        IkmCommand::All(print) => print.run(SourceKind::All),
        IkmCommand::Threshold(print) => print.run(SourceKind::Threshold),
    }
}

/// Called by EdgeX's name for a hook, without arguments: the usual files, or those that the variables name.
pub(crate) fn as_hook() -> Result<(), Failure> {
    let environment = crate::locate::environment();
    let file = |name: &str, usual: &str| environment.value(name).filter(|f| !f.is_empty()).unwrap_or(usual).into();
    let print = Print { slot: file("EDGEKEEP_IKM_SLOT", SLOT), config: file("EDGEKEEP_IKM_CONFIG", CONFIG) };
    let kind = read(&print.slot)?.public().kind();
    print.run(kind)
}

impl Provision {
    fn run(&self) -> Result<(), Failure> {
        if !matches!(OsDisk.meta(&self.out), Ok(None)) {
            return Err(Failure::usage(format!("{} is there already, or cannot be looked at", self.out.display()))
                .hint("another hook may hang on it: name another file, or move it away"));
        }
        let tools = Tools::new(&self.config, &self.out)?;
        let spec = tools.only()?;
        not_the_stores_gate(spec, &self.config)?;
        let deadline = tools.deadline(spec, 2);
        let made = tools.ground.source(spec).provision(&spec.policy(), &*tools.ground.auth(spec), deadline);
        let made = made.map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint_for(Wanted::Provision)))?;
        let mut unkept = Unkept::default();
        unkept.note(spec, &made.public);
        if let Some(weakly) = spec.counts_weakly(&made.public) {
            crate::output::error(&format!("warning: {weakly}"));
        }
        let file = HookFile::create(made, &OsEntropy);
        if let Err(e) = OsDisk.replace(&self.out, &file.encode(), 0o600, None) {
            let fault = Failure::fault(format!("{} cannot be written: {e}", self.out.display()));
            // It may be there all the same: then it is what the hook prints with.
            if !matches!(OsDisk.meta(&self.out), Ok(None)) {
                unkept.kept();
                return Err(fault.hint("see whether it is whole: edgekeep ikm status --slot"));
            }
            let stays = unkept.take_back(|spec, public| {
                tools.ground.source(spec).discard(public, &[], &*tools.ground.auth(spec), tools.deadline(spec, 1))
            });
            return Err(match stays.is_empty() {
                true => fault.hint("nothing was made; name a file in a directory that can be written to"),
                false => fault.hint(stays.join("; ")),
            });
        }
        unkept.kept();
        crate::output::line(&format!(
            "{} holds no secret, and is needed for it. The hook is `edgekeep ikm {} --slot {}`.",
            self.out.display(),
            spec.kind(),
            self.out.display()
        ));
        Ok(())
    }
}

impl Print {
    fn run(&self, kind: SourceKind) -> Result<(), Failure> {
        match crate::locate::environment().value(HOOK_QUESTION.0) {
            None | Some("") => self.print(kind),
            Some(question) if question == HOOK_QUESTION.1 => self.say_what_is_left(kind),
            Some(other) => Err(Failure::usage(format!("{} = {other:?} is no question to a hook", HOOK_QUESTION.0))
                .hint(format!("unset it, or set it to {}", HOOK_QUESTION.1))),
        }
    }

    fn file(&self, kind: SourceKind) -> Result<HookFile, Failure> {
        let file = read(&self.slot)?;
        let found = file.public().kind();
        if found == kind {
            return Ok(file);
        }
        Err(Failure::usage(format!("{} was made by a source of kind `{found}`", self.slot.display()))
            .hint(format!("run `edgekeep ikm {found}`")))
    }

    /// To whoever runs the hook, and asks before a release is spent.
    fn say_what_is_left(&self, kind: SourceKind) -> Result<(), Failure> {
        let file = self.file(kind)?;
        let tools = Tools::new(&self.config, &self.slot)?;
        let spec = tools.of(file.public())?;
        let counts = slot_and_parts(file.public()).iter().filter_map(SlotPublic::release_limit).min();
        let foreseen = tools.ground.source(spec).foresee(file.public(), tools.deadline(spec, 1));
        let status = match (foreseen.map(|evidence| evidence.releases_left()), counts) {
            (Ok(Some(left)), Some(limit)) => HookStatus::Counted { left: left.min(limit.get()), limit },
            // Enough of the others are there: a part that counts may be needed another time.
            (Ok(None), Some(limit)) => HookStatus::Counted { left: limit.get(), limit },
            (Ok(_), None) => HookStatus::Uncounted,
            (Err(e), Some(limit)) if e.remedy() == Remedy::Reboot => HookStatus::Counted { left: 0, limit },
            (Err(e), _) => return Err(refused(&e)),
        };
        crate::output::line(&status.to_line());
        Ok(())
    }

    fn print(&self, kind: SourceKind) -> Result<(), Failure> {
        // Before a release is spent.
        if std::io::stdout().is_terminal() && host::in_force("hook-key-not-shown") {
            return Err(Failure::usage("the secret is not shown on a terminal")
                .hint("this is a hook, run by a program that reads what it prints: EDGEX_IKM_HOOK"));
        }
        let file = self.file(kind)?;
        let tools = Tools::new(&self.config, &self.slot)?;
        let spec = tools.of(file.public())?;
        let deadline = tools.deadline(spec, 1);
        let released = tools.ground.source(spec).release(file.public(), &*tools.ground.auth(spec), deadline);
        let key = file.key(&released.map_err(|e| refused(&e))?.ikm).map_err(|e| {
            Failure::of(Code::Refused, &e).hint("put back the device, or the file, that the hook was made with")
        })?;
        let mut out = std::io::stdout().lock();
        out.write_all(&key.to_line())
            .and_then(|()| out.flush())
            .map_err(|e| Failure::fault(format!("the secret cannot be handed over: {e}")))
    }
}

impl Status {
    fn run(&self) -> Result<(), Failure> {
        let (lines, fit) = match &self.slot {
            Some(slot) => {
                let file = read(slot)?;
                let config = self.config.as_deref().unwrap_or(Path::new(CONFIG));
                let tools = Tools::new(config, slot)?;
                tools.foresee(&[(slot.display().to_string(), file.public().clone())])
            }
            None => {
                let config = super::up::config_file(self.config.as_deref());
                let plan = super::up::load(&config, None, None)?.plan;
                let found = SlotFiles::new(&OsDisk, plan.state_dir()).read().map_err(|e| {
                    let hint = e.hint();
                    Failure::of(Code::NotReady, &e).hint(hint)
                })?;
                let slots = found.set.slots().iter().filter(|slot| slot.public().kind() != SourceKind::Recovery);
                let slots: Vec<_> = slots.map(|slot| (format!("slot {}", slot.id()), slot.public().clone())).collect();
                let sources = KeySources { sources: plan.sources.clone(), short_ikm: plan.dangers.short_ikm };
                let (mut lines, fit) = Tools::with(sources, plan.data_dir.join("tpm.lock"))?.foresee(&slots);
                if let Some(before) = boot::driver::tries_before(&OsDisk, &clock()?, &plan) {
                    lines = format!("{before}\n{lines}");
                }
                (lines, fit)
            }
        };
        crate::output::line(&lines);
        if fit { Ok(()) } else { Err(Failure::new(Code::NotReady, "no source would open it now")) }
    }
}

impl Conformance {
    fn run(&self) -> Result<(), Failure> {
        let mut env = Vec::new();
        for pair in &self.env {
            let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(Failure::usage(format!("{pair:?} is no NAME=VALUE")));
            };
            env.push((name.to_owned(), value.to_owned()));
        }
        let hook =
            std::path::absolute(&self.hook).map_err(|e| Failure::usage(format!("{}: {e}", self.hook.display())))?;
        let runs = if self.counts { Runs::Once } else { Runs::Several(self.runs.into()) };
        let report = conformance(&hook, &env, runs, HOOK_LIMIT, &clock()?);
        crate::output::line(&report.to_string());
        match report.conforms() {
            true => Ok(()),
            false => Err(Failure::new(Code::Refused, "it is no hook that a store is made with")
                .hint("docs/hardware.md has the contract")),
        }
    }
}

/// What counts the releases of a hook must not count those of this device's store: the first release of either would be
/// the last of the other, and look like an attack.
fn not_the_stores_gate(hook: &SourceSpec, config: &Path) -> Result<(), Failure> {
    let file = super::up::config_file(None);
    if file == config {
        return Ok(());
    }
    match gate_shared_with(std::slice::from_ref(hook), &file) {
        None => Ok(()),
        Some(gate) => {
            let fact = format!("the store of {} counts its releases by PCR {gate} of the same TPM", file.display());
            Err(Failure::usage(fact).hint("give the hook another gate_pcr: 8 to 15, not 10"))
        }
    }
}

/// The same, from the store's side: said where the hook has its usual place.
pub(super) fn gate_shared_with_the_hook(plan: &boot::plan::Plan) -> Option<String> {
    let environment = crate::locate::environment();
    let file: PathBuf = environment.value("EDGEKEEP_IKM_CONFIG").filter(|f| !f.is_empty()).unwrap_or(CONFIG).into();
    let gate = gate_shared_with(&plan.sources, &file)?;
    Some(format!(
        "the hook of {} counts its releases by PCR {gate} of the same TPM, as the store does: each shuts the other out; give one of \
         them another gate_pcr",
        file.display()
    ))
}

/// By what another configuration says, if there is one that can be read.
fn gate_shared_with(sources: &[SourceSpec], file: &Path) -> Option<u8> {
    if !matches!(OsDisk.meta(file), Ok(Some(_))) {
        return None;
    }
    let others = load_sources(file).ok()?.sources;
    sources.iter().find_map(|source| others.iter().find_map(|other| source.shared_gate(other)))
}

fn load_sources(file: &Path) -> Result<KeySources, config::Faults> {
    let environment = crate::locate::environment();
    let inputs = Inputs {
        disk: &OsDisk,
        environment: &environment,
        uid: crate::process::uid(),
        file,
        edgex_dir: None,
        data_dir: None,
        terminal: false,
    };
    config::load_sources(&inputs)
}

/// The sources of a configuration, and what they are made of.
struct Tools {
    sources: Vec<SourceSpec>,
    ground: SourceGround,
}

impl Tools {
    /// `beside`: the file beside which those who release from one TPM lock each other out.
    fn new(config: &Path, beside: &Path) -> Result<Self, Failure> {
        let sources = load_sources(config).map_err(|faults| super::up::faulty(&faults))?;
        // A file that is there is its own lock: in a container nothing beside it could be written.
        let there = OsDisk.meta(beside).is_ok_and(|m| m.is_some());
        Self::with(sources, if there { beside.to_owned() } else { beside.with_extension("lock") })
    }

    fn with(sources: KeySources, tpm_lock: PathBuf) -> Result<Self, Failure> {
        let clock = clock()?;
        sources.sources.iter().for_each(|spec| spec.take_pins(&clock));
        let ground = SourceGround {
            disk: Arc::new(OsDisk),
            clock: Arc::new(clock),
            entropy: Arc::new(OsEntropy),
            short_ikm: sources.short_ikm.then(ShortIkmAllowed::danger_short_ikm),
            tpm_lock,
            latch: seal::ReleaseLatch::default(),
            others: Vec::new(),
        };
        Ok(Self { sources: sources.sources, ground })
    }

    /// For a call that asks the source `times` times.
    fn deadline(&self, spec: &SourceSpec, times: u32) -> Deadline {
        Deadline::after_each(&*self.ground.clock, spec.deadline(), times)
    }

    fn only(&self) -> Result<&SourceSpec, Failure> {
        match &self.sources[..] {
            [only] => Ok(only),
            several => {
                Err(Failure::usage(format!("a hook is made with one source; the configuration has {}", several.len()))
                    .hint("name a configuration of its own with --config, or make the several one: kind = \"all\""))
            }
        }
    }

    /// The source that has made this.
    fn of(&self, public: &SlotPublic) -> Result<&SourceSpec, Failure> {
        let fit = |spec: &&SourceSpec| self.ground.source(spec).fits(public);
        let best = self.sources.iter().max_by_key(fit).filter(|spec| spec.kind() == public.kind());
        best.ok_or_else(|| {
            Failure::usage(format!("the configuration has no source of kind `{}`", public.kind()))
                .hint("name with --config the one that the hook was made with")
        })
    }

    /// A line for each slot and fact; and whether any of them would open.
    fn foresee(&self, slots: &[(String, SlotPublic)]) -> (String, bool) {
        let (mut lines, mut any) = (Vec::new(), false);
        for (name, public) in slots {
            let mut asked = false;
            for spec in &self.sources {
                let mut source = self.ground.source(spec);
                if source.fits(public) == Fit::No {
                    continue;
                }
                asked = true;
                lines.push(format!("{name}: {spec}"));
                match source.foresee(public, self.deadline(spec, 1)) {
                    Ok(evidence) => {
                        any = true;
                        lines.extend(evidence.0.iter().map(|(fact, value)| format!("  {fact}: {value}")));
                    }
                    Err(e) => lines.push(format!("  gives nothing: {}", host::with_causes(&e))),
                }
            }
            if !asked {
                lines.push(format!("{name}: {}, and no source of the configuration has made it", public.kind()));
            }
        }
        (lines.join("\n"), any)
    }
}

fn read(path: &Path) -> Result<HookFile, Failure> {
    let bytes = OsDisk.read(path, HookFile::MAX_BYTES).map_err(|e| {
        Failure::usage(format!("{} cannot be read: {e}", path.display()))
            .hint("`edgekeep ikm provision --as-hook --out FILE` makes one")
    })?;
    HookFile::parse(&bytes).map_err(|e| {
        Failure::new(Code::Refused, format!("{}: {e}", path.display()))
            .hint("`edgekeep ikm provision --as-hook --out FILE` makes one")
    })
}

fn clock() -> Result<OsClock, Failure> {
    OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))
}

fn refused(e: &SourceError) -> Failure {
    Failure::of(Code::Refused, e).hint(e.hint())
}

/// Where EdgeX's hook finds its files.
const SLOT: &str = "/etc/edgekeep/ikm-hook.slot";
const CONFIG: &str = "/etc/edgekeep/ikm-hook.toml";
