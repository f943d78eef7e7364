//! Interleaved rounds: each measures everything once, so that a noisy machine disturbs all figures alike.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::aes::Aes;
use super::device::{Boot, Device};
use super::hello::Hello;
use super::process::{memory, written};
use super::stats::Series;

/// What is measured in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    FirstBoot,
    NewKernelBoot,
    Restart,
    FirstBootOfTwo,
    RestartOfTwo,
    FirstAnswer,
    HelloAnswer,
    MaskedFirstBoot,
    MaskedRestart,
    MaskedFirstAnswer,
    MaskedHelloAnswer,
    BytesFirstBoot,
    BytesNewKernelBoot,
    BytesRestart,
    ResidentFirstBoot,
    AnonymousFirstBoot,
}

/// The figures of all rounds.
#[derive(Default)]
pub(super) struct Rounds {
    figures: BTreeMap<What, Series>,
    /// Ends of the phases in ms, by kind of boot.
    pub(super) phases: BTreeMap<What, Vec<(String, Series)>>,
}

impl Rounds {
    pub(super) fn of(&self, what: What) -> Series {
        self.figures.get(&what).cloned().unwrap_or_default()
    }

    pub(super) fn median(&self, what: What) -> f64 {
        self.of(what).median().unwrap_or(f64::NAN)
    }

    /// Measures everything once, each device being new.
    pub(super) fn run(&mut self, program: &Path, on: &Path, hello: &Hello) -> Result<()> {
        let mut many = Device::new(program, on, SERVICES, 1, "1h")?;
        let boot = self.boot(What::FirstBoot, many.boot(Aes::Instructions)?);
        self.note(What::BytesFirstBoot, written(boot.process.pid())? as f64);
        let used = memory(boot.process.pid())?;
        self.note(What::ResidentFirstBoot, used.resident as f64);
        self.note(What::AnonymousFirstBoot, used.anonymous as f64);
        drop(boot);
        let boot = self.boot(What::Restart, many.boot(Aes::Instructions)?);
        self.note(What::BytesRestart, written(boot.process.pid())? as f64);
        drop(boot);
        let client = many.client()?;
        self.note(What::FirstAnswer, many.first_answer(&client, Aes::Instructions)?);
        self.note(What::HelloAnswer, hello.first_answer(Aes::Instructions)?);
        let boot = self.boot(What::NewKernelBoot, many.boot_anew(Aes::Instructions)?);
        self.note(What::BytesNewKernelBoot, written(boot.process.pid())? as f64);
        drop(boot);

        let two = Device::new(program, on, 2, 2, "1h")?;
        drop(self.boot(What::FirstBootOfTwo, two.boot(Aes::Instructions)?));
        drop(self.boot(What::RestartOfTwo, two.boot(Aes::Instructions)?));

        let masked = Device::new(program, on, SERVICES, 3, "1h")?;
        drop(self.boot(What::MaskedFirstBoot, masked.boot(Aes::Masked)?));
        drop(self.boot(What::MaskedRestart, masked.boot(Aes::Masked)?));
        self.note(What::MaskedFirstAnswer, masked.first_answer(&masked.client()?, Aes::Masked)?);
        self.note(What::MaskedHelloAnswer, hello.first_answer(Aes::Masked)?);
        Ok(())
    }

    fn boot(&mut self, what: What, boot: Boot) -> Boot {
        self.note(what, boot.open_ms());
        let phases = self.phases.entry(what).or_default();
        for (name, ms) in &boot.phases {
            match phases.iter_mut().find(|(n, _)| n == name) {
                Some((_, series)) => series.push(*ms),
                None => {
                    let mut series = Series::default();
                    series.push(*ms);
                    phases.push((name.clone(), series));
                }
            }
        }
        boot
    }

    fn note(&mut self, what: What, value: f64) {
        self.figures.entry(what).or_default().push(value);
    }
}

/// What a device of the design's budget has.
pub(super) const SERVICES: usize = 20;
