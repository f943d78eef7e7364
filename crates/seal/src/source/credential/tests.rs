//! Files as systemd leaves them, and as it would never; and the real `systemd-creds`, with swtpm and with a key of the
//! host.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use host::{OsClock, OsDisk, Owner};

use super::super::NoAuth;
use super::super::contract::key_source_contract;
use super::*;

const OCTETS: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

fn source(dir: &Path, form: CredentialForm) -> CredentialSource {
    CredentialSource::new(dir, "ikm".parse().unwrap(), form, Arc::new(OsDisk))
}

fn soon() -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), Duration::from_secs(10))
}

fn provision(source: &mut CredentialSource) -> Result<Provisioned, SourceError> {
    source.provision(&PolicyRequest::default(), &NoAuth, soon())
}

fn with(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    OsDisk.write_new(&dir.path().join("ikm"), bytes, 0o400, None).unwrap();
    dir
}

fn distrusted(source: &mut CredentialSource) -> String {
    assert!(source.probe(soon()).is_err(), "a probe looks as closely");
    match provision(source).unwrap_err() {
        SourceError::NotTrusted { defect, .. } => defect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keeps_to_the_contract_in_both_forms() {
    let dir = with(&hex::decode(OCTETS).unwrap());
    key_source_contract(&|| Box::new(source(dir.path(), CredentialForm::Raw)), &PolicyRequest::default(), &NoAuth);
    let dir = with(format!("{OCTETS}\n").as_bytes());
    key_source_contract(&|| Box::new(source(dir.path(), CredentialForm::Hex)), &PolicyRequest::default(), &NoAuth);
}

#[test]
fn octets_that_are_no_key_material() {
    let defect = |bytes: &[u8], form| provision(&mut source(with(bytes).path(), form)).unwrap_err().to_string();
    for (bytes, form) in [
        (&[7; 32][..], CredentialForm::Raw),
        (&[1, 2, 3], CredentialForm::Raw),
        (&[], CredentialForm::Raw),
        (b"0011", CredentialForm::Hex),
    ] {
        assert!(defect(bytes, form).ends_with("gave no usable key material"), "{bytes:?}");
    }
    for (bytes, form) in [
        (&[7; 4097][..], CredentialForm::Raw),
        (&[b'a'; 8194], CredentialForm::Hex),
        (OCTETS.to_uppercase().as_bytes(), CredentialForm::Hex),
        (&hex::decode(OCTETS).unwrap(), CredentialForm::Hex),
        (b"", CredentialForm::Hex),
    ] {
        assert!(defect(bytes, form).contains("is not key material"), "{bytes:?}");
    }
}

#[test]
fn files_that_somebody_else_could_read_or_have_written() {
    let dir = with(&hex::decode(OCTETS).unwrap());
    let file = dir.path().join("ikm");
    let mut source = source(dir.path(), CredentialForm::Raw);
    for mode in [0o404, 0o420, 0o440, 0o444, 0o602, 0o620, 0o666] {
        OsDisk.set_mode(&file, mode).unwrap();
        let listed = mode == 0o440 && rustix::process::geteuid().is_root();
        assert_eq!(provision(&mut source).is_ok(), listed, "{mode:o}");
    }
    OsDisk.set_mode(&file, 0o400).unwrap();
    OsDisk.set_mode(dir.path(), 0o770).unwrap();
    assert_eq!(distrusted(&mut source), "others may write to it (mode 770)");
    OsDisk.set_mode(dir.path(), 0o500).unwrap();
    assert!(provision(&mut source).is_ok());
}

#[test]
fn files_that_belong_to_somebody_else() {
    if testkit::is_root_skipped() {
        return;
    }
    let dir = with(&hex::decode(OCTETS).unwrap());
    let file = dir.path().join("ikm");
    let mut source = source(dir.path(), CredentialForm::Raw);
    OsDisk.chown(&file, Owner { uid: 4242, gid: 0 }).unwrap();
    assert_eq!(distrusted(&mut source), "it belongs to user 4242; root or user 0 is expected");
    OsDisk.chown(&file, Owner { uid: 0, gid: 4242 }).unwrap();
    OsDisk.set_mode(&file, 0o440).unwrap();
    assert_eq!(distrusted(&mut source), "its mode 440 lets others in; 400 is expected");
    OsDisk.chown(&file, Owner { uid: 0, gid: 0 }).unwrap();
    OsDisk.chown(dir.path(), Owner { uid: 4242, gid: 0 }).unwrap();
    assert_eq!(distrusted(&mut source), "it belongs to user 4242; root or user 0 is expected");
}

#[test]
fn what_is_no_file() {
    let dir = with(&hex::decode(OCTETS).unwrap());
    let there = dir.path().join("ikm");
    let other = tempfile::tempdir().unwrap();
    let missing = provision(&mut source(other.path(), CredentialForm::Raw)).unwrap_err();
    assert!(matches!(missing, SourceError::NotPresent { .. }), "{missing}");
    std::os::unix::fs::symlink(&there, other.path().join("ikm")).unwrap();
    assert_eq!(distrusted(&mut source(other.path(), CredentialForm::Raw)), "it is not a regular file");
    let link = other.path().join("dir");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert_eq!(distrusted(&mut source(&link, CredentialForm::Raw)), "it is not a directory");
}

#[test]
fn another_name_or_form_is_another_credential() {
    let dir = with(format!("{OCTETS}{OCTETS}").as_bytes());
    OsDisk.write_new(&dir.path().join("other"), OCTETS.as_bytes(), 0o400, None).unwrap();
    let made = provision(&mut source(dir.path(), CredentialForm::Hex)).unwrap();
    let other = CredentialSource::new(dir.path(), "other".parse().unwrap(), CredentialForm::Hex, Arc::new(OsDisk));
    for mut wrong in [other, source(dir.path(), CredentialForm::Raw)] {
        let refused = wrong.release(&made.public, &NoAuth, soon()).unwrap_err();
        assert!(matches!(refused, SourceError::WrongDevice { .. }), "{refused}");
    }
}

#[test]
fn names() {
    for good in ["ikm", "edgekeep.ikm", "edgekeep-ikm_1", &"x".repeat(255)] {
        assert!(good.parse::<CredentialName>().is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\0", "\u{e9}", &"x".repeat(256)] {
        assert_eq!(bad.parse::<CredentialName>(), Err(CredentialNameError), "{bad}");
    }
}

/// Runs the real `systemd-creds`, on a machine whose own state is in `host`; what it printed.
fn systemd_creds(host: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    use std::io::Write;
    // In a mount namespace: the key of this host is none of a test's business.
    let script = "mount --bind \"$0\" /var/lib/systemd && exec systemd-creds \"$@\"";
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(host)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("systemd-creds is missing: apt-get install systemd, or EDGEKEEP_TEST_SKIP=systemd-creds");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// As the service manager does for `LoadCredentialEncrypted=ikm:FILE`: decrypted into a directory of the unit.
fn load(host: &Path, arguments: &[&str], sealed: &[u8]) -> Result<tempfile::TempDir, String> {
    let clear = systemd_creds(host, &[&["decrypt"], arguments, &["--name=ikm", "-", "-"]].concat(), sealed)?;
    let dir = with(&clear);
    OsDisk.set_mode(dir.path(), 0o500).unwrap();
    Ok(dir)
}

#[test]
fn a_credential_that_systemd_seals_to_a_tpm() {
    if testkit::is_skipped("swtpm") || testkit::is_skipped("systemd-creds") {
        return;
    }
    let (mut tpm, host) = (testkit::Swtpm::start(), tempfile::tempdir().unwrap());
    let socket = tpm.socket();
    // libtss2 expects the control channel by this name.
    std::os::unix::fs::symlink("ctrl", socket.with_extension("ctrl")).unwrap();
    let device = format!("--tpm2-device=swtpm:path={}", socket.display());
    tpm.extend(7, 0x77);
    let seal = ["encrypt", "--with-key=tpm2", &device, "--tpm2-pcrs=7", "--name=ikm", "-", "-"];
    let sealed = systemd_creds(host.path(), &seal, OCTETS.as_bytes()).unwrap();
    let dir = load(host.path(), &[&device], &sealed).unwrap();
    let made = provision(&mut source(dir.path(), CredentialForm::Hex)).unwrap();
    // The next start of the device.
    tpm.reboot();
    tpm.extend(7, 0x77);
    let dir = load(host.path(), &[&device], &sealed).unwrap();
    let released = source(dir.path(), CredentialForm::Hex).release(&made.public, &NoAuth, soon()).unwrap();
    assert!(released.ikm.ct_eq(&made.ikm));
    // Another state of the device: systemd itself gives nothing, and the unit does not start.
    tpm.reboot();
    tpm.extend(7, 0x78);
    let refused = load(host.path(), &[&device], &sealed).unwrap_err();
    assert!(refused.contains("policy digest"), "{refused}");
}

#[test]
fn a_credential_that_systemd_seals_to_a_key_of_the_host() {
    if testkit::is_skipped("systemd-creds") {
        return;
    }
    let (raw, host) = (hex::decode(OCTETS).unwrap(), tempfile::tempdir().unwrap());
    let sealed = systemd_creds(host.path(), &["encrypt", "--with-key=host", "--name=ikm", "-", "-"], &raw).unwrap();
    let dir = load(host.path(), &[], &sealed).unwrap();
    let made = provision(&mut source(dir.path(), CredentialForm::Raw)).unwrap();
    assert_eq!(made.ikm.expose(), raw);
}
