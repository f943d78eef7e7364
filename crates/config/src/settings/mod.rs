//! edgekeep.toml: a file a section. Every key that exists is asked for here, and what is asked for nowhere is a fault.

mod audit;
mod combined;
mod credential;
mod escrow;
mod gate;
mod listen;
mod pkcs11;
mod preset;
mod recovery;
mod release;
mod service;
mod source;
mod store;
mod systemd;
mod tang;
mod tpm;

use std::path::{Path, PathBuf};

use boot::plan::{Dangers, Plan, Profile, SourceSpec};

use crate::document::Node;
use crate::fault::shown;
use crate::places::{Part, Places};
use crate::section::{Section, Source};

pub(crate) use listen::parse_address;
pub(crate) use preset::demo_gates;
pub(crate) use service::{NAME_REMEDY, parse_audience, policy};

/// What the sections came to: a plan that is complete but for what EdgeX's files add.
pub(crate) struct Settings {
    pub(crate) plan: Plan,
    pub(crate) edgex: EdgexFiles,
}

/// `[edgex]`: where EdgeX's own files are.
#[derive(Debug, Default)]
pub(crate) struct EdgexFiles {
    /// A directory laid out as EdgeX's images are.
    pub(crate) config_dir: Option<PathBuf>,
    /// Single files, each in place of what the directory has.
    pub(crate) token_config: Option<PathBuf>,
    pub(crate) secretstore_setup: Option<PathBuf>,
    pub(crate) token_provider: Option<PathBuf>,
}

pub(crate) fn read(source: Source<'_>, root: &Node, run_dir: &Path, places: &mut Places) -> Settings {
    let mut top = Section::top(source, root);
    if let Some(profile) = top.text("profile") {
        match profile.value.as_str() {
            "production" => {}
            "demo" => top.fault(
                &profile.place,
                "profile = \"demo\" stands in a file",
                "a demo is asked for each time: `edgekeep up --demo`; remove the line",
            ),
            other => top.fault(&profile.place, format!("unknown profile {}", shown(other)), "write \"production\""),
        }
    }
    let data_dir = top.path("data_dir").map_or_else(|| DATA_DIR.into(), |p| p.value);
    let run_dir = top.path("run_dir").map_or_else(|| run_dir.to_owned(), |p| p.value);
    let preset = preset::read(&mut top);
    let mut dangers =
        Dangers { any_machine: top.flag("danger_any_machine").is_some_and(|f| f.value), ..Dangers::default() };

    let store = store::read(top.table("store"), places);
    let source_sections = top.one_or_more("source");
    let (recovery_section, audit_section) = (top.table("recovery"), top.table("audit"));
    let mut sections: Vec<_> = source_sections.iter().map(|s| ("source", s.is_written(), s.place())).collect();
    sections.extend(
        [("recovery", &recovery_section), ("audit", &audit_section)].map(|(n, s)| (n, s.is_written(), s.place())),
    );
    store::without_effect(&store, &sections, &top);
    // A guest's plan has no slots, and so nobody to open them.
    let asked = |s: &Section<'_>| store.has_slots() || s.is_written();
    let mut sources: Vec<SourceSpec> =
        source_sections.into_iter().filter(asked).filter_map(|s| source::read(s, places, &mut dangers)).collect();
    let release = release::read(top.table("release"));
    let recovery = recovery::read(recovery_section, places);
    let listen = listen::read(top.table("listen"), places, &run_dir, preset, &store, &mut dangers);
    let audit = audit::read(audit_section);
    delivery(top.table("delivery"), &mut dangers);
    let edgex = edgex(top.table("edgex"));
    let services = top.tables("service").into_iter().filter_map(|s| service::read(s, places)).collect();
    let credentials = top.tables("credential").into_iter().filter_map(|s| credential::read(s, places)).collect();
    let written = top.tables("gate").into_iter().filter_map(|s| gate::read(s, places)).collect();
    let gates = preset::gates(preset, source, written);
    top.finish(&[]);

    if sources.is_empty() && store.has_slots() {
        // Never carried out: what is wrong with the sources was noted.
        let (path, env, deadline) = (PathBuf::from("/"), [].into(), std::time::Duration::ZERO);
        sources.push(SourceSpec::Exec { path, env, deadline });
    }
    let plan = Plan {
        profile: Profile::Production,
        data_dir,
        run_dir,
        store,
        sources,
        release,
        recovery,
        mounts: Plan::default_mounts(),
        services,
        credentials,
        gates,
        listen,
        audit,
        dangers,
    };
    Settings { plan, edgex }
}

/// The key sources alone.
pub(crate) fn read_sources(source: Source<'_>, root: &Node, places: &mut Places) -> (Vec<SourceSpec>, Dangers) {
    let (mut top, mut dangers) = (Section::top(source, root), Dangers::default());
    let sources = top.one_or_more("source").into_iter().filter_map(|s| source::read(s, places, &mut dangers)).collect();
    (sources, dangers)
}

/// `[delivery]`: only what weakens it, as the rest has one right answer.
fn delivery(mut section: Section<'_>, dangers: &mut Dangers) {
    let mut danger = |key| section.flag(key).is_some_and(|f| f.value);
    dangers.tokens_on_disk = danger("danger_tokens_on_disk");
    dangers.readable_tokens = danger("danger_readable_tokens");
    section.finish(&[]);
}

fn edgex(mut section: Section<'_>) -> EdgexFiles {
    let mut path = |key| section.path(key).map(|p| p.value);
    let files = EdgexFiles {
        config_dir: path("config_dir"),
        token_config: path("token_config"),
        secretstore_setup: path("secretstore_setup"),
        token_provider: path("token_provider"),
    };
    section.finish(&[]);
    files
}

/// Notes where a section stands, for faults that are found later.
fn note_section(section: &Section<'_>, name: &str, places: &mut Places) {
    places.note(Part::Section, name, section.place());
}

const DATA_DIR: &str = "/var/lib/edgekeep";

impl EdgexFiles {
    /// Whether any of EdgeX's files is asked for.
    pub(crate) fn is_any(&self) -> bool {
        [&self.config_dir, &self.token_config, &self.secretstore_setup, &self.token_provider]
            .iter()
            .any(|p| p.is_some())
    }
}
