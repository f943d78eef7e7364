//! Devices whose key is in several places, or kept by another machine.

use std::path::{Path, PathBuf};

use testkit::{Bao, Swtpm, Tangd, Tanging, is_skipped};

use crate::device::Device;

fn write(path: &Path, text: &str, mode: u32) -> PathBuf {
    use host::Disk;
    host::OsDisk.replace(path, text.as_bytes(), mode, None).unwrap();
    path.to_owned()
}

/// A TPM that releases once in a boot, and a server of the site: the device waits for the server and has its release then.
#[test]
fn a_device_that_needs_its_tpm_and_its_site() {
    if is_skipped("swtpm") || is_skipped("tang") {
        return;
    }
    let (mut tpm, tang) = (Swtpm::start(), Tangd::start());
    tpm.extend(7, 0x77);
    let section = format!(
        "kind = \"all\"\n\
         [[source.part]]\nkind = \"tpm\"\ndevice = {:?}\npcrs = [7]\nreleases_per_boot = 1\n\
         [[source.part]]\nkind = \"tang\"\n[[source.part.servers]]\nurl = {:?}\nthumbprint = {:?}\n",
        tpm.socket(),
        tang.url(),
        tang.thumbprint()
    );
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &section);
    device.up();
    device.keep();
    device.kill();

    let reboot = |tpm: &mut Swtpm, device: &mut Device| {
        tpm.reboot();
        tpm.extend(7, 0x77);
        device.reboot();
    };
    reboot(&mut tpm, &mut device);
    tang.becomes(Tanging::Down);
    device.stays_sealed("0 of the 2 parts that are needed have given key material");
    device.up_until_it_says(|line| line.contains("0 of the 2 parts that are needed have given key material"));
    tang.becomes(Tanging::Well);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1", "two starts in vain have used no release up");
    device.kill();
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
}

/// Any two of three: a key file stands for the weakest of them.
#[test]
fn a_device_that_does_with_any_two_of_three() {
    if is_skipped("tang") {
        return;
    }
    let tangs = [Tangd::start(), Tangd::start()];
    let mut device = Device::with_services(&["sensor"]);
    let mut section = "kind = \"threshold\"\nthreshold = 2\n".to_owned();
    section += &format!(
        "[[source.part]]\nkind = \"software\"\npath = {:?}\ndanger_software_key = true\n",
        device.dir().join("part.key")
    );
    for tang in &tangs {
        section += &format!(
            "[[source.part]]\nkind = \"tang\"\n[[source.part.servers]]\nurl = {:?}\nthumbprint = {:?}\n",
            tang.url(),
            tang.thumbprint()
        );
    }
    device.replace_section("source", &section);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    tangs[0].becomes(Tanging::Down);
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
    tangs[1].becomes(Tanging::Down);
    device.up_until_it_says(|line| line.contains("1 of the 2 parts that are needed"));
    tangs[0].becomes(Tanging::Well);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}

/// OpenBao keeps the key; the device logs in by its certificate, is shut out as a stolen one would be, and let in again.
#[test]
fn a_device_whose_key_an_openbao_keeps() {
    if is_skipped("openbao") {
        return;
    }
    let bao = Bao::start();
    bao.bao(&["auth", "enable", "cert"], "");
    bao.bao(&["secrets", "enable", "transit"], "");
    let accessor = bao.bao(&["read", "-field=accessor", "sys/auth/cert"], "");
    let policy = include_str!("../../packaging/escrow/devices.hcl").replace("ACCESSOR", accessor.trim());
    bao.bao(&["policy", "write", "edgekeep-devices", "-"], &policy);
    let ca = format!("certificate=@{}", bao.ca_file().display());
    bao.bao(&["write", "auth/cert/certs/devices", &ca, "token_policies=edgekeep-devices", "token_ttl=60s"], "");

    let mut device = Device::with_services(&["sensor"]);
    let (certificate, key) = bao.device("device-07");
    let section = format!(
        "kind = \"escrow\"\nurl = \"https://{}:{}\"\nca = {:?}\ncertificate = {:?}\ncertificate_key = {:?}\nname = \"device-07\"\n",
        bao.host(),
        bao.port(),
        bao.ca_file(),
        write(&device.dir().join("device.pem"), &certificate, 0o644),
        write(&device.dir().join("device.key"), &key, 0o600),
    );
    device.replace_section("source", &section);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));

    let (alias, mount) = ("alias_name=device-07", format!("alias_mount_accessor={}", accessor.trim()));
    let entity = bao.bao(&["write", "-field=id", "identity/lookup/entity", alias, &mount], "");
    let entity = format!("identity/entity/id/{}", entity.trim());
    bao.bao(&["write", &entity, "disabled=true"], "");
    device.up_until_it_says(|line| line.contains("does not give this device its key"));
    let (code, _) = device.wait(&["--gate", "ready-to-run", "--timeout", "1s"]);
    assert_ne!(code, Some(0), "nobody is let go meanwhile");
    bao.bao(&["write", &entity, "disabled=false"], "");
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}

/// Another edgekeep of the site keeps the key, in its kv engine; the device logs in by name and password.
#[test]
fn a_device_whose_key_another_edgekeep_keeps() {
    let mut holder = Device::new(
        "[[service]]\nname = \"registrar\"\n\
         policy = { \"auth/userpass/users/*\" = { capabilities = [\"create\", \"update\", \"delete\"] }, \
         \"sys/policies/acl/*\" = { capabilities = [\"create\", \"update\"] } }\n",
    );
    holder.up();
    let ask = |arguments: &[&str]| {
        let output = holder.as_service("registrar", arguments);
        assert!(output.status.success(), "{output:?}");
    };
    let policy = "path \"secret/escrow/device-07\" { capabilities = [\"create\", \"read\"] }";
    ask(&["write", "sys/policies/acl/device-07", &format!("policy={policy}")]);
    let password = "correct horse battery staple";
    ask(&["write", "auth/userpass/users/device-07", &format!("password={password}"), "token_policies=device-07"]);

    let mut device = Device::with_services(&["sensor"]);
    let section = format!(
        "kind = \"escrow\"\nurl = {:?}\nca = {:?}\nlogin = \"userpass\"\nrole = \"device-07\"\nlogin_file = {:?}\n\
         hold = \"kv\"\nmount = \"secret\"\nkv_version = 1\nname = \"escrow/device-07\"\n",
        holder.url(),
        holder.ca("registrar"),
        write(&device.dir().join("password"), password, 0o600),
    );
    device.replace_section("source", &section);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    ask(&["delete", "auth/userpass/users/device-07"]);
    device.up_until_it_says(|line| line.contains("does not give this device its key"));
    ask(&["write", "auth/userpass/users/device-07", &format!("password={password}"), "token_policies=device-07"]);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}
