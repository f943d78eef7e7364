//! Devices whose key is in several places, or kept by another machine.

use std::path::{Path, PathBuf};

use testkit::{Bao, Pair, SiteCa, Swtpm, Tangd, Tanging, is_skipped};

use crate::device::Device;
use crate::part;

pub(crate) fn write(path: &Path, text: &str, mode: u32) -> PathBuf {
    use host::Disk;
    host::OsDisk.replace(path, text.as_bytes(), mode, None).unwrap();
    path.to_owned()
}

/// A TPM that releases once in a boot, and a server of the site: the device waits for the server and has its release
/// then.
#[test]
fn a_device_that_needs_its_tpm_and_its_site() {
    if is_skipped("swtpm") || is_skipped("tang") || is_skipped("mounts") {
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
        device.reboot();
        tpm.reboot();
        tpm.extend(7, 0x77);
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

/// OpenBao keeps the key; the device logs in by its certificate, is shut out as a stolen one would be, and let in
/// again.
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

/// An edgekeep of the site that keeps keys of others in its kv engine, and lets `registrar` say whose.
pub(crate) struct Holder(Device);

impl Holder {
    pub(crate) fn start() -> Self {
        let mut holder = Device::new(
            "[[service]]\nname = \"registrar\"\n\
             policy = { \"auth/userpass/users/*\" = { capabilities = [\"create\", \"update\", \"delete\"] }, \
             \"sys/policies/acl/*\" = { capabilities = [\"create\", \"update\"] }, \
             \"sys/auth/cert\" = { capabilities = [\"create\", \"read\", \"update\", \"sudo\"] }, \
             \"auth/cert/*\" = { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"] }, \
             \"identity/*\" = { capabilities = [\"create\", \"update\"] } }\n",
        );
        holder.up();
        Self(holder)
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.0.as_service("registrar", arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Devices with certificates of this authority may come, as docs/hardware.md says; each reaches its own key alone.
    pub(crate) fn trust(&self, site: &SiteCa) {
        self.ask(&["write", "sys/auth/cert", "type=cert"]);
        let policy = include_str!("../../packaging/escrow/devices-edgekeep.hcl").replace("ACCESSOR", &self.accessor());
        self.ask(&["write", "sys/policies/acl/edgekeep-devices", &format!("policy={policy}")]);
        let role = [
            &*format!("certificate={}", site.pem()),
            "allowed_common_names=device-*",
            "token_policies=edgekeep-devices",
            "token_no_default_policy=true",
            "token_ttl=60s",
        ];
        self.ask(&[&["write", "auth/cert/certs/devices"], &role[..]].concat());
    }

    /// The edgekeep itself.
    pub(crate) fn device(&self) -> &Device {
        &self.0
    }

    fn accessor(&self) -> String {
        self.ask(&["read", "-field=accessor", "sys/auth/cert"])
    }

    /// A device that has been here is shut out, or let in again.
    fn disable(&self, name: &str, disabled: bool) {
        let (alias, mount) = (format!("alias_name={name}"), format!("alias_mount_accessor={}", self.accessor()));
        let entity = self.ask(&["write", "-field=id", "identity/lookup/entity", &alias, &mount]);
        self.ask(&["write", &format!("identity/entity/id/{entity}"), &format!("disabled={disabled}")]);
    }

    /// A device of this name and certificate, whose key is kept here.
    fn certified(&self, name: &str, pair: &Pair) -> Device {
        let device = Device::with_services(&["sensor"]);
        let section = format!(
            "kind = \"escrow\"\nurl = {:?}\nca = {:?}\ncertificate = {:?}\ncertificate_key = {:?}\nrole = \"devices\"\n\
             hold = \"kv\"\nmount = \"secret\"\nkv_version = 1\nname = \"escrow/{name}\"\n",
            self.0.url(),
            self.0.ca("registrar"),
            write(&device.dir().join("device.pem"), &pair.certificate, 0o644),
            write(&device.dir().join("device.key"), &pair.key, 0o600),
        );
        device.replace_section("source", &section);
        device
    }

    /// A device may come by a password, and reaches its own key alone.
    pub(crate) fn admit(&self, name: &str) {
        let policy = format!("policy=path \"secret/escrow/{name}\" {{ capabilities = [\"create\", \"read\"] }}");
        self.ask(&["write", &format!("sys/policies/acl/{name}"), &policy]);
        let (password, policies) = (format!("password={PASSWORD}"), format!("token_policies={name}"));
        self.ask(&["write", &format!("auth/userpass/users/{name}"), &password, &policies]);
    }

    fn shut_out(&self, name: &str) {
        self.ask(&["delete", &format!("auth/userpass/users/{name}")]);
    }

    /// The source of a device of this name, whose key is kept here; its password lies in `dir`.
    pub(crate) fn section(&self, name: &str, dir: &Path) -> String {
        format!(
            "kind = \"escrow\"\nurl = {:?}\nca = {:?}\nlogin = \"userpass\"\nrole = {name:?}\nlogin_file = {:?}\n\
             hold = \"kv\"\nmount = \"secret\"\nkv_version = 1\nname = \"escrow/{name}\"\n",
            self.0.url(),
            self.0.ca("registrar"),
            write(&dir.join("password"), PASSWORD, 0o600),
        )
    }

    /// A device of this name, whose key is kept here.
    fn neighbour(&self, name: &str) -> Device {
        let device = Device::with_services(&["sensor"]);
        let section = self.section(name, device.dir());
        device.replace_section("source", &section);
        device
    }

    /// The same when it has ended.
    fn ended(mut self) -> Vec<serde_json::Value> {
        assert_eq!(self.0.stop(), Some(0));
        self.audited()
    }

    /// The records of the audit ring, segment after segment, as whoever has the disk reads them.
    fn audited(&self) -> Vec<serde_json::Value> {
        let ring = std::fs::read_dir(self.0.data_dir().join("data/audit")).unwrap();
        let mut segments: Vec<PathBuf> = ring.map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        let mut records = Vec::new();
        for segment in segments {
            let bytes = std::fs::read(segment).unwrap();
            for at in memchr::memmem::find_iter(&bytes, b"{\"time\":") {
                let line = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter().next();
                records.push(line.unwrap().unwrap());
            }
        }
        records
    }
}

const PASSWORD: &str = "correct horse battery staple";

/// Another edgekeep of the site keeps the key, in its kv engine; the device logs in by its certificate, is shut out as a
/// stolen one would be, and let in again.
#[test]
fn a_device_whose_key_another_edgekeep_keeps() {
    let (holder, site) = (Holder::start(), SiteCa::new());
    holder.trust(&site);
    let mut device = holder.certified("device-07", &site.device("device-07"));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
    holder.disable("device-07", true);
    device.up_until_it_says(|line| line.contains("does not give this device its key"));
    let (code, _) = device.wait(&["--gate", "ready-to-run", "--timeout", "1s"]);
    assert_ne!(code, Some(0), "nobody is let go meanwhile");
    holder.disable("device-07", false);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));

    // The certificate of a neighbour, as somebody with both disks would try it, and one of another authority.
    let strangers = [site.device("device-08"), SiteCa::new().device("device-07")];
    for stranger in strangers {
        for (file, text) in [("device.pem", &stranger.certificate), ("device.key", &stranger.key)] {
            write(&device.dir().join(file), text, 0o600);
        }
        device.up_until_it_says(|line| line.contains("does not give this device its key"));
        device.kill();
    }
}

/// The same by name and password.
#[test]
fn a_device_whose_key_another_edgekeep_keeps_for_a_password() {
    let holder = Holder::start();
    holder.admit("device-07");
    let mut device = holder.neighbour("device-07");
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    holder.shut_out("device-07");
    device.up_until_it_says(|line| line.contains("does not give this device its key"));
    holder.admit("device-07");
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}

/// The power comes back, and thirty devices of a site start in one moment. All of them open by themselves but the two
/// that were shut out, one by its entity and one by its certificate's number, and the holder's audit says who has had
/// its key.
#[test]
fn thirty_neighbours_start_at_once_while_two_are_shut_out() {
    const SHUT_OUT: [&str; 2] = ["device-07", "device-13"];
    let (holder, site) = (Holder::start(), SiteCa::new());
    holder.trust(&site);
    let names: Vec<String> = (1..=30).map(|n| format!("device-{n:02}")).collect();
    let pairs = (1..=30).zip(&names).map(|(n, name)| site.device_numbered(name, &[0x2a, n]));
    let mut devices: Vec<Device> = names.iter().zip(pairs).map(|(name, pair)| holder.certified(name, &pair)).collect();
    for device in &mut devices {
        device.up();
        assert_eq!(device.stop(), Some(0));
    }
    holder.disable("device-07", true);
    holder.ask(&["write", "auth/cert/crls/site", &format!("crl={}", site.crl(&[&[0x2a, 13]]))]);
    let before = holder.audited().len();
    devices.iter_mut().for_each(Device::start);
    for (name, device) in names.iter().zip(&mut devices) {
        if SHUT_OUT.contains(&&**name) {
            part::until(|| device.said().contains("does not give this device its key"), || device.said());
            assert_ne!(device.wait(&["--gate", "ready-to-run", "--timeout", "0"]).0, Some(0));
        } else {
            device.wait_for_gate("ready-to-run");
        }
    }
    // Nobody asks any more, and the holder writes no more.
    drop(devices);
    let since = holder.ended().split_off(before);
    let told = |path: &str, name: &str| -> Vec<u64> {
        let of = |r: &&serde_json::Value| {
            r["request"]["path"] == path && r["request"]["client_certificate_common_name"] == name
        };
        since.iter().filter(of).filter_map(|r| r["response"]["status"].as_u64()).collect()
    };
    for name in &names {
        let (logins, releases) = (told("auth/cert/login", name), told(&format!("secret/escrow/{name}"), name));
        match &**name {
            "device-07" => assert!(releases.is_empty() && logins.contains(&403), "{since:#?}"),
            "device-13" => assert!(releases.is_empty() && logins.contains(&400), "{since:#?}"),
            // What is answered too late for its device's deadline is asked for again.
            _ => assert!(
                !releases.is_empty() && [&logins, &releases].iter().all(|s| s.iter().all(|s| *s == 200)),
                "{name}: {logins:?} {releases:?}"
            ),
        }
    }
}
