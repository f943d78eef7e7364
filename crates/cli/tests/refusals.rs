//! What the executable says and returns when it cannot or will not: two lines and the right code, and nothing is left
//! behind.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_edgekeep");

/// Runs in an empty directory with an empty environment.
fn edgekeep(dir: &Path, arguments: &[&str]) -> Output {
    run(BINARY.as_ref(), dir, arguments)
}

fn run(binary: &Path, dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary).args(arguments).current_dir(dir).env_clear().output().unwrap()
}

fn told(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn without_a_configuration_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = told(&edgekeep(dir.path(), &["up", "--config", "none.toml", "--data-dir", "data"]));
    assert_eq!(code, 64);
    assert_eq!(
        text,
        "error: there is no configuration at none.toml; nothing was done\n \
         hint: `edgekeep setup` writes one; `edgekeep up --demo` needs none\n"
    );
    assert_eq!(names(dir.path()), [] as [&str; 0]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_never_a_demo() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("edgekeep.toml"), "profile = \"demo\"\n[source\n").unwrap();
    let (code, text) = told(&edgekeep(dir.path(), &["up", "--config", "edgekeep.toml", "--data-dir", "data"]));
    assert_eq!(code, 64);
    assert!(text.starts_with("edgekeep.toml:2: not TOML"), "{text}");
    assert!(text.contains("error: 1 fault in the configuration; nothing was done\n"), "{text}");
    assert_eq!(names(dir.path()), ["edgekeep.toml"]);
}

#[test]
fn a_wrong_option_is_a_slip_with_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["up", "--dmeo"][..], &["fly"], &[], &["wait"], &["up", "--demo", "--check"], &["env", "--service", "../x"]]
    {
        let (code, text) = told(&edgekeep(dir.path(), arguments));
        assert_eq!(code, 64, "{arguments:?}: {text}");
    }
    assert_eq!(edgekeep(dir.path(), &["--help"]).status.code(), Some(0));
    assert_eq!(
        edgekeep(dir.path(), &["--version"]).stdout,
        format!("edgekeep {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
}

#[test]
fn edgexs_names_do_not_pretend() {
    let dir = tempfile::tempdir().unwrap();
    let face = dir.path().join("security-proxy-auth");
    std::os::unix::fs::symlink(BINARY, &face).unwrap();
    let (code, text) = told(&run(&face, dir.path(), &["--configDir", "res"]));
    assert_eq!(code, 64);
    assert!(text.starts_with("error: called as security-proxy-auth, which is not in this version\n hint: "), "{text}");
}

#[test]
fn waiting_for_nobody_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().to_str().unwrap();
    let (code, text) =
        told(&edgekeep(dir.path(), &["wait", "--gate", "ready", "--timeout", "0", "--run-dir", run_dir]));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: nobody answers at ") && text.contains("\n hint: start edgekeep"), "{text}");
}

#[test]
fn a_client_without_a_server_is_told_what_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().to_str().unwrap();
    let (code, text) = told(&edgekeep(dir.path(), &["env", "--service", "sensor", "--run-dir", run_dir]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("endpoint.json") && text.contains("edgekeep up"), "{text}");
    let (code, text) = told(&edgekeep(dir.path(), &["seal", "--run-dir", run_dir]));
    assert_eq!((code, text.lines().count()), (2, 2), "{text}");
}

#[test]
fn the_plan_on_paper_changes_nothing() {
    // Places of the test's own: what lies at those of the example is the machine's.
    let (dir, run) = (tempfile::tempdir().unwrap(), testkit::scratch_dir());
    let (lib, run) = (dir.path().join("lib"), run.path().join("run"));
    let places = [("/var/lib/edgekeep", lib.to_str().unwrap()), ("/run/edgekeep", run.to_str().unwrap())];
    let text = std::fs::read_to_string(example()).unwrap();
    let text = places.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours));
    std::fs::write(dir.path().join("edgekeep.toml"), text).unwrap();
    let output = edgekeep(dir.path(), &["up", "--check", "--config", "edgekeep.toml"]);
    // The example's hook is nobody's: the plan is printed, and then what `up` would say of it.
    let (code, said) = told(&output);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.starts_with("error: edgekeep is sealed: /usr/lib/edgekeep") && said.contains(" is not there"),
        "{said}"
    );
    assert_eq!((names(dir.path()), run.exists()), (vec!["edgekeep.toml".to_owned()], false));
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed = places.iter().fold(printed, |text, (theirs, ours)| text.replace(ours, theirs));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/up-check.txt");
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        std::fs::write(&golden, &printed).unwrap();
    }
    assert_eq!(printed, std::fs::read_to_string(golden).unwrap());
}

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/edgekeep.toml")
}
