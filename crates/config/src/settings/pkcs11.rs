//! `[source]` of kind `pkcs11`: a token, its vendor's module, and who has the PIN.

use std::path::PathBuf;
use std::time::Duration;

use boot::plan::SourceSpec;
use seal::{Pkcs11Setup, TokenName, Wish};

use super::source::{deadline, environment, pin};
use crate::fault::Place;
use crate::section::Section;

pub(super) fn read(section: &mut Section<'_>, kind_at: &Place) -> Option<SourceSpec> {
    let deadline = deadline(section, DEADLINE, "20s is usual");
    let env = environment(section).into_iter().collect();
    let helper = section.path("helper").map_or_else(|| PathBuf::from(HELPER), |p| p.value);
    let module = section.path("module");
    let name = |max: usize| {
        move |text: &str| {
            let printable = text.bytes().all(|b| matches!(b, b' '..=b'~'));
            let fits = (1..=max).contains(&text.len()) && printable && text.trim() == text;
            if fits {
                Ok(text.to_owned())
            } else {
                Err(format!("a name of 1 to {max} printable characters is expected"))
            }
        }
    };
    let label = section.parsed("token", NAME_REMEDY, name(32));
    let serial = section.parsed("serial", NAME_REMEDY, name(16));
    let wish = section
        .parsed("mode", "write \"any\", \"hmac\", \"rsa\" or \"aes\"", |text| Wish::from_name(text).ok_or("unknown"));
    let pin = pin(section);
    let danger_last_try = section.flag("danger_last_pin_try").is_some_and(|f| f.value);
    for (key, missing, remedy) in [
        ("module", module.is_none(), "set module = \"/absolute/vendor/library.so\""),
        ("token", label.is_none(), "set token = \"...\" to its label; `pkcs11-tool --list-token-slots` shows it"),
        ("serial", serial.is_none(), "set serial = \"...\"; `pkcs11-tool --list-token-slots` shows it"),
    ] {
        if missing && !section.has(key) {
            section.fault(kind_at, format!("the pkcs11 source has no {key}"), remedy);
        }
    }
    let setup = Pkcs11Setup {
        helper,
        module: module?.value,
        token: TokenName { label: label?.value, serial: serial?.value },
        wish: wish.map_or(Wish::Any, |w| w.value),
        danger_last_try,
        env,
    };
    Some(SourceSpec::Pkcs11 { setup, pin, deadline })
}

/// A card answers within a second, and takes many for an RSA key that it has to make.
const DEADLINE: Duration = Duration::from_secs(20);
const HELPER: &str = "/usr/libexec/edgekeep/ikm-pkcs11";
const NAME_REMEDY: &str = "copy it from `pkcs11-tool --list-token-slots`";
