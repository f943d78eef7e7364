//! What does not protect a device, said plainly: by `up`, by `up --check` and by `doctor`.

use boot::plan::{
    Access, AfterClose, AuditSync, PinPlace, Plan, Profile, RecoverySpec, Reunseal, SourceSpec, StoreSpec, Terms,
};
use host::Disk;
use std::path::Path;

/// What a plan leaves unprotected, a sentence each, the worst first.
pub(crate) fn of_plan(plan: &Plan) -> Vec<String> {
    let mut lacking = Vec::new();
    let mut say = |text: String| lacking.push(text);
    match plan.store.external().map(|s| (s, &s.terms)) {
        Some((store, Terms::Guest(access))) => {
            let file = match access {
                Access::TokenFile(path) | Access::AppRole { secret_id_file: path, .. } => path,
            };
            say(format!(
                "whoever reads {} can give himself every secret of the plan in {}",
                file.display(),
                store.address()
            ));
            say("the secrets are as safe as the store is kept by whoever keeps it: edgekeep does not see how".into());
        }
        Some((_, Terms::Owner { reunseal: Reunseal::Always, .. })) => {
            say("a store that is made to crash is unsealed again for whoever made it ([store] reunseal)".into());
        }
        _ => {}
    }
    for source in &plan.sources {
        of_source(source, &mut say);
    }
    if let [first, .., last] = &plan.sources[..] {
        say(format!(
            "each of the {} key sources opens the store alone, the weakest too ({first} ... {last})",
            plan.sources.len()
        ));
    }
    if plan.profile == Profile::Demo {
        say("this is a demo: no device should be run with it".into());
    }
    if plan.recovery == Some(RecoverySpec::None) && plan.store.has_slots() {
        say("nobody holds a recovery key: losing the key source loses every secret".into());
    }
    if plan.release.after_close == Some(AfterClose::Keeper) {
        let say_so =
            "a keeper has the key until the device restarts: root of this boot gets it there ([release] after_close)";
        say(say_so.into());
    }
    let dangers = plan.dangers;
    if dangers.short_ikm {
        say("key material of less than 32 octets is taken (danger_short_ikm)".into());
    }
    if dangers.any_machine {
        say("an image of this device opens on any machine that has its key (danger_any_machine)".into());
    }
    if dangers.plain_http {
        say("tokens and secrets cross loopback in clear (danger_plain_http)".into());
    }
    if dangers.tokens_on_disk {
        say("tokens may lie on a disk, where they outlive the power (danger_tokens_on_disk)".into());
    }
    if dangers.readable_tokens {
        say("every user of this device may read a token (danger_readable_tokens)".into());
    }
    if plan.store != StoreSpec::Ours {
        return lacking;
    }
    if plan.audit.sync != AuditSync::Each {
        say("the last audit records of reads can be lost with the power (audit.sync)".into());
    }
    say("a copy of the whole disk, put back later, is not noticed: there is no hardware counter".into());
    lacking
}

/// What protects a combination is what enough of its parts do: of `all` it suffices that one does.
fn of_combination(threshold: Option<u8>, parts: &[SourceSpec], say: &mut dyn FnMut(String)) {
    let without = |held: fn(&SourceSpec) -> bool| parts.iter().filter(|p| !held(p)).count();
    let needed = threshold.map_or(parts.len(), usize::from);
    let measured = |p: &SourceSpec| matches!(p, SourceSpec::Tpm(tpm) if !tpm.pcrs.is_empty());
    let counted = |p: &SourceSpec| matches!(p, SourceSpec::Tpm(tpm) if tpm.releases_per_boot.is_some());
    if without(measured) >= needed {
        say(format!("the state of the device is not measured by enough parts: {needed} of them do without"));
    }
    if without(counted) >= needed {
        say("the key comes again to whoever becomes root later: too few parts count (releases_per_boot)".into());
    }
}

/// What one source leaves unprotected.
fn of_source(source: &SourceSpec, say: &mut dyn FnMut(String)) {
    match source {
        SourceSpec::Software { file } => {
            say(format!("the key is in {}: whoever has this disk has every secret", file.display()));
        }
        SourceSpec::Tpm(tpm) => {
            if tpm.pcrs.is_empty() {
                say("the state of the device is not measured: any system that boots on it has the key (source.pcrs)"
                    .into());
            }
            if tpm.releases_per_boot.is_none() {
                say("the TPM gives the key again to whoever becomes root later (source.releases_per_boot)".into());
            }
        }
        SourceSpec::Credential { name, .. } => {
            say(format!(
                "the key is as safe as systemd keeps the credential {name}, and root may read it while the unit runs"
            ));
        }
        SourceSpec::Escrow { holder, .. } => {
            let proof = if holder.identity.is_some() { "its private key" } else { "its password" };
            say(format!(
                "whoever copies the disk has {proof}, and the key from {} until the device is shut out there",
                holder.address()
            ));
        }
        SourceSpec::Combined { threshold, parts } => of_combination(*threshold, parts, say),
        SourceSpec::Tang { .. } => {
            say("the state of the device is not measured: any system that boots on it and reaches the servers has the key"
                .into());
            say("Tang servers ask nobody who he is: whoever copies the disk and stands on their network has the key"
                .into());
        }
        SourceSpec::Pkcs11 { setup, pin, .. } => {
            say(format!(
                "the state of the device is not measured: whoever has the token {}{} has the key",
                setup.token.label,
                if matches!(pin, Some(PinPlace::File(_))) { " and its PIN from this disk" } else { "" }
            ));
            if setup.danger_last_try {
                say("a wrong PIN may lock the token for good (danger_last_pin_try)".into());
            }
        }
        SourceSpec::Exec { path, .. } => {
            say(format!(
                "the state of the device is not measured: whoever can run {} as root has the key",
                path.display()
            ));
        }
    }
}

/// What the machine below leaves unprotected. `root` is `/`, but for tests.
pub(crate) fn of_machine(disk: &dyn Disk, root: &Path) -> Vec<String> {
    let text = |path: &str| {
        let bytes = disk.read(&root.join(path), MAX_BYTES).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let mut lacking = Vec::new();
    // Its first line is the heading.
    if text("proc/swaps").is_some_and(|t| t.lines().count() > 1) {
        lacking.push("there is swap: token files on a tmpfs can reach the disk; turn it off or encrypt it".to_owned());
    }
    if text("proc/sys/kernel/yama/ptrace_scope").is_none_or(|t| t == "0") {
        lacking.push(
            "kernel.yama.ptrace_scope is 0 or absent: services of one user can read each other's tokens from memory"
                .to_owned(),
        );
    }
    if text("proc/sys/kernel/kptr_restrict").is_some_and(|t| t == "0") {
        lacking.push("kernel.kptr_restrict is 0: kernel addresses are shown to every user".to_owned());
    }
    if text("sys/kernel/security/lockdown").is_none_or(|t| t.contains("[none]")) {
        lacking.push("the kernel is not locked down: root can read all memory".to_owned());
    }
    lacking
}

const MAX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsDisk;

    #[test]
    fn the_demo_says_the_worst_first() {
        let wish = config::Demo { data_dir: Path::new("/d"), run_dir: Path::new("/r"), listen: None };
        let lacking = of_plan(&config::demo(&wish).unwrap());
        assert!(lacking[0].contains("/d/software.key"), "{lacking:?}");
        assert!(lacking.iter().any(|l| l.contains("recovery")));
    }

    #[test]
    fn swap_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/sys/kernel/yama")).unwrap();
        let put = |p: &str, t: &str| OsDisk.replace(&root.path().join(p), t.as_bytes(), 0o644, None).unwrap();
        put("proc/swaps", "Filename Type Size Used Priority\n");
        put("proc/sys/kernel/yama/ptrace_scope", "1\n");
        assert!(!of_machine(&OsDisk, root.path()).iter().any(|l| l.contains("swap") || l.contains("ptrace")));
        put("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n");
        put("proc/sys/kernel/yama/ptrace_scope", "0\n");
        let lacking = of_machine(&OsDisk, root.path());
        assert!(lacking[0].contains("swap") && lacking[1].contains("ptrace"), "{lacking:?}");
    }
}
