//! What is asked of a source beyond giving key material, and what a source can hold to.

use std::num::NonZeroU8;
use std::time::Duration;

use ::tpm::PcrSet;

use super::SourceError;
use crate::slot::SourceKind;

/// What must hold when the source releases. All of it is enforced by the source itself, or provisioning fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRequest {
    /// Registers that must have the values they have at provisioning; empty for none.
    pub pcrs: PcrSet,
    /// Releases per kernel boot, counted by the source.
    pub releases_per_boot: Option<NonZeroU8>,
    /// Time after the start of the kernel within which alone it releases.
    pub window: Option<Duration>,
    /// Whether it asks for a PIN at each release.
    pub pin: bool,
}

impl PolicyRequest {
    /// Refuses what a source with these capabilities cannot hold to. The first thing that every `provision` does.
    ///
    /// # Errors
    /// [`SourceError::PolicyUnenforceable`]: a policy is never silently weakened.
    pub fn enforceable(&self, kind: SourceKind, can: &Capabilities) -> Result<(), SourceError> {
        let Self { pcrs, releases_per_boot, window, pin } = self;
        let asked = [
            (!pcrs.is_empty() && !can.measured, "pcrs"),
            (releases_per_boot.is_some_and(|n| n.get() > can.most_releases_per_boot), "releases_per_boot"),
            (window.is_some() && !can.time_window, "window"),
            (*pin && !can.pin, "pin"),
        ];
        match asked.into_iter().find(|(missing, _)| *missing && host::in_force("policy-enforceable")) {
            Some((_, what)) => Err(SourceError::PolicyUnenforceable { kind, what }),
            None => Ok(()),
        }
    }
}

/// What a kind of source can do, as it is set up. What is not claimed is not relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The key material cannot be had without this very device.
    pub device_bound: bool,
    /// It can be bound to what was measured into registers ([`PolicyRequest::pcrs`]).
    pub measured: bool,
    /// The highest limit that it can count to within a boot; 0 where it does not count.
    pub most_releases_per_boot: u8,
    /// It can stop releasing some time after the start of the kernel.
    pub time_window: bool,
    /// It can ask for a PIN.
    pub pin: bool,
    /// Somebody elsewhere can stop it from releasing.
    pub revocable_remotely: bool,
    /// It releases only while a network is there.
    pub needs_network: bool,
    /// Whoever listens between processor and source learns nothing.
    pub bus_encrypted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: &PolicyRequest, can: &Capabilities) -> Option<&'static str> {
        match policy.enforceable(SourceKind::Exec, can) {
            Ok(()) => None,
            Err(SourceError::PolicyUnenforceable { what, kind: SourceKind::Exec }) => Some(what),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn each_wish_needs_its_capability() {
        let wishes = [
            ("pcrs", PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..Default::default() }),
            ("releases_per_boot", PolicyRequest { releases_per_boot: NonZeroU8::new(3), ..Default::default() }),
            ("window", PolicyRequest { window: Some(Duration::from_secs(60)), ..Default::default() }),
            ("pin", PolicyRequest { pin: true, ..Default::default() }),
        ];
        let nothing = Capabilities::default();
        let all = Capabilities {
            measured: true,
            most_releases_per_boot: 3,
            time_window: true,
            pin: true,
            ..Capabilities::default()
        };
        assert_eq!(refused(&PolicyRequest::default(), &nothing), None);
        for (what, policy) in &wishes {
            assert_eq!(refused(policy, &nothing), Some(*what));
            assert_eq!(refused(policy, &all), None, "{what}");
        }
        let fewer = Capabilities { most_releases_per_boot: 2, ..all };
        assert_eq!(refused(&wishes[1].1, &fewer), Some("releases_per_boot"));
    }
}
