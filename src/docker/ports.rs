//! Port lists: what dockerd wants published, in the engine's words.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::wire::PortBinding;
use crate::model::{Error, PortRange, PortRequest, Protocol, Result};

/// The list of ports to publish, in the options of Join and ProgramExternalConnectivity.
pub const PORT_MAP: &str = "com.docker.network.portmap";

/// The ports to publish, ordered so that none is taken by a less particular one: single host ports
/// first, then ranges, then those that may have any. dockerd's own order is random.
pub fn published(options: &Map<String, Value>) -> Result<Vec<PortRequest>> {
    let bindings: Vec<PortBinding> = match options.get(PORT_MAP) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => serde_json::from_value(list.clone())
            .map_err(|error| Error::usage(format!("option \"{PORT_MAP}\""), error.to_string()))?,
    };
    let mut ports = bindings.iter().map(port).collect::<Result<Vec<_>>>()?;
    ports.sort_by_key(|port| (port.host_ports.map_or(u32::MAX, PortRange::count), *port));
    Ok(ports)
}

fn port(binding: &PortBinding) -> Result<PortRequest> {
    let refuse = |why: String| Error::usage(format!("publish {}", shown(binding)), why);
    let protocol = match binding.proto {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        other => return Err(refuse(format!("IP protocol {other} has no ports to publish"))),
    };
    if binding.port == 0 {
        return Err(refuse("a container port is a number from 1 to 65535".into()));
    }
    let host_ports = match (binding.host_port, binding.host_port_end) {
        (0, 0) => None,
        (first, 0) => PortRange::single(first),
        (first, last) => Some(PortRange::new(first, last).ok_or_else(|| {
            refuse(format!("host ports {first} to {last} are not a range within 1 to 65535"))
        })?),
    };
    let host = host(&binding.host_ip).map_err(|why| {
        refuse(why).advise("name an address of the host, or none for all of them")
    })?;
    Ok(PortRequest { protocol, host, container: binding.port, host_ports })
}

fn host(text: &str) -> std::result::Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("\"{text}\" is not an IP address"))
}

/// As the user typed it: `[::1]:6000:6000/tcp`.
fn shown(binding: &PortBinding) -> String {
    let PortBinding { proto, port, host_ip, host_port, host_port_end } = binding;
    let host = match host_ip.as_str() {
        "" => String::new(),
        v6 if v6.contains(':') => format!("[{v6}]:"),
        v4 => format!("{v4}:"),
    };
    let range = match (*host_port, *host_port_end) {
        (0, 0) => String::new(),
        (first, last) if last == 0 || first == last => format!("{first}:"),
        (first, last) => format!("{first}-{last}:"),
    };
    let protocol = match *proto {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    };
    format!("{host}{range}{port}/{protocol}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str) -> Result<Vec<PortRequest>> {
        let list = serde_json::from_str(list).unwrap();
        published(&Map::from_iter([(PORT_MAP.to_owned(), list)]))
    }

    fn text(port: &PortRequest) -> String {
        let host = port.host.map_or("*".to_owned(), |host| host.to_string());
        let ports = port.host_ports.map_or("any".to_owned(), |ports| ports.to_string());
        format!("{host}:{ports}->{}/{}", port.container, port.protocol)
    }

    /// Recorded (20.10): `-p 8080:80 -p 5353:53/udp -p 127.0.0.1:8443:443 -p 7000
    /// -p 8000-8010:80`, in the random order of a Go map.
    #[test]
    fn single_ports_come_before_ranges_and_ephemeral_ones_last() {
        let ports = of(r#"[
            {"Proto":6,"IP":"","Port":7000,"HostIP":"","HostPort":0,"HostPortEnd":0},
            {"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8000,"HostPortEnd":8010},
            {"Proto":6,"IP":"","Port":443,"HostIP":"127.0.0.1","HostPort":8443,"HostPortEnd":8443},
            {"Proto":17,"IP":"","Port":53,"HostIP":"","HostPort":5353,"HostPortEnd":5353},
            {"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080}]"#)
        .unwrap();
        let texts: Vec<_> = ports.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                "*:8080->80/tcp",
                "127.0.0.1:8443->443/tcp",
                "*:5353->53/udp",
                "*:8000-8010->80/tcp",
                "*:any->7000/tcp"
            ]
        );
    }

    #[test]
    fn no_list_null_and_an_empty_list_publish_nothing() {
        assert_eq!(published(&Map::new()).unwrap(), []);
        assert_eq!(of("null").unwrap(), []);
        assert_eq!(of("[]").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_published_is_refused_by_its_port() {
        for (entry, port, why) in [
            (r#"{"Proto":1,"Port":1}"#, "1/protocol 1", "no ports"),
            (r#"{"Proto":6,"Port":0,"HostPort":80}"#, "80:0/tcp", "1 to 65535"),
            (
                r#"{"Proto":6,"Port":80,"HostPort":81,"HostPortEnd":80}"#,
                "81-80:80/tcp",
                "not a range",
            ),
            (
                r#"{"Proto":6,"Port":80,"HostPort":0,"HostPortEnd":80}"#,
                "0-80:80/tcp",
                "not a range",
            ),
            (r#"{"Proto":6,"Port":80,"HostIP":"host"}"#, "80/tcp", "not an IP address"),
        ] {
            let error = of(&format!("[{entry}]")).unwrap_err().to_string();
            assert!(error.contains(port) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_malformed_list_is_refused_by_its_key() {
        for list in ["{}", "5", r#"["x"]"#, r#"[{"Proto":6,"Port":65536}]"#, r#"[{"Port":1}]"#] {
            let error = of(list).unwrap_err().to_string();
            assert!(error.contains(PORT_MAP), "{error}");
        }
    }
}
