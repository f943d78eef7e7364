//! `cargo xtask bench sources`: what a release costs, with the start of the process that asks for it.
//!
//! ```text
//! pair     edgekeep ikm KIND, beside the least that the same hardware asks of anybody; in turns, so that a busy machine slows both
//! tang     beside one exchange by curl          pkcs11   beside a login by pkcs11-tool
//! tpm      beside one PCR_Read by a process that does nothing else
//! ```
//! The parts are the real ones, in software: swtpm, tangd, SoftHSM.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use host::{Disk, OsDisk};
use testkit::{SoftHsm, Swtpm, Tangd};

use super::process;
use super::stats::Series;
use super::table::{Row, Table, round};

/// The word by which this program is started anew to ask a TPM one thing.
pub(crate) const PCR_READ: &str = "pcr-read";

struct Options {
    artefact: PathBuf,
    helper: PathBuf,
    rounds: u32,
    strict: bool,
}

/// A source, and what it is measured beside.
struct Pair {
    name: String,
    limit_ms: f64,
    ours: Command,
    beside: Command,
}

/// Measures every source, prints the table, and fails under `--strict` if a limit is missed.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let dir = tempfile::tempdir()?;
    println!("{}", process::machine(dir.path())?);
    let (mut tpm, hsm, tangd) = (Swtpm::start(), SoftHsm::new("bench"), Tangd::start());
    tpm.extend(7, 0x77);
    let mut pairs = vec![
        options.tang(dir.path(), &tangd)?,
        options.pkcs11(dir.path(), &hsm)?,
        options.tpm(dir.path(), &tpm, ("tpm", "without a limit"), "count_in = \"gate\"\n")?,
    ];
    let mut rows = Vec::new();
    for pair in &mut pairs {
        rows.extend(pair.measure(options.rounds)?);
    }
    // Each the first release of a boot, which is the dearest where an index counts.
    let pin = dir.path().join("pin");
    for (file, what, more) in [
        ("tpm-index", "counted by an index", "releases_per_boot = 1\ngate_pcr = 12\n".to_owned()),
        (
            "tpm-gate",
            "counted by the gate alone",
            "releases_per_boot = 8\ngate_pcr = 13\ncount_in = \"gate\"\n".to_owned(),
        ),
        (
            "tpm-pin",
            "counted by an index, with a PIN",
            format!("releases_per_boot = 1\ngate_pcr = 14\npin_file = {pin:?}\n"),
        ),
    ] {
        let boot = |tpm: &mut Swtpm| {
            tpm.reboot();
            tpm.extend(7, 0x77);
        };
        boot(&mut tpm);
        let mut counted = options.tpm(dir.path(), &tpm, (file, what), &more)?;
        rows.extend(counted.measure_with(options.rounds, || boot(&mut tpm))?);
    }
    let table = Table(rows);
    println!("{table}");
    match table.misses().as_slice() {
        [] => println!("all limits hold"),
        misses if options.strict => bail!("limits missed: {}", misses.join("; ")),
        misses => println!("limits missed: {}", misses.join("; ")),
    }
    Ok(())
}

/// For [`PCR_READ`]: connects, reads register 7, and ends.
pub(crate) fn pcr_read(socket: &str) -> Result<()> {
    let mut tpm = UnixStream::connect(socket)?;
    // TPM2_PCR_Read of the SHA-256 bank (part 3, 22.4).
    tpm.write_all(&[0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7E, 0, 0, 0, 1, 0, 0x0B, 3, 0x80, 0, 0])?;
    let mut head = [0; 10];
    tpm.read_exact(&mut head)?;
    ensure!(head[6..] == [0; 4], "the TPM refuses: {head:02x?}");
    Ok(())
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let (mut artefact, mut helper, mut rounds, mut strict) = (None, None, 31, false);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--artefact" => artefact = Some(PathBuf::from(value()?).canonicalize()?),
                "--helper" => helper = Some(PathBuf::from(value()?).canonicalize()?),
                "--rounds" => rounds = value()?.parse().context("--rounds")?,
                "--strict" => strict = true,
                other => bail!("bench sources knows no {other}"),
            }
        }
        ensure!(rounds > 0, "--rounds must be 1 at least");
        let artefact = artefact.context("--artefact is needed: the executable to be measured")?;
        Ok(Self { artefact, helper: helper.context("--helper is needed: its ikm-pkcs11")?, rounds, strict })
    }

    /// A hook of this source: `edgekeep ikm provision`, and the command that prints.
    fn hook(&self, dir: &Path, name: &str, section: &str) -> Result<Command> {
        let kind = name.split('-').next().unwrap_or(name);
        let (config, slot) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.slot")));
        write(&config, &format!("[source]\nkind = \"{kind}\"\n{section}"))?;
        let mut provision = Command::new(&self.artefact);
        provision.args(["ikm", "provision", "--as-hook", "--config"]).arg(&config).arg("--out").arg(&slot);
        said(&mut provision)?;
        let mut print = Command::new(&self.artefact);
        print.args(["ikm", kind, "--config"]).arg(config).arg("--slot").arg(slot);
        Ok(print)
    }

    fn tang(&self, dir: &Path, tangd: &Tangd) -> Result<Pair> {
        let servers = format!(
            "threshold = 1\n[[source.servers]]\nurl = {:?}\nthumbprint = {:?}\n",
            tangd.url(),
            tangd.thumbprint()
        );
        let ours = self.hook(dir, "tang", &servers)?;
        // A key of jose's, sent to the key that answers: the exchange alone, without what makes a secret of it.
        let adv = said(Command::new("curl").args(["-sf", &format!("{}/adv", tangd.url())]))?;
        let (adv_file, key) = (dir.join("adv.jws"), dir.join("key.jwk"));
        write(&adv_file, &adv)?;
        let payload = said(Command::new("jose").args(["b64", "dec", "-i-"]).stdin(piped(dir, &payload_of(&adv)?)?))?;
        let keys: serde_json::Value = serde_json::from_str(&payload)?;
        let derive = keys["keys"].as_array().into_iter().flatten();
        let derive = derive.into_iter().find(|k| k["alg"] == "ECMR").context("the server shows no exchange key")?;
        write(&key, &derive.to_string())?;
        let thumbprint = said(Command::new("jose").args(["jwk", "thp", "-a", "S256", "-i"]).arg(&key))?;
        let own = said(Command::new("jose").args(["jwk", "gen", "-i", r#"{"alg":"ECMR"}"#]))?;
        let mut own: serde_json::Value = serde_json::from_str(&own)?;
        own.as_object_mut().context("jose makes an object")?.remove("d");
        write(&key, &own.to_string())?;
        let mut beside = Command::new("curl");
        beside.args(["-sf", "-H", "Content-Type: application/jwk+json", "--data-binary"]);
        beside.arg(format!("@{}", key.display())).arg(format!("{}/rec/{}", tangd.url(), thumbprint.trim()));
        Ok(Pair { name: "tang, a server on this machine; beside curl".into(), limit_ms: 60.0, ours, beside })
    }

    fn pkcs11(&self, dir: &Path, hsm: &SoftHsm) -> Result<Pair> {
        let pin = dir.join("pin");
        write(&pin, SoftHsm::PIN)?;
        let conf = &hsm.env()[0].1;
        let section = format!(
            "helper = {:?}\nmodule = {:?}\ntoken = {:?}\nserial = {:?}\npin_file = {pin:?}\n\
             env = {{ SOFTHSM2_CONF = {conf:?} }}\n",
            self.helper,
            SoftHsm::MODULE,
            hsm.label(),
            hsm.serial()
        );
        let ours = self.hook(dir, "pkcs11", &section)?;
        let mut beside = Command::new("pkcs11-tool");
        beside.args(["--module", SoftHsm::MODULE, "--token-label", hsm.label(), "--login", "--pin", SoftHsm::PIN]);
        beside.arg("--list-objects").env("SOFTHSM2_CONF", conf);
        Ok(Pair { name: "pkcs11, SoftHSM; beside pkcs11-tool".into(), limit_ms: 20.0, ours, beside })
    }

    fn tpm(&self, dir: &Path, tpm: &Swtpm, (file, what): (&str, &str), more: &str) -> Result<Pair> {
        let socket = tpm.socket();
        let ours = self.hook(dir, file, &format!("device = {socket:?}\npcrs = [7]\n{more}"))?;
        let mut beside = Command::new(std::env::current_exe()?);
        beside.args(["bench", PCR_READ]).arg(socket);
        let name = format!("tpm, swtpm, {what}; beside one PCR_Read");
        Ok(Pair { name, limit_ms: 30.0, ours, beside })
    }
}

impl Pair {
    fn measure(&mut self, rounds: u32) -> Result<Vec<Row>> {
        self.measure_with(rounds, || {})
    }

    fn measure_with(&mut self, rounds: u32, mut before: impl FnMut()) -> Result<Vec<Row>> {
        let (mut ours, mut beside) = (Series::default(), Series::default());
        // The first brings both into the page cache, and counts for nothing.
        for n in 0..=rounds {
            before();
            let (a, printed) = timed(&mut self.ours)?;
            ensure!(printed.trim_end().len() == 64, "{}: this is no hook's line", self.name);
            let (b, _) = timed(&mut self.beside)?;
            if n > 0 {
                ours.push(a);
                beside.push(b);
            }
        }
        let (median, floor) = (ours.median().unwrap_or(f64::NAN), beside.median().unwrap_or(f64::NAN));
        let mut detail = format!(", {:.1} times the {} ms beside it", median / floor, round(floor));
        if let Some((low, high)) = ours.range() {
            let _ = write!(detail, " ({} to {})", round(low), round(high));
        }
        Ok(vec![Row::limited(self.name.as_str(), median, self.limit_ms, "ms", &detail)])
    }
}

/// Milliseconds from start to end, and what it printed.
fn timed(command: &mut Command) -> Result<(f64, String)> {
    let begun = Instant::now();
    let printed = said(command)?;
    Ok((begun.elapsed().as_secs_f64() * 1000.0, printed))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{:?} is not started", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The payload of a JWS in its JSON form.
fn payload_of(jws: &str) -> Result<String> {
    let jws: serde_json::Value = serde_json::from_str(jws)?;
    Ok(jws["payload"].as_str().context("the server's answer has no payload")?.to_owned())
}

fn piped(dir: &Path, text: &str) -> Result<Stdio> {
    let path = dir.join("piped");
    write(&path, text)?;
    Ok(std::fs::File::open(path)?.into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    OsDisk.replace(path, text.as_bytes(), 0o600, None).with_context(|| path.display().to_string())
}
