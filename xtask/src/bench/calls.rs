//! `cargo xtask bench calls`: what a call costs one build beside another, in processor time.
//!
//! Both devices run at once and are asked in turns, a block of calls each, over one connection; processor time of the
//! process is hardly touched by what else the machine does, as the time on a clock would be.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::aes::Aes;
use super::device::{Boot, Device};
use super::process;
use super::stats::Series;
use super::tls::{Client, Connection};

struct Options {
    artefact: PathBuf,
    against: PathBuf,
    dir: PathBuf,
    rounds: u32,
    calls: u32,
}

/// A call of which many are made.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    /// Over a connection of its own, with a whole handshake; a tenth as many are made.
    fresh: bool,
}

/// Measures both and prints the ratio of each call.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    std::fs::create_dir_all(&options.dir)?;
    let dir = options.dir.canonicalize()?;
    println!("{}", process::machine(&dir)?);
    let mut pair = [Asked::start(&options.artefact, &dir, 210)?, Asked::start(&options.against, &dir, 211)?];
    let mut table =
        String::from("| call | us of processor time | the other | ratio of the medians |\n|---|---|---|---|\n");
    for call in CALLS {
        let mut series = [Series::default(), Series::default()];
        // The first round warms caches and counts for nothing.
        for round in 0..=options.rounds {
            for (asked, series) in pair.iter_mut().zip(&mut series) {
                let cost = asked.cost(call, options.calls)?;
                if round > 0 {
                    series.push(cost);
                }
            }
        }
        let [ours, other] = series.each_ref().map(|s| s.median().unwrap_or(f64::NAN));
        let span = |s: &Series| s.range().map_or(String::new(), |(l, h)| format!("{l:.1} to {h:.1}"));
        let (a, b) = (span(&series[0]), span(&series[1]));
        writeln!(table, "| {} | {ours:.1} ({a}) | {other:.1} ({b}) | {:.2} |", call.name, ours / other)?;
    }
    println!("{table}");
    Ok(())
}

/// A device that is asked again and again by one of its services.
struct Asked {
    device: Device,
    boot: Boot,
    client: Client,
    connection: Connection,
    token: String,
}

impl Asked {
    fn start(program: &Path, dir: &Path, number: u8) -> Result<Self> {
        let device = Device::new(program, dir, 2, number, "1h")?;
        let boot = device.boot(Aes::Instructions)?;
        let (client, token) = (device.client()?, device.token(0)?);
        let connection = client.connect(device.address())?;
        let mut asked = Self { device, boot, client, connection, token };
        asked.call(Call { method: "PUT", path: VALUE, body: BODY, ..CALLS[0] })?;
        Ok(asked)
    }

    /// Microseconds of processor time for one call, from a block of them.
    fn cost(&mut self, call: Call, calls: u32) -> Result<f64> {
        let calls = if call.fresh { calls.div_ceil(10) } else { calls };
        let before = process::busy(self.boot.process.pid())?;
        for _ in 0..calls {
            self.call(call)?;
        }
        let spent: Duration = process::busy(self.boot.process.pid())?.saturating_sub(before);
        Ok(spent.as_secs_f64() * 1e6 / f64::from(calls))
    }

    fn call(&mut self, call: Call) -> Result<()> {
        if call.fresh {
            self.connection = self.client.connect(self.device.address())?;
        }
        let status = self.connection.call(call.method, call.path, Some(&self.token), call.body)?;
        ensure!(matches!(status, 200 | 204), "{} {} was answered by {status}", call.method, call.path);
        Ok(())
    }
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let (mut artefact, mut against, mut dir) = (None, None, super::scratch());
        let (mut rounds, mut calls) = (9, 2000);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match *word {
                "--artefact" => artefact = Some(PathBuf::from(value)),
                "--against" => against = Some(PathBuf::from(value)),
                "--dir" => dir = PathBuf::from(value),
                "--rounds" => rounds = value.parse().context("--rounds")?,
                "--calls" => calls = value.parse().context("--calls")?,
                other => bail!("bench calls knows no {other}"),
            }
        }
        ensure!(rounds > 0 && calls > 0, "--rounds and --calls must be 1 at least");
        let wanted = "bench calls needs two builds: --artefact FILE --against FILE";
        Ok(Self { artefact: artefact.context(wanted)?, against: against.context(wanted)?, dir, rounds, calls })
    }
}

const VALUE: &str = "/v1/secret/edgex/service-00/bench";
const BODY: &str = r#"{"value":"two hundred characters are what a credential of EdgeX has with its name, more or less: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}"#;
const CALLS: [Call; 5] = [
    Call { name: "kv read", method: "GET", path: VALUE, body: "", fresh: false },
    Call { name: "kv write", method: "PUT", path: VALUE, body: BODY, fresh: false },
    Call { name: "token lookup-self", method: "GET", path: "/v1/auth/token/lookup-self", body: "", fresh: false },
    Call { name: "sys/health", method: "GET", path: "/v1/sys/health", body: "", fresh: false },
    Call { name: "TLS handshake and sys/health", method: "GET", path: "/v1/sys/health", body: "", fresh: true },
];
