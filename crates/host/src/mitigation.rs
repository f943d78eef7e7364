//! Tests must bite: with a mitigation switched off, the test that attacks its threat must fail (`cargo xtask threats
//! --bite`).

/// Whether the mitigation of this name is in force. In every build but one it is the constant `true`; with the
/// test-only feature `bite` the one that `EDGEKEEP_BITE` names is off.
#[cfg(not(feature = "bite"))]
#[inline(always)]
pub const fn in_force(_name: &str) -> bool {
    true
}

/// Whether the mitigation of this name is in force: all but the one that `EDGEKEEP_BITE` names.
#[cfg(feature = "bite")]
pub fn in_force(name: &str) -> bool {
    SWITCH.is_some_and(|switch| std::env::var(switch).as_deref() != Ok(name))
}

/// The variable that names the mitigation that is off; a build without the feature does not even know its name, which
/// is how `cargo xtask release` tells the two apart.
pub const SWITCH: Option<&str> = if cfg!(feature = "bite") { Some("EDGEKEEP_BITE") } else { None };
