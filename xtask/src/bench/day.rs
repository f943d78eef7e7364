//! What a day without work writes to the disk: an idle window, and beside it an hour of renewals run as one minute.
//!
//! The second device gives its tokens a period of one minute, and its services renew at half of it, evenly spread. So
//! one minute has the renewals, the gathered writes and the audit records of an hour; what it writes more than the idle
//! device, times 24, is what renewals add to a day.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::aes::Aes;
use super::device::Device;
use super::process::{Memory, memory, written};

/// What was seen.
pub(super) struct Day {
    pub(super) window: Duration,
    /// Bytes in the window, by the idle device.
    pub(super) idle: u64,
    /// Bytes in the window, by the device whose services renew.
    pub(super) renewing: u64,
    pub(super) renewals: u32,
    /// Of the idle device at the end.
    pub(super) memory: Memory,
    services: usize,
}

impl Day {
    /// Measures both devices through one window.
    pub(super) fn measure(program: &Path, on: &Path, services: usize, window: Duration) -> Result<Self> {
        let idle = Device::new(program, on, services, 200, "1h")?;
        let busy = Device::new(program, on, services, 201, "60s")?;
        // Not the first boot: what is idle for days is a device that has started again.
        drop((idle.boot(Aes::Instructions)?, busy.boot(Aes::Instructions)?));
        let (calm, renewing) = (idle.boot(Aes::Instructions)?, busy.boot(Aes::Instructions)?);
        let client = busy.client()?;
        let tokens = (0..services).map(|n| busy.token(n)).collect::<Result<Vec<_>>>()?;
        // Until what the boot left to be done is done.
        std::thread::sleep(SETTLE);
        let before = (written(calm.process.pid())?, written(renewing.process.pid())?);
        let begun = Instant::now();
        let mut renewals = 0;
        let between = HALF_PERIOD / u32::try_from(services)?;
        while begun.elapsed() < window {
            let token = &tokens[renewals as usize % services];
            let status = client.ask(busy.address(), "POST", "/v1/auth/token/renew-self", Some(token))?;
            ensure!(status == 200, "a renewal was answered by {status}");
            renewals += 1;
            std::thread::sleep((begun + between * renewals).saturating_duration_since(Instant::now()));
        }
        let after = (written(calm.process.pid())?, written(renewing.process.pid())?);
        let (idle, renewing) = (after.0 - before.0, after.1 - before.1);
        Ok(Self { window, idle, renewing, renewals, memory: memory(calm.process.pid())?, services })
    }

    /// Bytes of an idle day in which every service renews at half its hour.
    pub(super) fn bytes(&self) -> f64 {
        let idle = self.idle as f64 * (DAY.as_secs_f64() / self.window.as_secs_f64());
        let for_each = self.renewing.saturating_sub(self.idle) as f64 / f64::from(self.renewals);
        idle + for_each * self.renewals_of_a_day()
    }

    pub(super) fn renewals_of_a_day(&self) -> f64 {
        self.services as f64 * 48.0
    }
}

const HALF_PERIOD: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(3);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
