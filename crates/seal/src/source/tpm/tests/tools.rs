//! Beside tpm2-tools, which know nothing of us: what root has at hand when edgekeep is done, and whether they come to
//! the same names and policies.

use testkit::Tpm2Tools;

use super::*;

/// `None` where one of them is skipped.
fn device_with_tools() -> Option<(Device, Tpm2Tools)> {
    if testkit::is_skipped("tpm2-tools") {
        return None;
    }
    let device = Device::new()?;
    let tools = Tpm2Tools::new(&device.tpm);
    Some((device, tools))
}

/// As the tools keep it: a TPM2B.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// The registers as they are, in a session of the tools; then `then`, and the session ends whatever comes of it.
fn shown(
    tools: &Tpm2Tools,
    registers: &str,
    then: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    tools.run("tpm2_startauthsession --policy-session -S policy")?;
    let done = tools.run(&format!("tpm2_policypcr -S policy -l sha256:{registers}")).and_then(|_| then());
    tools.run("tpm2_flushcontext policy")?;
    done
}

/// What a slot has sealed, by the tools alone: its policy is shown, the index asked, the object loaded and unsealed.
fn unsealed(tools: &Tpm2Tools, slot: &SlotPublic) -> Result<Vec<u8>, String> {
    let sealed = TpmSlot::read(slot).unwrap();
    let index = sealed.policy.gate.unwrap().index().unwrap().handle();
    tools.write("public", &sized(&sealed.object.public));
    tools.write("private", &sized(&sealed.object.private));
    tools.run("tpm2_load -C 0x81000001 -u public -r private -c object")?;
    shown(tools, "7,11,13", || {
        tools.run(&format!("tpm2_policysecret -S policy -c {index}"))?;
        tools.run("tpm2_unseal -c object -p session:policy -o octets")?;
        Ok(tools.read("octets"))
    })
}

#[test]
fn they_are_counted_and_have_nothing_of_a_closed_device() {
    let Some((mut device, tools)) = device_with_tools() else { return };
    let Provisioned { public, ikm } = device.provision(&limited(3)).unwrap();
    let gives_nothing = |why: &str| {
        let said = unsealed(&tools, &public).unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    const POLICY_FAIL: &str = "Esys_Unseal(0x99D)";
    const AUTH_UNAVAILABLE: &str = "Esys_PolicySecret(0x12F)";
    gives_nothing(AUTH_UNAVAILABLE);
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(2));
    assert_eq!(
        unsealed(&tools, &public).unwrap(),
        ikm.expose(),
        "the limit counts whoever asks, and this one was let in"
    );
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(0));
    gives_nothing(AUTH_UNAVAILABLE);

    device.reboot();
    device.release(&public).unwrap();
    assert!(device.source().close(&public, soon()).unwrap().is_until_reboot());
    gives_nothing(POLICY_FAIL);

    // Away with the index, and the very same in its place: of the same name once it is written, which it cannot be.
    let gate = TpmSlot::read(&public).unwrap().policy.gate.unwrap();
    let index = gate.index().unwrap().handle();
    tools.run(&format!("tpm2_nvundefine -C o {index}")).unwrap();
    gives_nothing("Esys_TR_FromTPMPublic");
    let policy = ::tpm::PolicyDigest::default().pcr(gate.register.set(), &gate.at_base()).unwrap();
    tools.write("write-policy", &policy.0);
    let kind = "nt=pinpass|policywrite|ownerread|no_da|orderly|clear_stclear";
    tools.run(&format!("tpm2_nvdefine {index} -C o -s 8 -a {kind} -L write-policy")).unwrap();
    gives_nothing(AUTH_UNAVAILABLE);
    tools.write("full", &[0, 0, 0, 0, 0, 0, 0, 100]);
    let written = shown(&tools, "13", || {
        tools.run(&format!("tpm2_nvwrite {index} -C {index} -P session:policy -i full")).map(|_| Vec::new())
    });
    let said = written.unwrap_err();
    assert!(said.contains("NV_Write(0x99D)"), "{said}");
    gives_nothing(AUTH_UNAVAILABLE);
    assert!(matches!(device.release(&public), Err(SourceError::Exhausted { .. })));
    // In the next boot it is filled as the first one was.
    device.reboot();
    assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
    assert_eq!(unsealed(&tools, &public).unwrap(), ikm.expose());
}

#[test]
fn they_do_not_read_an_index_that_was_read_in_this_boot() {
    let Some((mut device, tools)) = device_with_tools() else { return };
    let source = |device: &Device| super::nv::source(device);
    let Provisioned { public, ikm } = source(&device).provision(&limited(1), &NoAuth, soon()).unwrap();
    let index = super::super::nv::index_of(&public).unwrap().handle();
    for (name, branch) in ["read", "lock"].iter().zip(super::super::nv::branches_of(&public).unwrap()) {
        tools.write(name, &branch.0);
    }
    let read = || {
        shown(&tools, "7,11", || {
            tools.run("tpm2_policyor -S policy -l sha256:read,lock")?;
            tools.run(&format!("tpm2_nvread {index} -C {index} -P session:policy -s 32 -o octets"))?;
            Ok(tools.read("octets"))
        })
    };
    assert_eq!(read().unwrap(), ikm.expose(), "until edgekeep has read it, who has the state right has the octets");
    source(&device).release(&public, &NoAuth, soon()).unwrap();
    let said = read().unwrap_err();
    assert!(said.contains("Esys_NV_Read(0x148)"), "{said}");
    device.reboot();
    assert_eq!(read().unwrap(), ikm.expose());
}

/// The template is the TCG's, with 32 zeros for each coordinate. Where these are left out, as newer versions of systemd
/// do, the same seed makes another key.
#[test]
fn they_make_the_storage_key_that_a_slot_names() {
    let Some((device, tools)) = device_with_tools() else { return };
    let slot = device.provision(&measured()).unwrap().public;
    let ours = TpmSlot::read(&slot).unwrap().key.name;
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let named = |more: &str| {
        let made = format!("tpm2_createprimary -C o -g sha256 -G ecc256:aes128cfb -a {attributes} {more} -c key");
        tools.run(&made).unwrap();
        tools.run("tpm2_readpublic -c key -n name").unwrap();
        tools.read("name")
    };
    // A TPMS_ECC_POINT as libtss2 has it in memory: a coordinate's size, and room for the largest.
    let coordinate = [&32u16.to_ne_bytes()[..], &[0; 128]].concat();
    tools.write("unique", &coordinate.repeat(2));
    assert_eq!(named("-u unique"), ours.as_bytes());
    tools.run("tpm2_readpublic -c 0x81000001 -n name").unwrap();
    assert_eq!(tools.read("name"), ours.as_bytes(), "and it is kept where they would look");
    assert_ne!(named(""), ours.as_bytes());
}
