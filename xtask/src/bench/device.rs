//! A device to be measured: its configuration, its data on the disk, what it hands out in memory, and its boots.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::{Disk, OsDisk};

use super::aes::Aes;
use super::process::Owned;
use super::tls::Client;

pub(super) struct Device {
    program: PathBuf,
    dir: tempfile::TempDir,
    run: tempfile::TempDir,
    address: SocketAddr,
    services: usize,
    kernel_boots: u32,
}

/// One boot that has opened its gates.
pub(super) struct Boot {
    pub(super) process: Owned,
    /// Milliseconds from exec to the end of each phase, in the order of the boot; `gates open` is the last.
    pub(super) phases: Vec<(String, f64)>,
}

impl Boot {
    pub(super) fn open_ms(&self) -> f64 {
        self.phases.last().map_or(f64::NAN, |(_, ms)| *ms)
    }
}

impl Device {
    /// A device that was never started. `period` is that of its services' tokens.
    pub(super) fn new(program: &Path, on: &Path, services: usize, number: u8, period: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("boot-").tempdir_in(on)?;
        let run = tempfile::Builder::new().prefix("edgekeep-bench-").tempdir_in("/dev/shm")?;
        let address = SocketAddr::from(([127, 83, 83, number], 8200));
        let mut text = format!(
            "data_dir = {data:?}\nrun_dir = {run:?}\n\
             [source]\nkind = \"software\"\npath = {key:?}\ndanger_software_key = true\n\
             [recovery]\nnone = true\n\
             [listen]\naddress = \"{address}\"\nnames = [\"{ip}\", \"localhost\"]\n",
            data = dir.path().join("data"),
            run = run.path().join("run"),
            key = dir.path().join("device.key"),
            ip = address.ip(),
        );
        for name in (0..services).map(service) {
            writeln!(text, "[[service]]\nname = {name:?}\nperiod = {period:?}")?;
        }
        // As EdgeX has it: one password of the message bus's database, copied to every service.
        let names: Vec<String> = (0..services).map(service).collect();
        writeln!(text, "[[credential]]\nkind = \"redisdb\"\nservices = {names:?}")?;
        OsDisk.replace(&dir.path().join(CONFIG), text.as_bytes(), 0o600, None)?;
        Ok(Self { program: program.to_owned(), dir, run, address, services, kernel_boots: 0 })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who trusts the device's CA; it must have been started once.
    pub(super) fn client(&self) -> Result<Client> {
        Client::trusting(&self.run.path().join("run/ca.pem"))
    }

    pub(super) fn token(&self, number: usize) -> Result<String> {
        let path = self.run.path().join("run/secrets").join(service(number)).join("secrets-token.json");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let token = json.pointer("/auth/client_token").and_then(serde_json::Value::as_str);
        Ok(token.with_context(|| format!("no token in {}", path.display()))?.to_owned())
    }

    /// `edgekeep up`, until it says that its gates are open.
    pub(super) fn boot(&self, aes: Aes) -> Result<Boot> {
        let (mut command, begun) = (self.up(&[]), Instant::now());
        self.watch(aes.set(&mut command), Some(begun))
    }

    /// The same below another program, such as strace.
    pub(super) fn boot_below(&self, program: &[&str]) -> Result<Boot> {
        self.watch(&mut self.up(program), Some(Instant::now()))
    }

    /// The same in a new boot of the kernel: another boot id, and nothing left of what was in memory.
    pub(super) fn boot_anew(&mut self, aes: Aes) -> Result<Boot> {
        self.kernel_boots += 1;
        let id = self.dir.path().join("boot-id");
        let text = format!("00000000-0000-4000-8000-{:012}\n", self.kernel_boots);
        OsDisk.replace(&id, text.as_bytes(), 0o644, None)?;
        OsDisk.remove_tree(&self.run.path().join("run"))?;
        let id = id.display().to_string();
        let script = format!("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && echo {EXEC} >&2 && exec \"$@\"");
        let mut command = self.up(&["unshare", "--mount", "sh", "-c", &script, &id]);
        self.watch(aes.set(&mut command), None)
    }

    /// Milliseconds from exec to the first 200 over TLS.
    pub(super) fn first_answer(&self, client: &Client, aes: Aes) -> Result<f64> {
        let mut command = self.up(&[]);
        aes.set(&mut command).env_remove(LOG).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let _process = Owned(command.spawn()?);
        Ok(client.first_answer(self.address)?.duration_since(begun).as_secs_f64() * 1e3)
    }

    fn up(&self, before: &[&str]) -> Command {
        let program = self.program.display().to_string();
        let mut words = before.iter().copied().chain([program.as_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["up", "--config"]).arg(self.dir.path().join(CONFIG));
        command
            .process_group(0)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(LOG, "warn,edgekeep=debug");
        command
    }

    /// Starts it and stamps each line that it says with the time of its arrival; without `begun` the clock runs from
    /// [`EXEC`].
    fn watch(&self, command: &mut Command, begun: Option<Instant>) -> Result<Boot> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (send, said) = channel();
        child.stdout.take().into_iter().for_each(|out| listen(out, send.clone()));
        child.stderr.take().into_iter().for_each(|err| listen(err, send.clone()));
        drop(send);
        let process = Owned(child);
        let phases = phases(&said, begun)?;
        let delivered = std::fs::read_dir(self.run.path().join("run/secrets"))?.count();
        ensure!(delivered == self.services, "{delivered} of {} services have a token", self.services);
        Ok(Boot { process, phases })
    }
}

/// The phases as they were told, up to the line that says that the last gate is open.
fn phases(said: &Receiver<(Instant, String)>, begun: Option<Instant>) -> Result<Vec<(String, f64)>> {
    let (mut begun, mut phases, mut all) = (begun, Vec::new(), String::new());
    loop {
        let (at, line) = match said.recv_timeout(PATIENCE) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => bail!("the gates did not open:\n{all}"),
        };
        let since = |begun: Option<Instant>| begun.map_or(f64::NAN, |b| at.duration_since(b).as_secs_f64() * 1e3);
        if line.trim() == EXEC {
            begun = Some(at);
        } else if let Some((_, rest)) = line.split_once("phase=\"") {
            phases.push((rest.split('"').next().unwrap_or_default().to_owned(), since(begun)));
        } else if line.trim_start().starts_with("gate ") && line.contains("ready-to-run is open") {
            phases.push(("gates open".to_owned(), since(begun)));
            return Ok(phases);
        }
        writeln!(all, "{line}")?;
    }
}

fn listen(out: impl Read + Send + 'static, said: Sender<(Instant, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // Who measures has heard enough, but the pipe is read on: a writer must not be stopped by it.
            let _ = said.send((Instant::now(), line));
        }
    });
}

fn service(number: usize) -> String {
    format!("service-{number:02}")
}

const CONFIG: &str = "edgekeep.toml";
const LOG: &str = "EDGEKEEP_LOG";
/// What the shell says when the program is about to take its place.
const EXEC: &str = "bench-exec";
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_from_what_a_boot_says() {
        let (send, said) = channel();
        let now = Instant::now();
        for (ms, line) in [
            (0, "bench-exec"),
            (3, "2026-11-22T00:00:00Z DEBUG boot phase=\"made\" at_ms=2"),
            (9, "  gate      tokens-ready is open after 8 ms"),
            (9, "  gate      ready-to-run is open after 8 ms"),
        ] {
            send.send((now + Duration::from_millis(ms), line.to_owned())).unwrap();
        }
        let told = phases(&said, None).unwrap();
        assert_eq!(told, [("made".to_owned(), 3.0), ("gates open".to_owned(), 9.0)]);
    }

    #[test]
    fn a_gate_that_stays_shut_is_an_error() {
        let (send, said) = channel();
        send.send((Instant::now(), "  gate      ready-to-run is shut".to_owned())).unwrap();
        drop(send);
        assert!(phases(&said, None).unwrap_err().to_string().contains("is shut"));
    }
}
