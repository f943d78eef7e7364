//! `cargo xtask bench boot`: boots of the release artefact beside a bare TLS server, against the limits of the design.
//!
//! ```text
//! rounds   each measures all of it once, interleaved: first boot, restart, new boot of the kernel, first answer, bare server
//! syncs    one first boot below strace
//! day      a window without work beside a window of renewals
//! table    medians, limits, verdicts
//! ```
//! Nothing is simulated: a boot is the executable started on a directory of a real disk, and what it hands out lies on
//! a tmpfs.

// What measures time reads the clock itself, and waits for time to pass.
#![allow(clippy::disallowed_methods)]

mod aes;
mod build;
mod calls;
mod day;
mod device;
mod hello;
mod process;
mod rounds;
mod sources;
mod stats;
mod syncs;
mod table;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use self::build::run as build;
pub(crate) use self::calls::run as calls;
use self::day::Day;
use self::device::Device;
use self::hello::Hello;
use self::rounds::{Rounds, SERVICES, What};
pub(crate) use self::sources::{PCR_READ, pcr_read, run as sources};
use self::syncs::Syncs;
use self::table::{Row, Table, round};
use crate::release;

/// The word by which this program is started anew to look at the speed of AES.
pub(crate) const AES_RATE: &str = "aes-rate";

struct Options {
    rounds: u32,
    window: Duration,
    strict: bool,
    dir: PathBuf,
    executables: Option<(PathBuf, PathBuf)>,
}

/// Measures, prints the table, and fails under `--strict` if a limit is missed.
pub(crate) fn boot(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let (artefact, bare) = match options.executables {
        Some(given) => given,
        None => (
            release::artefact(TARGET)?,
            release::dist(TARGET, &["--package", "edgekeep-server", "--example", "hello_tls"], "examples/hello_tls")?,
        ),
    };
    std::fs::create_dir_all(&options.dir)?;
    let dir = options.dir.canonicalize()?;
    println!("{}", process::machine(&dir)?);
    let (plain, masked) = aes::rates()?;
    println!("AES-256-GCM {plain:.0} MB/s, with its instructions masked {masked:.0} MB/s\n");

    let hello = Hello::new(&bare, &dir)?;
    let mut rounds = Rounds::default();
    // The first brings both executables into the page cache, and counts for nothing.
    Rounds::default().run(&artefact, &dir, &hello)?;
    for n in 1..=options.rounds {
        eprintln!("round {n} of {}", options.rounds);
        rounds.run(&artefact, &dir, &hello)?;
    }
    let syncs = syncs::of_first_boot(&Device::new(&artefact, &dir, SERVICES, 4, "1h")?, &dir)?;
    eprintln!("a window of {} s", options.window.as_secs());
    let day = Day::measure(&artefact, &dir, SERVICES, options.window)?;
    let table = table(&rounds, syncs.as_ref(), &day, std::fs::metadata(&artefact)?.len());
    println!("{table}\n{}", phases(&rounds));
    match table.misses().as_slice() {
        [] => println!("all limits hold"),
        misses if options.strict => bail!("limits missed: {}", misses.join("; ")),
        misses => println!("limits missed: {}", misses.join("; ")),
    }
    Ok(())
}

/// For [`AES_RATE`].
pub(crate) fn aes_rate() -> Result<()> {
    println!("{}", aes::rate()?);
    Ok(())
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options =
            Self { rounds: 9, window: Duration::from_secs(60), strict: false, dir: scratch(), executables: None };
        let (mut artefact, mut hello) = (None, None);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--quick" => (options.rounds, options.window) = (3, Duration::from_secs(10)),
                "--strict" => options.strict = true,
                "--dir" => options.dir = value()?.into(),
                "--artefact" => artefact = Some(PathBuf::from(value()?)),
                "--hello" => hello = Some(PathBuf::from(value()?)),
                other => bail!("bench boot knows no {other}"),
            }
        }
        ensure!(options.rounds > 0, "--rounds must be 1 at least");
        ensure!(artefact.is_some() == hello.is_some(), "--artefact and --hello are given together");
        options.executables = artefact.zip(hello);
        Ok(options)
    }
}

/// Where devices are measured unless something else is said.
fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    target.join("bench")
}

fn table(rounds: &Rounds, syncs: Option<&Syncs>, day: &Day, size: u64) -> Table {
    let span =
        |what| rounds.of(what).range().map_or(String::new(), |(l, h)| format!(" ({} to {})", round(l), round(h)));
    let boot = |name: &str, what| Row::limited(name, rounds.median(what), BOOT_MS, "ms", &span(what));
    // Each boot of a round ends by SIGKILL, so that the next is one of a killed store.
    let again = |name: &str, what| Row::limited(name, rounds.median(what), AGAIN_MS, "ms", &span(what));
    let time = |name: &str, what| Row::plain(name, format!("{} ms{}", round(rounds.median(what)), span(what)));
    let bytes = |name: &str, what| Row::plain(name, format!("{} KB", round(rounds.median(what) / 1e3)));
    let above = |name: &str, ours, bare| {
        let (ours, bare) = (rounds.median(ours), rounds.median(bare));
        let detail = format!(" above ({} beside {}, {:.1} times)", round(ours), round(bare), ours / bare);
        Row::limited(name, ours - bare, ABOVE_HELLO_MS, "ms", &detail)
    };
    let mut rows = vec![
        boot("first boot of 20 services, exec to open gates", What::FirstBoot),
        boot("new boot of the kernel, 20 services", What::NewKernelBoot),
        again("a killed store serves again, exec to first TLS 200", What::FirstAnswer),
        again("a killed store, exec to open gates of 20 services", What::Restart),
        time("first boot of 2 services", What::FirstBootOfTwo),
        time("restart of 2 services", What::RestartOfTwo),
        above("exec to first TLS 200 of sys/health, above a bare server", What::FirstAnswer, What::HelloAnswer),
        boot("first boot of 20 services, AES masked", What::MaskedFirstBoot),
        time("restart of 20 services, AES masked", What::MaskedRestart),
        above("exec to first TLS 200, AES masked in both", What::MaskedFirstAnswer, What::MaskedHelloAnswer),
        Row::limited("resident memory, idle after unseal", day.memory.resident as f64 / 1024.0, RSS_MIB, "MiB", ""),
        Row::limited("of it anonymous", day.memory.anonymous as f64 / 1024.0, ANONYMOUS_MIB, "MiB", ""),
        Row::plain(
            "resident after a first boot, of it anonymous",
            format!(
                "{} MiB, {} MiB",
                round(rounds.median(What::ResidentFirstBoot) / 1024.0),
                round(rounds.median(What::AnonymousFirstBoot) / 1024.0)
            ),
        ),
    ];
    let what = "fsync and fdatasync of a first boot, 20 services";
    rows.push(match syncs {
        Some(Syncs { all, store, audit, in_memory }) => {
            let detail =
                format!(" ({store} of the store, {audit} of the audit ring; besides {in_memory} on the tmpfs)");
            Row::limited(what, *all as f64, SYNCS, "", &detail)
        }
        None => Row::lacking(what, "strace is missing (apt-get install strace)"),
    });
    let seconds = day.window.as_secs();
    rows.extend([
        bytes("bytes to disk, first boot", What::BytesFirstBoot),
        bytes("bytes to disk, new boot of the kernel", What::BytesNewKernelBoot),
        bytes("bytes to disk, restart", What::BytesRestart),
        Row::plain(
            format!("bytes to disk in {seconds} s: idle; with {} renewals", day.renewals),
            format!("{} KB; {} KB", round(day.idle as f64 / 1e3), round(day.renewing as f64 / 1e3)),
        ),
        Row::limited(
            "bytes to disk, idle day of 20 services",
            day.bytes() / 1e6,
            DAY_MB,
            "MB",
            &format!(", with {} renewals", round(day.renewals_of_a_day())),
        ),
        Row::limited("executable, static, stripped", size as f64 / 1e6, release::MAX_BYTES as f64 / 1e6, "MB", ""),
    ]);
    Table(rows)
}

/// When each phase had ended, in ms from exec.
fn phases(rounds: &Rounds) -> String {
    let mut text = String::from("Phases, medians of their ends in ms after exec:\n\n");
    for (what, phases) in &rounds.phases {
        let ends: Vec<String> =
            phases.iter().map(|(n, s)| format!("{n} {:.1}", s.median().unwrap_or(f64::NAN))).collect();
        text.push_str(&format!("- {what:?}: {}\n", ends.join(", ")));
    }
    text
}

const TARGET: &str = "x86_64-unknown-linux-musl";
/// The design's limits.
const BOOT_MS: f64 = 300.0;
const AGAIN_MS: f64 = 100.0;
const ABOVE_HELLO_MS: f64 = 15.0;
const RSS_MIB: f64 = 10.0;
const ANONYMOUS_MIB: f64 = 4.0;
const SYNCS: f64 = 4.0 * SERVICES as f64 + 20.0;
const DAY_MB: f64 = 20.0;
