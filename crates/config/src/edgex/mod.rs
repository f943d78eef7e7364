//! EdgeX's own files and variables, turned into the same plan that edgekeep.toml makes.
//!
//! `token-config.json` names the services, the provider's `configuration.yaml` how long their tokens live, the set-up's
//! `configuration.yaml` and `EDGEX_ADD_KNOWN_SECRETS` who gets which credential. Where EdgeX takes what it cannot mean
//! (names with slashes, modes that give a token to everybody, misspelt keys) this is a fault.

pub(crate) mod bootstrapper;
mod credentials;
mod faces;
mod known_secrets;
mod overrides;
mod provider;
mod token_config;

pub use credentials::Bus;
pub use faces::{
    Admits, Face, Kuiper, Program, ProviderFace, ProxyCertificate, RegenerateAt, RegeneratePort, SetupFace, StoreAt,
};

use std::path::{Path, PathBuf};

use boot::plan::Plan;
use host::{Disk, Owner};

use crate::document::{self, Node, Value};
use crate::environment::Environment;
use crate::fault::{Collector, Place, shown};
use crate::places::Places;
use crate::section::Source;
use crate::settings::EdgexFiles;

/// What reading EdgeX's files needs.
pub(crate) struct Reader<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) uid: u32,
    pub(crate) environment: &'a Environment,
    pub(crate) faults: &'a Collector,
}

impl Reader<'_> {
    /// Adds to `plan` what the files and variables ask for; `notes` tells what has no effect here.
    pub(crate) fn add(&self, files: &EdgexFiles, plan: &mut Plan, places: &mut Places, notes: &mut Vec<String>) {
        self.refuse_no_security();
        let found = self.find(files);
        let yaml = |path: &Path| -> Option<Node> {
            let mut node = crate::input::read(self.disk, self.uid, path, document::yaml, self.faults)?;
            overrides::apply(&mut node, &self.source(path));
            Some(node)
        };
        let provider = found.provider.as_deref().map(|path| (path, yaml(path)));
        let defaults = match &provider {
            Some((path, Some(node))) => provider::read(self.source(path), node, notes),
            _ => provider::Defaults::default(),
        };
        let owner = self.owner();
        if let Some(path) = &found.tokens
            && let Some(node) = crate::input::read(self.disk, self.uid, path, document::json, self.faults)
        {
            token_config::read(self.source(path), &node, &defaults, owner, plan, places);
        }
        token_config::add_tokens(self.source(Path::new("")), &defaults, owner, plan, places);
        match &found.setup {
            Some(path) => {
                if let Some(node) = yaml(path) {
                    credentials::read(self.source(path), &node, plan, places, notes);
                }
            }
            // As with a file that says nothing: a variable that is set is not passed over.
            None if known_secrets::is_asked(self.environment) => {
                let nothing = Node { line: 0, value: Value::Map(Vec::new()) };
                credentials::read(self.source(Path::new("")), &nothing, plan, places, notes);
            }
            None => {}
        }
    }

    fn source<'b>(&'b self, file: &'b Path) -> Source<'b> {
        Source { file, faults: self.faults, environment: self.environment }
    }

    /// EdgeX turns all security off for this one word.
    fn refuse_no_security(&self) {
        if self.environment.value("EDGEX_SECURITY_SECRET_STORE") == Some("false") {
            let place = Place::Variable("EDGEX_SECURITY_SECRET_STORE".into());
            self.faults.add(
                &place,
                "is \"false\", which asks for no security at all",
                "unset it, or do not start edgekeep",
            );
        }
    }

    /// The user that EdgeX's images give all token files to, where its number is in the environment.
    fn owner(&self) -> Option<Owner> {
        self.owner_of("EDGEX_USER", "EDGEX_GROUP")
    }

    fn owner_of(&self, user: &str, group: &str) -> Option<Owner> {
        let number = |name: &str| -> Option<u32> {
            let text = self.environment.value(name).filter(|t| !t.is_empty())?;
            let parsed = text.parse().ok().filter(|n| *n < u32::MAX);
            if parsed.is_none() {
                let place = Place::Variable(name.into());
                self.faults.add(
                    &place,
                    format!("{} is no number of a user or group", shown(text)),
                    "set a number such as 2002",
                );
            }
            parsed
        };
        let (uid, gid) = (number(user), number(group));
        Some(Owner { uid: uid?, gid: gid? })
    }

    /// The files as named one by one, or at the places where EdgeX's images have them.
    fn find(&self, files: &EdgexFiles) -> Found {
        let pick = |named: &Option<PathBuf>, candidates: &[&str]| -> Option<PathBuf> {
            if named.is_some() {
                return named.clone();
            }
            let dir = files.config_dir.as_ref()?;
            let there = |path: &PathBuf| matches!(self.disk.meta(path), Ok(Some(_)));
            candidates.iter().map(|c| dir.join(c)).find(there)
        };
        let found = Found {
            tokens: pick(&files.token_config, &["res-file-token-provider/token-config.json", "token-config.json"]),
            setup: pick(&files.secretstore_setup, &["res/configuration.yaml", "configuration.yaml"]),
            provider: pick(&files.token_provider, &["res-file-token-provider/configuration.yaml"]),
        };
        if let (Some(dir), None, None) = (&files.config_dir, &found.tokens, &found.setup) {
            self.faults.add(
                &Place::whole(dir),
                "holds neither token-config.json nor configuration.yaml of EdgeX",
                "name the directory that has res/ and res-file-token-provider/, or single files in [edgex]",
            );
        }
        found
    }
}

struct Found {
    tokens: Option<PathBuf>,
    setup: Option<PathBuf>,
    provider: Option<PathBuf>,
}

/// The services of a token configuration, for the fuzzers' door.
pub(crate) fn token_config_of(source: Source<'_>, root: &Node, plan: &mut Plan, places: &mut Places) {
    token_config::read(source, root, &provider::Defaults::default(), None, plan, places);
}

/// The credentials of a set-up's configuration, for the fuzzers' door.
pub(crate) fn credentials_of(source: Source<'_>, root: &Node, plan: &mut Plan, places: &mut Places) {
    credentials::read(source, root, plan, places, &mut Vec::new());
}
