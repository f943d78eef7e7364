//! `edgekeep up --demo` as a person meets it: one command, one screen, one command that works and one that is refused.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_edgekeep");

struct Demo {
    dir: tempfile::TempDir,
    run: tempfile::TempDir,
    child: Option<Child>,
}

impl Demo {
    fn new() -> Self {
        let run = tempfile::Builder::new().prefix("edgekeep-demo-").tempdir_in("/dev/shm").unwrap();
        Self { dir: tempfile::tempdir().unwrap(), run, child: None }
    }

    fn run_dir(&self) -> PathBuf {
        self.run.path().join("run")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.dir.path()).env_clear().env("EDGEKEEP_RUN_DIR", self.run_dir());
        command.stdin(Stdio::null());
        command
    }

    /// Starts it, and reads its screen to the last line. The kernel chooses the port, so that no two tests share one.
    fn up(&mut self) -> String {
        let mut command = self.command(&["up", "--demo", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut screen = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            screen.push_str(&line);
            screen.push('\n');
            if line.ends_with("# refused: not its own") {
                self.child = Some(child);
                return screen;
            }
        }
        let output = child.wait_with_output().unwrap();
        panic!("the demo ended: {}\n{screen}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn signal(&mut self, name: &str) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap().code()
    }

    /// The screen without what differs from run to run.
    fn plain(&self, screen: &str) -> String {
        let mut out = String::new();
        for line in screen.lines() {
            let line = line
                .replace(self.dir.path().to_str().unwrap(), "/home/me")
                .replace(self.run_dir().to_str().unwrap(), "/run/edgekeep")
                .replace(BINARY, "edgekeep");
            let words: Vec<String> = line.split(' ').map(plain_word).collect();
            let line = words.join(" ");
            // Whether memory may be locked is the machine's matter.
            if !line.contains("RLIMIT_MEMLOCK") {
                out.push_str(&line);
                out.push('\n');
            }
        }
        out
    }
}

fn plain_word(word: &str) -> String {
    let address = word.strip_prefix("https://127.0.0.1:").and_then(|p| p.strip_suffix(','));
    match address {
        Some(port) if port.parse::<u16>().is_ok() => "https://127.0.0.1:8200,".into(),
        _ if word.parse::<u64>().is_ok() => "NN".into(),
        _ => word.into(),
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_demo_does_what_its_screen_says() {
    let mut demo = Demo::new();
    let screen = demo.up();
    assert!(screen.lines().count() <= 25, "{screen}");
    assert!(!screen.contains('\u{1b}'), "plain when piped");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/demo.txt");
    let plain = demo.plain(&screen);
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        std::fs::write(&golden, &plain).unwrap();
    }
    assert_eq!(plain, std::fs::read_to_string(golden).unwrap());

    // The two commands, word for word as the screen has them.
    let words = |mark: &str| -> Vec<String> {
        let line = screen.lines().find(|l| l.ends_with(mark)).unwrap();
        line.split('#').next().unwrap().split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let run = |words: &[String]| demo.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let works = run(&words("# works"));
    assert!(works.status.success(), "{works:?}");
    let refused = run(&words("# refused: not its own"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("permission denied") && refused.stdout.is_empty(), "{refused:?}");
    let own = demo.run(&["--as", "sensor", "kv", "get", "-field=ssid", "secret/edgex/sensor/wifi"]);
    assert_eq!(text(&own.stdout).trim(), "lab");
    assert!(demo.run(&["wait", "--gate", "ready-to-run", "--timeout", "120s"]).status.success());
    assert_eq!(demo.signal("TERM"), Some(0));
}

#[test]
fn tokens_and_secrets_outlive_a_kill() {
    let mut demo = Demo::new();
    demo.up();
    assert!(demo.run(&["--as", "sensor", "kv", "put", "secret/edgex/sensor/a", "x=1"]).status.success());
    let token = |demo: &Demo| std::fs::read(demo.run_dir().join("secrets/sensor/secrets-token.json")).unwrap();
    let before = token(&demo);
    demo.signal("KILL");
    let screen = demo.up();
    assert!(screen.contains("opened") && !screen.contains("made "), "{screen}");
    assert!(before == token(&demo), "within one boot of the kernel a live token stays alive");
    assert_eq!(
        text(&demo.run(&["--as", "sensor", "kv", "get", "-field=x", "secret/edgex/sensor/a"]).stdout).trim(),
        "1"
    );
    assert_eq!(demo.signal("TERM"), Some(0));
}

#[test]
fn sealing_shuts_the_gates_and_drops_the_keys() {
    let mut demo = Demo::new();
    demo.up();
    assert!(demo.run(&["seal"]).status.success());
    let late = demo.run(&["wait", "--gate", "ready-to-run", "--timeout", "0"]);
    assert_eq!(late.status.code(), Some(2), "{late:?}");
    let read = demo.run(&["--as", "sensor", "kv", "get", "secret/edgex/sensor/a"]);
    assert_eq!(read.status.code(), Some(2), "{read:?}");
    let told = text(&demo.run(&["doctor"]).stdout);
    assert!(
        told.starts_with("edgekeep is sealed (profile demo)") && told.contains("gate ready-to-run: shut"),
        "{told}"
    );
}

#[test]
fn a_second_edgekeep_takes_nothing_from_the_first() {
    let mut demo = Demo::new();
    demo.up();
    let second = demo.run(&["up", "--demo", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("is held by another edgekeep"), "{second:?}");
    assert!(demo.run(&["wait", "--gate", "ready-to-run", "--timeout", "120s"]).status.success());
    let destroy = demo.run(&["reprovision", "--demo", "--destroys-all-secrets"]);
    assert_eq!(destroy.status.code(), Some(1), "{destroy:?}");
}

#[test]
fn a_port_that_is_taken_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let demo = Demo::new();
    let output = demo.run(&["up", "--demo", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("Address already in use") && told.contains(" hint: "), "{told}");
    assert_eq!(std::fs::read_dir(demo.dir.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn every_part_of_the_state_that_is_missing_is_told_and_nothing_is_made_anew() {
    for (part, word) in [("store.db", "store.db is missing"), ("audit", "audit ring is missing")] {
        let mut demo = Demo::new();
        demo.up();
        demo.signal("TERM");
        let path = demo.dir.path().join("edgekeep-data/data").join(part);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let output = demo.run(&["up", "--demo", "--listen", "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(2), "{part}: {output:?}");
        assert!(text(&output.stderr).contains(word), "{part}: {output:?}");
        assert!(!path.exists(), "{part} is not made anew");
        // The way out is asked for by name, and then everything is new.
        assert_eq!(demo.run(&["reprovision", "--demo"]).status.code(), Some(64));
        let destroyed = demo.run(&["reprovision", "--demo", "--destroys-all-secrets"]);
        assert!(destroyed.status.success(), "{destroyed:?}");
        assert!(demo.up().contains("made "));
    }
}

/// A production device whose key file is gone: it waits, and the recovery key opens it.
#[test]
fn the_recovery_key_opens_a_store_whose_source_is_gone() {
    let mut demo = Demo::new();
    let (home, kept) = (demo.dir.path().to_owned(), demo.run.path().join("recovery.key"));
    let text = format!(
        "data_dir = {:?}\n[source]\nkind = \"software\"\npath = {:?}\ndanger_software_key = true\n\
         [recovery]\nout = {kept:?}\n[listen]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"sensor\"\n",
        home.join("data"),
        home.join("device.key"),
    );
    std::fs::write(home.join("edgekeep.toml"), text).unwrap();
    let start = |demo: &mut Demo| {
        let mut command = demo.command(&["up", "--config", "edgekeep.toml"]);
        demo.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    };
    let open = |demo: &Demo| demo.run(&["wait", "--gate", "ready-to-run", "--timeout", "120s"]);
    start(&mut demo);
    assert!(open(&demo).status.success());
    assert!(demo.run(&["--as", "sensor", "kv", "put", "secret/edgex/sensor/a", "x=1"]).status.success());
    assert_eq!(demo.signal("TERM"), Some(0));

    std::fs::rename(home.join("device.key"), home.join("lost")).unwrap();
    start(&mut demo);
    let key = std::fs::read_to_string(&kept).unwrap();
    let recovered = loop {
        // The admin socket appears when the process is there; until then nobody answers.
        let output = demo.run(&["recover", "--key-file", kept.to_str().unwrap()]);
        assert!(demo.child.as_mut().unwrap().try_wait().unwrap().is_none(), "it stays and waits");
        if !text_of(&output).contains("cannot talk to edgekeep") {
            break output;
        }
    };
    assert!(recovered.status.success(), "{recovered:?}");
    let new = std::fs::read_to_string(&kept).unwrap();
    assert_ne!(new, key, "it is spent by its use");
    assert!(text_of(&recovered).contains("opens nothing any more"), "{recovered:?}");
    assert!([&new, &key].iter().all(|k| !text_of(&recovered).contains(k.trim())), "the keys are said nowhere");
    assert!(open(&demo).status.success());
    let read = demo.run(&["--as", "sensor", "kv", "get", "-field=x", "secret/edgex/sensor/a"]);
    assert_eq!(String::from_utf8(read.stdout).unwrap().trim(), "1");

    // Whoever has kept a copy of the used key holds nothing.
    assert!(demo.run(&["seal"]).status.success());
    std::fs::write(home.join("copy"), &key).unwrap();
    let refused = demo.run(&["recover", "--key-file", "copy"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text_of(&refused).contains("is not the recovery key of this store"), "{refused:?}");
    assert!(demo.run(&["recover", "--key-file", kept.to_str().unwrap()]).status.success());
    assert!(open(&demo).status.success());
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
