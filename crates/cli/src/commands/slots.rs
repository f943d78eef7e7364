//! `edgekeep seal slots`: who can open the store, and the change of it.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use boot::driver::{SlotChange, SlotList, SlotReport, SlotTest, Verdict};
use clap::{Args, Subcommand, ValueEnum};
use seal::{PcrFileError, PcrValues};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::admin::{self, Place};
use crate::failure::{Code, Failure};

#[derive(Subcommand)]
pub(super) enum Slots {
    /// Show the key slots, and what is missing here for each; asks no source for its key.
    List(List),
    /// Make a slot for a source that edgekeep.toml has and the store has not; needs no restart.
    Add(Add),
    /// Take a slot away, and replace root key and data key. The last slot that is known to open stays.
    Remove(Remove),
    /// Try slots with their sources. A source that counts its releases is not asked for one.
    Test(Which),
    /// Make a slot for the image that is booted next, beside the present one, from the TPM registers that it will have.
    Predict(Predict),
    /// Make slots anew, under today's configuration and the state that the device is in; the old ones go when the new
    /// ones have opened.
    Reseal(Which),
}

/// Example: edgekeep seal slots list -format=json
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

/// Example: edgekeep seal slots add tang
#[derive(Args)]
pub(super) struct Add {
    /// Which source: its number among the [[source]]s, or its kind; without it, each that has no slot.
    source: Option<String>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

/// Example: edgekeep seal slots remove 1
#[derive(Args)]
pub(super) struct Remove {
    /// The slot's number, as `list` shows it.
    slot: u16,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

/// Example: edgekeep seal slots test 2
#[derive(Args)]
pub(super) struct Which {
    /// The slot's number; without it, all.
    slot: Option<u16>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

/// Example: edgekeep seal slots predict --pcrs next-image.pcrs
#[derive(Args)]
pub(super) struct Predict {
    /// Lines sha256:N=HEX, or what tpm2_pcrread prints; - reads standard input.
    #[arg(long, value_name = "FILE")]
    pcrs: PathBuf,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

/// Example: edgekeep seal commit
#[derive(Args)]
pub(super) struct Commit {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Shown {
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) async fn run(slots: Slots) -> Result<(), Failure> {
    match slots {
        Slots::List(List { shown, place }) => {
            let reply = admin::ask(&place, "GET", "/admin/slots", None).await?;
            shown.show(&reply, list)
        }
        Slots::Add(Add { source, shown, place }) => {
            let body = source.map_or_else(|| json!({}), |s| json!({ "source": s }));
            change(&shown, &place, "add", &body).await
        }
        Slots::Remove(Remove { slot, shown, place }) => {
            let body = json!({ "slot": slot });
            let reply = admin::ask(&place, "POST", "/admin/slots/remove", Some(&body)).await?;
            shown.show(&reply, taken_away)
        }
        Slots::Predict(Predict { pcrs, shown, place }) => {
            let body = json!({ "pcrs": lines(&read_values(&pcrs)?) });
            let reply = admin::ask(&place, "POST", "/admin/slots/predict", Some(&body)).await?;
            shown.show(&reply, predicted)
        }
        Slots::Reseal(Which { slot, shown, place }) => change(&shown, &place, "reseal", &wanted(slot)).await,
        Slots::Test(Which { slot, shown, place }) => {
            let reply = admin::ask(&place, "POST", "/admin/slots/test", Some(&wanted(slot))).await?;
            shown.show(&reply, tests)?;
            let tests: Vec<SlotTest> = parse(&reply)?;
            match tests.iter().filter(|t| t.verdict == Verdict::Refuses).count() {
                0 => Ok(()),
                n => Err(Failure::new(Code::Refused, format!("{n} of {} slots do not open", tests.len()))
                    .hint("edgekeep seal slots reseal makes a slot anew, if its source works")),
            }
        }
    }
}

async fn change(shown: &Shown, place: &Place, verb: &str, body: &Value) -> Result<(), Failure> {
    let reply = admin::ask(place, "POST", &format!("/admin/slots/{verb}"), Some(body)).await?;
    shown.show(&reply, |change: &SlotChange| changed(change))
}

/// `edgekeep seal commit`.
pub(super) async fn commit(Commit { shown, place }: Commit) -> Result<(), Failure> {
    change(&shown, &place, "commit", &json!({})).await
}

fn read_values(path: &Path) -> Result<PcrValues, Failure> {
    let fault = |told: String| Failure::usage(format!("{}: {told}", path.display()));
    let mut text = String::new();
    // What is longer is refused by the parser.
    let limit = 64 * 1024;
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.map_err(|e| fault(e.to_string()))?;
    text.parse().map_err(|e: PcrFileError| {
        fault(e.to_string()).hint("write sha256:N=HEX, a line for each register, or what tpm2_pcrread prints")
    })
}

/// A line for each value.
fn lines(values: &PcrValues) -> String {
    values.iter().map(|(pcr, value)| format!("sha256:{pcr}={}\n", hex::encode(value))).collect()
}

fn predicted(change: &SlotChange) -> String {
    let next = "nothing else was changed: the present image opens the store, and so will the next one; when that has held: \
                edgekeep seal commit";
    format!("{}\n{next}", changed(change))
}

fn wanted(slot: Option<u16>) -> Value {
    slot.map_or_else(|| json!({}), |slot| json!({ "slot": slot }))
}

impl Shown {
    /// JSON as the socket gave it, but read and written once: both forms say the same.
    fn show<T: DeserializeOwned + serde::Serialize>(
        &self,
        reply: &str,
        text: impl Fn(&T) -> String,
    ) -> Result<(), Failure> {
        let told: T = parse(reply)?;
        let out = match self.format {
            Format::Text => text(&told),
            Format::Json => serde_json::to_string_pretty(&told).unwrap_or_default(),
        };
        crate::output::line(&out);
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(reply: &str) -> Result<T, Failure> {
    serde_json::from_str(reply).map_err(|e| {
        Failure::fault(format!("the admin socket gives an answer of another version: {e}"))
            .hint("is this the edgekeep that runs?")
    })
}

fn list(list: &SlotList) -> String {
    let count = list.slots.len();
    let mut out = format!("store {}: {count} slots, changed {} times", list.store, list.generation.saturating_sub(1));
    for slot in &list.slots {
        out.push_str(&one(slot));
    }
    for source in &list.without_slot {
        let _ = write!(out, "\nno slot  source {source}; edgekeep seal slots add makes one");
    }
    out
}

fn one(slot: &SlotReport) -> String {
    let source = slot.source.as_deref().unwrap_or(&slot.kind);
    let mut out = format!("\nslot {}  {source}", slot.id);
    if let Some(n) = slot.releases_per_boot {
        let _ = write!(out, "; {n} releases a boot");
    }
    if slot.opened {
        out.push_str("; has opened since the start");
    }
    for (name, value) in &slot.facts {
        let _ = write!(out, "\n  {name}: {value}");
    }
    if let Some(missing) = &slot.missing {
        let _ = write!(out, "\n  missing here: {missing}");
    }
    out
}

#[allow(clippy::ptr_arg, reason = "the shape that `show` parses into")]
fn tests(tests: &Vec<SlotTest>) -> String {
    let word = |v| match v {
        Verdict::Opens => "opens",
        Verdict::NotAsked => "not asked",
        Verdict::Refuses => "does not open",
        Verdict::NoSource => "not tried",
    };
    let line = |t: &SlotTest| format!("slot {}  {}: {}: {}", t.id, t.kind, word(t.verdict), t.told);
    tests.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A slot that somebody wanted gone; whose place another has taken is not to lose its source.
fn taken_away(change: &SlotChange) -> String {
    let source = "take the [[source]] of a slot that shall not come back out of edgekeep.toml";
    if change.removed.is_empty() { changed(change) } else { format!("{}\n{source}", changed(change)) }
}

/// What a change came to, and what follows from it.
pub(super) fn changed(change: &SlotChange) -> String {
    let slots = |ids: &[u16]| {
        let numbers: Vec<String> = ids.iter().map(ToString::to_string).collect();
        format!("slot{} {}", if ids.len() == 1 { "" } else { "s" }, numbers.join(", "))
    };
    let mut lines = Vec::new();
    if !change.added.is_empty() {
        lines.push(format!("added: {}", slots(&change.added)));
    }
    if !change.removed.is_empty() {
        lines.push(format!("removed: {}; root key and data key are new", slots(&change.removed)));
        lines.push(
            "copies of the data directory from before open as they did: destroy those that you do not need".into(),
        );
    }
    if !change.kept.is_empty() {
        lines.push(format!(
            "kept: {}, because the new one cannot be tried in this boot; after the next start: edgekeep seal slots remove",
            slots(&change.kept)
        ));
    }
    if !change.moved.is_empty() {
        lines.extend(change.moved.iter().cloned());
        lines.push("if neither the board was exchanged nor its TPM cleared, somebody answers in its place: see docs/hardware.md".into());
    }
    lines.extend(change.told.iter().map(|told| format!("not done: {told}")));
    if lines.is_empty() { "nothing had to be changed: every source opens its slot".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod unit {
    use host::Disk;

    use super::*;

    /// The screens, side by side with the JSON, in one golden file.
    #[test]
    fn what_is_shown() {
        let slot = |id, kind: &str| SlotReport { id, kind: kind.into(), ..SlotReport::default() };
        let all = SlotList {
            store: "0123456789abcdef0123456789abcdef".into(),
            generation: 4,
            slots: vec![
                SlotReport {
                    source: Some("tpm /dev/tpmrm0".into()),
                    releases_per_boot: Some(3),
                    opened: true,
                    facts: vec![
                        ("registers".into(), "7, 11".into()),
                        ("releases left in this boot".into(), "2".into()),
                    ],
                    ..slot(1, "tpm")
                },
                SlotReport { facts: vec![("key".into(), "0011223344556677".into())], ..slot(2, "recovery") },
                SlotReport {
                    source: Some("tang 1 of http://tang.site".into()),
                    missing: Some("0 of the 1 servers that are needed have helped: refused".into()),
                    ..slot(5, "tang")
                },
                SlotReport { missing: Some("no source of the configuration goes with it".into()), ..slot(6, "exec") },
            ],
            without_slot: vec!["3: pkcs11 edge 9f1c".into()],
        };
        let tried =
            |id, kind: &str, verdict, told: &str| SlotTest { id, kind: kind.into(), verdict, told: told.into() };
        let tried = vec![
            tried(
                1,
                "tpm",
                Verdict::NotAsked,
                "its source counts releases and was not asked for one; nothing speaks against it",
            ),
            tried(5, "tang", Verdict::Refuses, "the servers are away"),
        ];
        let change = SlotChange {
            added: vec![7],
            removed: vec![1],
            kept: vec![2, 3],
            moved: vec!["slot 7 hangs on the TPM with storage key 000b02; before it was 000b01".into()],
            told: vec!["a; b".into()],
        };
        let screens = [
            list(&all),
            json(&all),
            tests(&tried),
            json(&tried),
            changed(&change),
            json(&change),
            changed(&SlotChange::default()),
            predicted(&SlotChange { added: vec![8], ..SlotChange::default() }),
            taken_away(&SlotChange { removed: vec![1], ..SlotChange::default() }),
        ]
        .join("\n\n")
            + "\n";
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/slots.txt");
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            host::OsDisk.replace(&golden, screens.as_bytes(), 0o644, None).unwrap();
        }
        let wanted = host::OsDisk.read(&golden, 100_000).unwrap();
        assert_eq!(screens, std::str::from_utf8(&wanted).unwrap(), "EDGEKEEP_BLESS=1 writes it anew");
    }

    fn json<T: serde::Serialize>(value: &T) -> String {
        serde_json::to_string_pretty(value).unwrap()
    }
}
