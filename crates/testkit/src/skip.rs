//! Tests that need a real component, on a machine that cannot have it.

use std::io::Write;

/// Whether `EDGEKEEP_TEST_SKIP` names this component. Then it says so, with the name of the test, in a line that
/// `cargo xtask threats` reads: a test that was skipped has proven nothing, though it ends without a fault.
pub fn is_skipped(component: &str) -> bool {
    let skipped = is_in(&std::env::var("EDGEKEEP_TEST_SKIP").unwrap_or_default(), component);
    if skipped {
        // libtest names each test's thread after it. Not `println!`, which is captured with a test that passes.
        let thread = std::thread::current();
        let line = format!("skipped by EDGEKEEP_TEST_SKIP: {component}: {}\n", thread.name().unwrap_or("?"));
        std::io::stderr().write_all(line.as_bytes()).expect("a test has a standard error");
    }
    skipped
}

/// Whether to leave out what only root can do, such as giving a file to another user: where `root` is skipped.
///
/// # Panics
/// If it is neither skipped nor possible here.
pub fn is_root_skipped() -> bool {
    let skipped = is_skipped("root");
    let root = rustix::process::geteuid().is_root();
    assert!(skipped || root, "only root can do what this test tries: run it as root, or set EDGEKEEP_TEST_SKIP=root");
    skipped
}

/// Whether the limits of figures are asserted (`EDGEKEEP_TEST_FIGURES=1`): on a machine that does nothing else.
/// Elsewhere figures are printed, for a slow machine is no defect of what is measured.
pub fn are_figures_held() -> bool {
    std::env::var("EDGEKEEP_TEST_FIGURES").is_ok_and(|held| held == "1")
}

fn is_in(list: &str, component: &str) -> bool {
    list.split(',').any(|name| name.trim() == component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_skipped_by_its_whole_name() {
        assert!(is_in("redis, openssl", "openssl") && is_in("age", "age"));
        assert!(!is_in("", "age") && !is_in("storage", "age") && !is_in("age-keygen", "age"));
    }

    /// The line of a skipped test counts for this name.
    #[test]
    fn a_tests_thread_has_its_name() {
        let name = std::thread::current().name().unwrap().to_owned();
        assert_eq!(name, "skip::tests::a_tests_thread_has_its_name");
    }
}
