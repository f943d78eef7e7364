//! Hooks of every kind, run for real: the good one, and one for each way to be bad.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use host::{Disk, OsClock, OsDisk};
use rustix::process::{Pid, test_kill_process_group};

use super::super::NoAuth;
use super::super::contract::key_source_contract;
use super::*;
use crate::ikm::IkmError;

const DOCUMENTED: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

/// A directory for hooks.
pub(in crate::source) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(in crate::source) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(in crate::source) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(in crate::source) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        testkit::lay_program(&path, text, mode);
        path
    }

    /// A hook of these shell lines.
    fn hook(&self, lines: &str) -> ExecSource {
        source(&self.file("hook", &format!("#!/bin/sh\n{lines}\n"), 0o700))
    }
}

fn source(path: &Path) -> ExecSource {
    ExecSource::new(path, Vec::new(), None, Arc::new(OsClock::new().unwrap()))
}

fn asked(env: &[(String, String)]) -> Asked<'_> {
    Asked { env, input: None, deadline: Deadline::after(&OsClock::new().unwrap(), HOOK_LIMIT) }
}

fn release(source: &mut ExecSource, limit: Duration) -> Result<Ikm, SourceError> {
    let deadline = Deadline::after(&*source.clock, limit);
    source.release(&SlotPublic::bare(SourceKind::Exec), &NoAuth, deadline).map(|r| r.ikm)
}

fn provision(source: &mut ExecSource, policy: &PolicyRequest) -> Result<Provisioned, SourceError> {
    let deadline = Deadline::after(&*source.clock, HOOK_LIMIT);
    source.provision(policy, &NoAuth, deadline)
}

/// A hook is killed at its deadline; whoever reads of it finds the limit that he wrote, not what was left when the hook
/// began.
#[test]
fn a_hook_that_hangs_is_told_with_the_limit_that_was_written() {
    let (place, limit) = (Place::new(), Duration::from_secs(1));
    let mut source = place.hook("sleep 60");
    let late = Deadline::after(&*source.clock, limit).half(&*source.clock);
    let twice = Deadline::after_each(&*source.clock, limit / 2, 2);
    let refused = [
        source.release(&SlotPublic::bare(SourceKind::Exec), &NoAuth, late).map(drop).unwrap_err(),
        source.provision(&PolicyRequest::default(), &NoAuth, twice).map(drop).unwrap_err(),
    ];
    let told = refused.map(|e| e.to_string());
    assert!(told[0].ends_with("hook did not finish within 1s"), "{told:?}");
    assert!(told[1].ends_with("hook did not finish within 500ms"), "{told:?}");
}

fn soon(source: &mut ExecSource) -> Result<Ikm, SourceError> {
    release(source, HOOK_LIMIT)
}

fn defect(result: Result<Ikm, SourceError>) -> String {
    match result.unwrap_err() {
        SourceError::BadOutput { defect, .. } => defect.to_owned(),
        SourceError::NotTrusted { defect, .. } => defect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_hook_of_any_length() {
    let place = Place::new();
    for hex in [DOCUMENTED.to_owned(), DOCUMENTED.repeat(2), DOCUMENTED.repeat(32)[..2000].to_owned()] {
        for line in [format!("echo {hex}"), format!("printf %s {hex}")] {
            let ikm = soon(&mut place.hook(&line)).unwrap();
            assert_eq!(hex::encode(ikm.expose()), hex);
        }
    }
    assert!(provision(&mut place.hook(&format!("echo {DOCUMENTED}")), &PolicyRequest::default()).is_ok());
}

#[test]
fn what_is_asked_is_read_from_the_standard_input() {
    let place = Place::new();
    let clock = OsClock::new().unwrap();
    let ask = |lines: &str, input: &[u8]| {
        let path = place.file("helper", &format!("#!/bin/sh\n{lines}\n"), 0o700);
        let asked = Asked { input: Some(zeroize::Zeroizing::new(input.to_vec())), ..asked(&[]) };
        process::run(&Trusted::open(&path).unwrap(), asked, &clock)
    };
    assert_eq!(ask("cat", b"a question").unwrap().as_slice(), b"a question");
    assert_eq!(ask("cat | wc -c", &[b'a'; 4096]).unwrap().as_slice(), b"4096\n");
    // One that does not listen cannot block us, and one that has gone away is heard all the same.
    assert_eq!(ask("echo 00", &[b'a'; 4096]).unwrap().as_slice(), b"00\n");
    assert!(matches!(ask("cat", &[b'a'; 4097]), Err(SourceError::Os { .. })), "more than a page might block");
}

#[test]
fn keeps_to_the_contract() {
    let place = Place::new();
    let path = place.file("hook", &format!("#!/bin/sh\necho {DOCUMENTED}\n"), 0o700);
    key_source_contract(&|| Box::new(source(&path)), &PolicyRequest::default(), &NoAuth);
}

#[test]
fn bad_output_by_name() {
    let place = Place::new();
    for line in ["true", "echo"] {
        assert_eq!(defect(soon(&mut place.hook(line))), "it is empty");
    }
    for text in [&DOCUMENTED.to_uppercase(), "0x00", "not hex", &format!("{DOCUMENTED}\\n{DOCUMENTED}")] {
        let got = defect(soon(&mut place.hook(&format!("printf '{text}\\n'"))));
        assert_eq!(got, "it has a character that is no lower-case hexadecimal digit", "{text}");
    }
    assert_eq!(defect(soon(&mut place.hook("echo 123"))), "it has an odd number of digits");
}

#[test]
fn short_or_dead_key_material() {
    let place = Place::new();
    let ikm_error = |result: Result<Ikm, SourceError>| match result {
        Err(SourceError::Ikm { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let mut hook = place.hook(&format!("echo {}", &DOCUMENTED[..62]));
    assert_eq!(ikm_error(soon(&mut hook)), IkmError::TooShort { octets: 31, least: 32 });
    hook.short = Some(ShortIkmAllowed::danger_short_ikm());
    assert!(soon(&mut hook).is_ok());
    let mut hook = place.hook(&format!("echo {}", &DOCUMENTED[..30]));
    hook.short = Some(ShortIkmAllowed::danger_short_ikm());
    assert_eq!(ikm_error(soon(&mut hook)), IkmError::TooShort { octets: 15, least: 16 });
    assert_eq!(ikm_error(soon(&mut place.hook(&format!("echo {}", "00".repeat(512))))), IkmError::Constant);
}

#[test]
fn hex_and_a_bad_end_are_a_failure() {
    let place = Place::new();
    for (end, status) in [("exit 3", "exit status: 3"), ("kill -9 $$", "signal: 9 (SIGKILL)")] {
        match soon(&mut place.hook(&format!("echo {DOCUMENTED}\n{end}"))) {
            Err(SourceError::HookFailed { status: got, .. }) => assert_eq!(got, status),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_it_started() {
    let place = Place::new();
    let pid = place.path("pid");
    let mut hook = place.hook(&format!("echo $$ > {}\nsleep 300 &\nsleep 300", pid.display()));
    // Ever more time, until it has begun before it was killed.
    let limits = (0..8).map(|n| Duration::from_millis(500 << n));
    let begun = limits.into_iter().find_map(|limit| {
        assert!(matches!(release(&mut hook, limit), Err(SourceError::TimedOut { .. })));
        fs::read_to_string(&pid).ok()?.trim().parse().ok()
    });
    gone(Pid::from_raw(begun.expect("the hook begins within a minute")).unwrap());
}

/// Waits until no process of the group is left but those that init has still to reap.
fn gone(group: Pid) {
    let clock = OsClock::new().unwrap();
    let start = clock.boottime();
    while test_kill_process_group(group).is_ok() {
        assert!(clock.boottime().since(start) < Duration::from_secs(120), "the group of {group:?} is alive");
        std::thread::yield_now();
    }
}

#[test]
fn a_child_left_behind_with_the_output_open_is_a_timeout() {
    let place = Place::new();
    let mut hook = place.hook(&format!("sleep 300 &\necho {DOCUMENTED}\nexit 0"));
    assert!(matches!(release(&mut hook, Duration::from_millis(700)), Err(SourceError::TimedOut { .. })));
}

#[test]
fn a_child_left_behind_quietly_dies_with_the_hook() {
    let place = Place::new();
    let pid = place.path("pid");
    let mut hook = place.hook(&format!("echo $$ > {}\nsleep 300 > /dev/null 2>&1 &\necho {DOCUMENTED}", pid.display()));
    assert!(soon(&mut hook).is_ok());
    gone(Pid::from_raw(fs::read_to_string(pid).unwrap().trim().parse().unwrap()).unwrap());
}

#[test]
fn floods_end_early() {
    let place = Place::new();
    let mut endless = place.hook(&format!("while :; do echo {DOCUMENTED}; done"));
    assert_eq!(defect(soon(&mut endless)), "it has more than 8192 digits");
    let mut complaining = place.hook("while :; do echo complaint >&2; done");
    assert!(matches!(release(&mut complaining, Duration::from_millis(500)), Err(SourceError::TimedOut { .. })));
    let mut talkative =
        place.hook(&format!("i=0\nwhile [ $i -lt 20000 ]; do echo complaint >&2; i=$((i+1)); done\necho {DOCUMENTED}"));
    assert!(soon(&mut talkative).is_ok(), "complaints beyond what is kept do not block the hook");
}

#[test]
fn environment_input_and_directory_are_ours() {
    let place = Place::new();
    let seen = place.path("seen");
    let mut hook = place.hook(&format!(
        "{{ /usr/bin/env; echo cwd=$(/bin/pwd); }} > {}\nread line && exit 9\necho {DOCUMENTED}",
        seen.display()
    ));
    hook.env = vec![("TPM2TOOLS_TCTI".into(), "device:/dev/tpmrm0".into())];
    assert!(soon(&mut hook).is_ok());
    let seen = fs::read_to_string(seen).unwrap();
    let mut names: Vec<&str> = seen.lines().filter_map(|l| l.split('=').next()).collect();
    names.retain(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n)); // the shell's own
    names.sort();
    assert_eq!(names, ["TPM2TOOLS_TCTI", "cwd"]);
    assert!(seen.contains("cwd=/\n"), "{seen}");
}

#[test]
fn a_source_that_drifts_is_not_provisioned() {
    let place = Place::new();
    let count = place.path("count");
    let mut hook = place.hook(&format!(
        "echo x >> {c}\nprintf %s {DOCUMENTED}\nwc -l < {c} | tr -d ' ' | sed 's/^/0/'",
        c = count.display()
    ));
    hook.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    assert!(matches!(provision(&mut hook, &PolicyRequest::default()), Err(SourceError::Drifts { .. })));
}

#[test]
fn policies_that_a_hook_cannot_hold_to_are_refused_before_it_runs() {
    let place = Place::new();
    let ran = place.path("ran");
    let mut hook = place.hook(&format!("touch {}\necho {DOCUMENTED}", ran.display()));
    let policy = PolicyRequest { releases_per_boot: std::num::NonZeroU8::new(1), ..Default::default() };
    assert!(matches!(
        provision(&mut hook, &policy),
        Err(SourceError::PolicyUnenforceable { what: "releases_per_boot", .. })
    ));
    assert!(!ran.exists());
    assert!(matches!(
        hook.release(
            &SlotPublic::bare(SourceKind::Software),
            &NoAuth,
            Deadline::after(&OsClock::new().unwrap(), HOOK_LIMIT)
        ),
        Err(SourceError::OtherSlot { kind: SourceKind::Exec })
    ));
}

#[test]
fn a_hook_that_others_may_write_is_not_run() {
    let place = Place::new();
    let ran = place.path("ran");
    let text = format!("#!/bin/sh\n/usr/bin/touch {}\necho {DOCUMENTED}\n", ran.display());
    for mode in [0o720, 0o702, 0o777] {
        let path = place.file("writable", &text, mode);
        assert_eq!(defect(soon(&mut source(&path))), format!("others may write to it (mode {mode:03o})"));
    }
    let path = place.file("plain", &text, 0o600);
    assert_eq!(defect(soon(&mut source(&path))), "it is not executable (mode 600)");
    assert!(!ran.exists());
}

#[test]
fn every_directory_above_is_looked_at() {
    let place = Place::new();
    let (open, below) = (place.path("open"), place.path("open/below"));
    fs::create_dir_all(&below).unwrap();
    let path = place.file("open/below/hook", &format!("#!/bin/sh\necho {DOCUMENTED}\n"), 0o700);
    assert!(soon(&mut source(&path)).is_ok());
    for mode in [0o770, 0o707] {
        fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        assert_eq!(defect(soon(&mut source(&path))), format!("others may write in it (mode {mode:03o})"));
    }
    // With the sticky bit only the owner of an entry can displace it.
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    assert!(soon(&mut source(&path)).is_ok());
    // The directory that holds a link decides as well.
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    place.file("hook", &format!("#!/bin/sh\necho {DOCUMENTED}\n"), 0o700);
    let link = place.path("open/link");
    symlink("../hook", &link).unwrap();
    assert_eq!(defect(soon(&mut source(&link))), "others may write in it (mode 777)");
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    assert!(soon(&mut source(&link)).is_ok());
}

#[test]
fn what_belongs_to_another_user_is_not_run() {
    if testkit::is_root_skipped() {
        return;
    }
    const NOBODY: Option<u32> = Some(65534);
    let place = Place::new();
    let text = format!("#!/bin/sh\necho {DOCUMENTED}\n");
    let expected = "it belongs to user 65534; root or user 0 is expected";
    let path = place.file("foreign", &text, 0o700);
    chown(&path, NOBODY, NOBODY).unwrap();
    assert_eq!(defect(soon(&mut source(&path))), expected);
    let dir = place.path("dir");
    fs::create_dir(&dir).unwrap();
    let path = place.file("dir/hook", &text, 0o700);
    chown(&dir, NOBODY, NOBODY).unwrap();
    assert_eq!(defect(soon(&mut source(&path))), expected);
    // In a sticky directory whoever owns the link says where it leads.
    let (good, link) = (place.file("good", &text, 0o700), place.path("link"));
    symlink(&good, &link).unwrap();
    std::os::unix::fs::lchown(&link, NOBODY, NOBODY).unwrap();
    assert_eq!(defect(soon(&mut source(&link))), expected);
}

#[test]
fn the_interpreter_is_looked_at_too() {
    let place = Place::new();
    let run = |first: &str| soon(&mut source(&place.file("hook", &format!("{first}\necho {DOCUMENTED}\n"), 0o700)));
    let shell = place.path("shell");
    testkit::copy_program(Path::new("/bin/sh"), &shell);
    fs::set_permissions(&shell, Permissions::from_mode(0o755)).unwrap();
    assert!(run(&format!("#! {}", shell.display())).is_ok());
    fs::set_permissions(&shell, Permissions::from_mode(0o757)).unwrap();
    assert_eq!(defect(run(&format!("#!{}", shell.display()))), "others may write to it (mode 757)");
    assert_eq!(defect(run("#!/usr/bin/env sh")), "it leaves the choice of its interpreter to `env`");
    let script = place.file("script", "#!/bin/sh\n", 0o700);
    let not_a_program = "it is named as an interpreter and is no program";
    assert_eq!(defect(run(&format!("#!{}", script.display()))), not_a_program);
    for first in ["#!sh", "#!", "#! \t", &format!("#!/{}", "x".repeat(300))] {
        assert_eq!(defect(run(first)), "its first line names no interpreter by an absolute path", "{first}");
    }
    assert_eq!(defect(run("")), "it is neither a program nor a script that begins with `#!`");
}

#[test]
fn what_is_no_hook_at_all() {
    let place = Place::new();
    assert_eq!(defect(soon(&mut source(Path::new("hook")))), "it is not an absolute path");
    assert_eq!(defect(soon(&mut source(place.dir.path()))), "it is a directory");
    assert_eq!(defect(soon(&mut source(Path::new("/dev/null")))), "it is not a regular file");
    for missing in [place.path("none"), place.path("none/below"), "/dev/null/below".into()] {
        assert!(matches!(
            soon(&mut source(&missing)),
            Err(SourceError::NotPresent { .. } | SourceError::NotTrusted { .. })
        ));
    }
    let ring = place.path("ring");
    symlink(&ring, &ring).unwrap();
    assert_eq!(defect(soon(&mut source(&ring))), "more than 40 symbolic links lead on from it");
}

#[test]
fn what_was_checked_is_what_runs() {
    let place = Place::new();
    let path = place.file("hook", &format!("#!/bin/sh\necho {DOCUMENTED}\n"), 0o700);
    let checked = Trusted::open(&path).unwrap();
    let other = place.file("other", "#!/bin/sh\necho 00\n", 0o700);
    OsDisk.rename(&other, &path, true).unwrap();
    let clock = OsClock::new().unwrap();
    let line = process::run(&checked, asked(&[]), &clock).unwrap();
    assert_eq!(line.as_slice(), format!("{DOCUMENTED}\n").as_bytes());
    assert_eq!(process::run(&Trusted::open(&path).unwrap(), asked(&[]), &clock).unwrap().as_slice(), b"00\n");
}

#[test]
fn a_program_needs_no_interpreter() {
    let place = Place::new();
    let path = place.path("program");
    testkit::copy_program(Path::new("/usr/bin/env"), &path);
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    let line =
        process::run(&Trusted::open(&path).unwrap(), asked(&[("A".into(), "1".into())]), &OsClock::new().unwrap());
    assert_eq!(line.unwrap().as_slice(), b"A=1\n");
}

/// A hook that counts as ours does: a line of a file for each release.
fn counting(place: &Place, limit: u8) -> ExecSource {
    let file = place.file("releases", "", 0o600);
    place.hook(&format!(
        "n=$(/usr/bin/wc -l <{f})\n\
         if [ \"$EDGEKEEP_IKM_ASK\" = status ]; then echo \"edgekeep-ikm 1 counted $(({limit} - n)) of {limit}\"; exit; fi\n\
         [ $n -lt {limit} ] || exit 1\necho >>{f}\necho {DOCUMENTED}",
        f = file.display()
    ))
}

#[test]
fn a_hook_that_counts_is_made_a_slot_of_with_one_release_and_foreseen_with_none() {
    let place = Place::new();
    let mut hook = counting(&place, 2);
    let spent = || fs::read_to_string(place.path("releases")).unwrap().lines().count();
    let deadline = || Deadline::after(&OsClock::new().unwrap(), HOOK_LIMIT);
    let made = provision(&mut hook, &PolicyRequest::default()).unwrap();
    assert_eq!(spent(), 1);
    assert_eq!(made.public.release_limit().map(std::num::NonZeroU8::get), Some(2));
    assert!(hook.released_when_made(&made.public) && !hook.released_when_made(&SlotPublic::bare(SourceKind::Exec)));
    for _ in 0..3 {
        hook.probe(deadline()).unwrap();
        assert_eq!(hook.foresee(&made.public, deadline()).unwrap().releases_left(), Some(1));
    }
    assert_eq!(spent(), 1);
    let released = hook.release(&made.public, &NoAuth, deadline()).unwrap();
    assert!(released.ikm.ct_eq(&made.ikm));
    assert_eq!((spent(), released.remaining_this_boot), (2, Some(0)));
    // Nothing is left: that is said, and not that it has failed.
    let refused = hook.release(&made.public, &NoAuth, deadline()).unwrap_err();
    assert_eq!((refused.remedy(), spent()), (super::super::Remedy::Reboot, 2), "{refused}");
    for refused in
        [hook.foresee(&made.public, deadline()).map(drop), provision(&mut hook, &PolicyRequest::default()).map(drop)]
    {
        assert!(matches!(refused, Err(SourceError::Exhausted { .. })), "{refused:?}");
    }
}

/// The slot says that it counts; another hook stands in its place.
#[test]
fn a_hook_that_says_nothing_of_its_count_any_more_is_told() {
    let place = Place::new();
    let made = provision(&mut counting(&place, 3), &PolicyRequest::default()).unwrap();
    let mut other = place.hook(&format!("echo {DOCUMENTED}"));
    let deadline = || Deadline::after(&OsClock::new().unwrap(), HOOK_LIMIT);
    assert!(matches!(other.foresee(&made.public, deadline()), Err(SourceError::Refused { .. })));
    let released = other.release(&made.public, &NoAuth, deadline()).unwrap();
    assert!(released.ikm.ct_eq(&made.ikm) && released.remaining_this_boot.is_none());
}
