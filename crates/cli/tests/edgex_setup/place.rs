//! A device of EdgeX: its configuration files, the place of its key shares, its hook, and the faces that work on them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use external::{Custody, Held, Keeping, RootToken};
use host::{Disk, OsDisk};
use seal::Ikm;
use seal::edgex::PlainSharesAllowed;
use secret::SecretBytes;
use serde_json::Value;
use testkit::SeededEntropy;

use crate::bao::Bao;

/// What the hook prints.
pub(crate) const IKM: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) variables: BTreeMap<String, String>,
}

impl Place {
    /// EdgeX's own files, and a hook.
    pub(crate) fn new(bao: &Bao) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), variables: BTreeMap::new() };
        place.lay("res/configuration.yaml", &sample("edgex-secretstore-setup.yaml"));
        place.lay("res-file-token-provider/configuration.yaml", &sample("edgex-file-token-provider.yaml"));
        place.lay("res-file-token-provider/token-config.json", &sample("edgex-token-config.json"));
        for face in ["edgekeep", "security-secretstore-setup", "security-file-token-provider"] {
            symlink(env!("CARGO_BIN_EXE_edgekeep"), place.path(face)).unwrap();
        }
        place
            .with("SECRETSTORE_HOST", &bao.ip)
            .with_path("SECRETSTORE_TOKENFOLDERPATH", "assets")
            .hook(&format!("echo {IKM}"))
            .with_path("TOKENFILEPROVIDER_OUTPUTDIR", "secrets")
            .with_path("TOKENFILEPROVIDER_PRIVILEGEDTOKENPATH", "privileged.json")
    }

    /// The same with three services: there is less to wait for.
    pub(crate) fn small(bao: &Bao) -> Self {
        let place = Self::new(bao);
        let services = r#"{"core-data":{"edgex_use_defaults":true},"core-metadata":{"edgex_use_defaults":true},"app":{"edgex_use_defaults":true}}"#;
        place.lay("res-file-token-provider/token-config.json", services.as_bytes());
        place
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    fn with_path(self, name: &str, below: &str) -> Self {
        let path = self.path(below).display().to_string();
        self.with(name, &path)
    }

    /// A hook that does this.
    pub(crate) fn hook(self, script: &str) -> Self {
        self.program("hook", script);
        self.with_path("EDGEX_IKM_HOOK", "hook")
    }

    pub(crate) fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.path(name);
        testkit::lay_program(&path, &format!("#!/bin/sh\n{script}\n"), 0o700);
        path
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn lay(&self, below: &str, bytes: &[u8]) {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        OsDisk.replace(&path, bytes, 0o600, None).unwrap();
    }

    fn command(&self, face: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(face));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.dir.path().display()))
            .envs(&self.variables)
            .envs(std::env::var_os("EDGEKEEP_BITE").map(|name| ("EDGEKEEP_BITE", name)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, face: &str, arguments: &[&str]) -> Output {
        self.command(face, arguments).output().unwrap()
    }

    /// The set-up, to its end.
    pub(crate) fn set_up(&self) -> (i32, String) {
        let output = self.run("security-secretstore-setup", SETUP);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The set-up, which must succeed.
    pub(crate) fn must_set_up(&self) -> String {
        let (code, said) = self.set_up();
        assert_eq!(code, 0, "{said}");
        said
    }

    /// The set-up, begun; [`Place::said`] tells what it says.
    pub(crate) fn begin(&self) -> Child {
        self.start("security-secretstore-setup", SETUP)
    }

    pub(crate) fn start(&self, face: &str, arguments: &[&str]) -> Child {
        let log = std::fs::File::create(self.path(LOG)).unwrap();
        self.command(face, arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What the run that was begun last has said until now.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path(LOG)).unwrap()
    }

    pub(crate) fn until_said(&self, text: &str) {
        self.until(&format!("it says {text:?}"), || self.said().contains(text));
    }

    /// Looks until it is so, for two minutes.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !is_so() {
            let said = || std::fs::read_to_string(self.path(LOG)).unwrap_or_default();
            assert!(begun.elapsed().as_secs() < 120, "waited in vain until {what}: {}", said());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(crate) fn has_shares(&self) -> bool {
        self.path("assets/resp-init.json").exists()
    }

    /// The file of the shares, as text.
    pub(crate) fn shares_text(&self) -> String {
        std::fs::read_to_string(self.path("assets/resp-init.json")).unwrap()
    }

    /// The shares, opened by the libraries below the face.
    pub(crate) fn held(&self) -> Held {
        let entropy = SeededEntropy::new(1);
        let hooked = self.variables.contains_key("EDGEX_IKM_HOOK");
        let keeping = match hooked {
            true => Keeping::Wrapped(Ikm::new(SecretBytes::new(hex::decode(IKM).unwrap()), None).unwrap()),
            false => Keeping::Plain(PlainSharesAllowed::danger_plain_shares()),
        };
        let us = OsDisk.meta(self.dir.path()).unwrap().unwrap().owner.uid;
        Custody::new(&OsDisk, &entropy, &self.path("assets"), "resp-init.json", us, keeping).load().unwrap()
    }

    /// As root, for a moment: what nobody else can see.
    pub(crate) fn as_root<T>(&self, bao: &Bao, work: impl FnOnce(&str) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let vault = bao.vault();
            let root = RootToken::generate(&vault, &self.held().shares).await.unwrap();
            let told = bao_token(&root);
            bao.until_known(&told);
            let done = work(&told);
            root.revoke(&vault).await.unwrap();
            done
        })
    }

    /// The token in a service's file.
    pub(crate) fn token(&self, service: &str) -> String {
        self.token_file(service)["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn token_file(&self, service: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("secrets").join(service).join("secrets-token.json")).unwrap())
            .unwrap()
    }

    pub(crate) fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("secrets"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A root token prints nothing of itself; what it sends is seen by a store that is asked as it.
fn bao_token(root: &RootToken) -> String {
    struct Ear(std::sync::Mutex<String>);
    impl client::Vault for Ear {
        async fn call(&self, request: api::Request) -> Result<api::Reply, client::CallError> {
            *self.0.lock().unwrap() = request.token.unwrap().expose().to_owned();
            Ok(api::Reply::no_content())
        }
    }
    let ear = Ear(std::sync::Mutex::default());
    let path = api::ApiPath::parse("sys/health").unwrap();
    testkit::block_on(client::Vault::call(&root.over(&ear), api::Request::new(api::Operation::Read, path))).unwrap();
    ear.0.into_inner().unwrap()
}

/// EdgeX's own files, which lie beside the repository and are no part of it.
fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("the sample {} is missing: {e}", path.display()))
}

const LOG: &str = "run.log";
const SETUP: &[&str] = &["--secretStoreInterval=1", "-configDir", "res"];
