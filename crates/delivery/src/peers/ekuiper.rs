//! eKuiper: the two YAML files by which its rules engine reaches EdgeX's message bus.
//!
//! Values stand in double quotes (YAML 1.2, 7.3.1), the only style that can hold every character; as plain scalars a
//! password of digits would become a number, and one with `: ` or ` #` something else altogether.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::Login;

/// The message bus that eKuiper reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KuiperBus {
    /// EdgeX's over Redis.
    Redis,
    /// EdgeX's over MQTT.
    Mqtt,
}

impl KuiperBus {
    fn connection(self) -> &'static str {
        if self == Self::Redis { "redisMsgBus" } else { "mqttMsgBus" }
    }

    fn protocol(self) -> &'static str {
        if self == Self::Redis { "redis" } else { "tcp" }
    }

    fn port(self) -> u16 {
        if self == Self::Redis { 6379 } else { 1883 }
    }

    fn kind(self) -> &'static str {
        if self == Self::Redis { "redis" } else { "mqtt" }
    }
}

/// `sources/edgex.yaml`: where rules get EdgeX's events from. Server and topic are those that EdgeX's variables
/// (`EDGEX__DEFAULT__SERVER` ...) override.
pub fn kuiper_source(bus: KuiperBus, login: &Login) -> Zeroizing<String> {
    let mut out = text();
    out.push_str("default:\n  optional:\n");
    credentials(&mut out, login);
    let (port, protocol, connection, kind) = (bus.port(), bus.protocol(), bus.connection(), bus.kind());
    add(&mut out, format_args!("  port: {port}\n  protocol: {protocol}\n  server: localhost\n"));
    add(&mut out, format_args!("  connectionSelector: edgex.{connection}\n  topic: rules-events\n  type: {kind}\n"));
    out
}

/// `connections/connection.yaml`: the connection that the source names.
pub fn kuiper_connection(bus: KuiperBus, login: &Login) -> Zeroizing<String> {
    let mut out = text();
    let (port, protocol, connection, kind) = (bus.port(), bus.protocol(), bus.connection(), bus.kind());
    add(&mut out, format_args!("edgex:\n  {connection}:\n    protocol: {protocol}\n    server: localhost\n"));
    add(&mut out, format_args!("    port: {port}\n    type: {kind}\n    optional:\n"));
    let mut inner = text();
    credentials(&mut inner, login);
    inner.lines().for_each(|l| add(&mut out, format_args!("  {l}\n")));
    out
}

fn credentials(out: &mut Zeroizing<String>, login: &Login) {
    out.push_str("    Username: ");
    quoted(out, login.user());
    out.push_str("\n    Password: ");
    quoted(out, login.password().expose());
    out.push('\n');
}

fn quoted(out: &mut Zeroizing<String>, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            _ if !host::in_force("peer-values-escaped") => out.push(c),
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // 5.1: what may stand as it is. Breaks, marks and the rest are written by number (5.7).
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' => out.push(c),
            '\u{ff00}'..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            other => add(out, format_args!("\\u{:04x}", u32::from(other))),
        }
    }
    out.push('"');
}

/// All of the text's room at once: growing would leave copies of a password behind. An escaped byte takes six at most.
fn text() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(8 * 1024 + 512))
}

fn add(out: &mut Zeroizing<String>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::login::login;
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Source {
        default: Default,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Default {
        optional: Optional,
        port: u16,
        protocol: String,
        server: String,
        connection_selector: String,
        topic: String,
        r#type: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "PascalCase")]
    struct Optional {
        username: String,
        password: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Connections {
        edgex: std::collections::BTreeMap<String, Connection>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Connection {
        protocol: String,
        server: String,
        port: u16,
        r#type: String,
        optional: Optional,
    }

    fn is_read_back(bus: KuiperBus, user: &str, password: &str) {
        let login = login(user, password).unwrap();
        let Source { default } = serde_saphyr::from_str(&kuiper_source(bus, &login)).unwrap();
        assert_eq!((&*default.optional.username, &*default.optional.password), (user, password));
        let Connections { edgex } = serde_saphyr::from_str(&kuiper_connection(bus, &login)).unwrap();
        let [(name, connection)] = &edgex.into_iter().collect::<Vec<_>>()[..] else { panic!("one connection") };
        assert_eq!((&*connection.optional.username, &*connection.optional.password), (user, password));
        assert_eq!(default.connection_selector, format!("edgex.{name}"));
        assert_eq!((default.port, connection.port), (bus.port(), bus.port()));
        assert_eq!((&*default.protocol, &*connection.protocol), (bus.protocol(), bus.protocol()));
        assert_eq!((&*default.r#type, &*connection.r#type), (bus.kind(), bus.kind()));
        assert_eq!(
            (&*default.server, &*connection.server, &*default.topic),
            ("localhost", "localhost", "rules-events")
        );
    }

    #[test]
    fn a_hostile_password_is_text() {
        for hostile in
            ["12345", "true", "a: b # c", "\"\nserver: evil", "\\", "*x", "&x", "%", "\u{85}\u{2028}\u{feff}", "~"]
        {
            is_read_back(KuiperBus::Mqtt, "u", hostile);
            is_read_back(KuiperBus::Redis, hostile, "p");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_values_they_are_read_back(user in r"[^\x00]{1,20}", password in r#"[^\x00]{1,60}|[ :#"'\\\n\-]{1,20}"#) {
            is_read_back(KuiperBus::Mqtt, &user, &password);
        }
    }
}
