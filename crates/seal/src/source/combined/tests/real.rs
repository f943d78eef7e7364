//! With real parts: a TPM 2.0 in software, Debian's Tang, a hook, a key file.

use std::path::{Path, PathBuf};

use host::{Disk, OsDisk};
use testkit::{Swtpm, Tangd, Tanging, is_skipped};

use super::super::super::exec::tests::Place;
use super::super::super::{ExecSource, SoftwareSource, TangServer, TangServers, TangSource, TpmSource};
use super::*;

pub(super) fn clock() -> Arc<OsClock> {
    Arc::new(OsClock::new().unwrap())
}

pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn later() -> Deadline {
    Deadline::after(&*clock(), LIMIT)
}

pub(super) fn tpm(tpm: &Swtpm, lock: PathBuf) -> Part {
    tpm_at(&tpm.socket(), lock)
}

pub(super) fn tpm_at(socket: &Path, lock: PathBuf) -> Part {
    let source = TpmSource::new(socket, Some(13), lock, Arc::new(OsDisk), clock(), Arc::new(OsEntropy));
    Part::new(Box::new(source), LIMIT)
}

pub(super) fn tang(server: &Tangd) -> Part {
    let origin = client::Origin::parse(&server.url()).unwrap();
    let pinned = server.thumbprint().parse().unwrap();
    let servers = TangServers::new(vec![TangServer { origin, pinned }], 1).unwrap();
    Part::new(Box::new(TangSource::new(servers, clock(), Arc::new(OsEntropy))), LIMIT)
}

fn all(parts: Vec<Part>) -> CombinedSource {
    CombinedSource::all(parts, clock(), Arc::new(OsEntropy)).unwrap()
}

#[test]
fn a_tpm_and_a_server_keep_to_the_contract() {
    if is_skipped("swtpm") || is_skipped("tang") {
        return;
    }
    let (chip, server, dir) = (Swtpm::start(), Tangd::start(), testkit::scratch_dir());
    chip.extend(7, 0x77);
    let policy = PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..limit(3) };
    let make = || Box::new(all(vec![tpm(&chip, dir.path().join("lock")), tang(&server)])) as Box<dyn KeySource>;
    key_source_contract(&make, &policy, &NoAuth);
}

/// A device that was carried off boots in vain as often as it likes, and has its one release when it is back.
#[test]
fn a_server_that_is_away_leaves_the_tpms_count_as_it_is() {
    if is_skipped("swtpm") || is_skipped("tang") {
        return;
    }
    let (chip, server, dir) = (Swtpm::start(), Tangd::start(), testkit::scratch_dir());
    let mut both = all(vec![tpm(&chip, dir.path().join("lock")), tang(&server)]);
    let made = both.provision(&limit(1), &NoAuth, later()).unwrap();
    server.becomes(Tanging::Down);
    for _ in 0..3 {
        assert_eq!(both.release(&made.public, &NoAuth, later()).unwrap_err().remedy(), Remedy::Retry);
    }
    server.becomes(Tanging::Well);
    let released = both.release(&made.public, &NoAuth, later()).unwrap();
    assert!(released.ikm.ct_eq(&made.ikm));
    assert_eq!(released.remaining_this_boot, Some(0));
    let e = both.release(&made.public, &NoAuth, later()).unwrap_err();
    assert_eq!(e.remedy(), Remedy::Reboot, "{e}");
}

#[test]
fn a_hook_and_a_key_file_keep_to_the_contract() {
    let place = Place::new();
    let text = "#!/bin/sh\nprintf 64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80\n";
    let hook = place.file("hook", text, 0o700);
    let file = place.path("key");
    let make = |threshold: Option<u8>| {
        let exec = ExecSource::new(&hook, Vec::new(), None, clock());
        let software = SoftwareSource::new(&file, Arc::new(OsDisk), Arc::new(OsEntropy));
        let parts = vec![Part::new(Box::new(exec), LIMIT), Part::new(Box::new(software), LIMIT)];
        let made = match threshold {
            Some(t) => CombinedSource::threshold(t, parts, clock(), Arc::new(OsEntropy)),
            None => CombinedSource::all(parts, clock(), Arc::new(OsEntropy)),
        };
        Box::new(made.unwrap()) as Box<dyn KeySource>
    };
    for threshold in [None, Some(1), Some(2)] {
        key_source_contract(&|| make(threshold), &PolicyRequest::default(), &NoAuth);
        OsDisk.remove_file(&file).unwrap();
    }
}
