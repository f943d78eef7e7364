//! `[listen]`: addresses, the names on the certificate, and the sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use boot::plan::{Dangers, ListenPlan, OperatorTls, StoreSpec};

use super::note_section;
use super::preset::Preset;
use crate::fault::shown;
use crate::places::Places;
use crate::section::Section;

pub(super) fn read(
    mut section: Section<'_>,
    places: &mut Places,
    run_dir: &Path,
    preset: Option<Preset>,
    store: &StoreSpec,
    dangers: &mut Dangers,
) -> ListenPlan {
    note_section(&section, "listen", places);
    let mut plan = ListenPlan::usual(run_dir);
    if let Some(preset) = preset {
        preset.listen(&mut plan);
    }
    if store.external().is_some() {
        // Nobody asks us for secrets: what would say where and how is no word of this plan.
        for key in ["address", "names", "tls_certificate", "tls_key", "api_socket", "danger_plain_http"] {
            if let Some(place) = section.place_of(key) {
                let what = format!("{key} has no effect: the store is not in this process");
                section.fault(&place, what, "remove it; admin_socket and gate_socket stay");
            }
        }
        plan.tcp = None;
        plan.names.clear();
    }
    if let Some(address) = section.text("address") {
        if address.value == "none" {
            plan.tcp = None;
        } else if let Err(e) = parse_address(&address.value) {
            let remedy = "write host:port such as \"127.0.0.1:8200\" or \"[::]:8200\"; \"none\" for sockets alone";
            section.fault(&address.place, format!("address = {}: {e}", shown(&address.value)), remedy);
        } else {
            plan.tcp = Some(address.value);
        }
    }
    if let Some(names) = section.texts("names") {
        for name in names.iter().filter(|n| !is_server_name(&n.value)) {
            let what = format!("{} is neither a host name nor an address", shown(&name.value));
            section.fault(&name.place, what, "write DNS names or IP addresses, without scheme and port");
        }
        plan.names = names.into_iter().map(|n| n.value).collect();
    } else if let Some((host, _)) = plan.tcp.as_deref().and_then(|tcp| parse_address(tcp).ok()) {
        plan.add_name(&host);
    }
    let (certificate, key) = (section.path("tls_certificate"), section.path("tls_key"));
    plan.operator_tls = match (certificate, key) {
        (Some(c), Some(k)) => Some(OperatorTls { certificate: c.value, key: k.value }),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            let remedy = "set both tls_certificate and tls_key, or neither: the device's own CA then issues";
            section.fault(&one.place, "half of a certificate and its key", remedy);
            None
        }
    };
    let whole = section.place();
    let mut socket = |key, path: &mut std::path::PathBuf| {
        let written = section.path(key);
        let place = written.as_ref().map_or_else(|| whole.clone(), |p| p.place.clone());
        if let Some(written) = written {
            *path = written.value;
        }
        // Also one below a long run_dir.
        if let Err(fault) = host::check_socket_path(path) {
            section.fault(&place, fault.to_string(), format!("write a shorter {key}, or run_dir"));
        }
    };
    if store.external().is_none() {
        socket("api_socket", &mut plan.api_socket);
    }
    socket("admin_socket", &mut plan.admin_socket);
    socket("gate_socket", &mut plan.gate_socket);
    if let Some(plain) = section.flag("danger_plain_http").filter(|f| f.value) {
        dangers.plain_http = true;
        let loopback = plan.tcp.as_deref().is_none_or(|a| {
            let host = parse_address(a).map(|(host, _)| host).unwrap_or_default();
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        if !loopback {
            let what = "danger_plain_http on an address that others can reach";
            section.fault(&plain.place, what, "listen on 127.0.0.1 or [::1], or keep TLS");
        }
    }
    section.finish(&[]);
    plan
}

/// Splits `host:port`; a port of 0 lets the system choose one.
pub(crate) fn parse_address(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err("the brackets hold no IPv6 address"),
        None if is_server_name(host) && !host.contains(':') => host,
        None => return Err("the host is neither a name nor an address"),
    };
    Ok((host.to_owned(), port))
}

/// A name that can stand in a certificate: an address, or labels as RFC 1123 2.1 has them (and `_`, for compose).
pub(crate) fn is_server_name(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    // What looks like an address and is none, such as 127.0.0.256, is no name either.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || text.parse::<Ipv4Addr>().is_ok();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    !numeric && text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("127.0.0.1:8200"), Ok(("127.0.0.1".into(), 8200)));
        assert_eq!(parse_address("[::1]:0"), Ok(("::1".into(), 0)));
        assert_eq!(parse_address("edgex-secret-store:8200"), Ok(("edgex-secret-store".into(), 8200)));
        for bad in
            ["", ":", "8200", "host", "host:", "host:99999", "::1:8200", "[x]:1", "a b:1", "-a:1", "127.0.0.256:1"]
        {
            assert!(parse_address(bad).is_err(), "{bad:?}");
        }
    }
}
