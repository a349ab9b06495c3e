//! Ports to publish in Docker's grammar: `[[HOST_IP:]HOST_PORTS:]CONTAINER_PORTS[/PROTOCOL]`.

use std::net::IpAddr;

use crate::model::{Error, PortRange, PortRequest, Protocol, Result};

/// The requests of one text. Ranges of equal length are published pairwise; of a host range
/// before one container port, the first that is free is taken.
pub fn parse(text: &str) -> Result<Vec<PortRequest>> {
    read(text).map_err(|why| {
        Error::usage(format!("publish \"{text}\""), why)
            .advise("write [[HOST_IP:]HOST_PORT:]CONTAINER_PORT[/tcp|udp|sctp], e.g. 8080:80/tcp")
    })
}

fn read(text: &str) -> std::result::Result<Vec<PortRequest>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.parse()?),
        None => (text, Protocol::Tcp),
    };
    let mut parts = ports.rsplitn(3, ':');
    let container = range(parts.next().unwrap_or_default())?;
    let host_ports = parts.next().filter(|ports| !ports.is_empty()).map(range).transpose()?;
    let host = parts
        .next()
        .map(|host| {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            bare.unwrap_or(host)
                .parse::<IpAddr>()
                .map_err(|_| format!("\"{host}\" is not an IP address"))
        })
        .transpose()?;
    let pairwise = match host_ports {
        Some(host) if container.count() == host.count() => true,
        Some(_) if container.count() > 1 => {
            return Err("the ranges of host and container differ in length".into());
        }
        Some(_) | None => false,
    };
    let ports = container.iter().enumerate().map(|(at, container)| PortRequest {
        protocol,
        host,
        container,
        host_ports: host_ports.and_then(|range| {
            if pairwise { range.iter().nth(at).and_then(PortRange::single) } else { Some(range) }
        }),
    });
    Ok(ports.collect())
}

fn range(text: &str) -> std::result::Result<PortRange, String> {
    let refuse = || format!("\"{text}\" is not a port or a range of ports from 1 to 65535");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().map_err(|_| refuse());
    PortRange::new(port(first)?, port(last)?).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let port = |port: PortRequest| {
            let host = port.host.map(|host| format!("{host} ")).unwrap_or_default();
            let from = port.host_ports.map_or("any".into(), |range| range.to_string());
            format!("{host}{from}>{}/{}", port.container, port.protocol)
        };
        match parse(text) {
            Ok(ports) => ports.into_iter().map(port).collect::<Vec<_>>().join(" "),
            Err(error) => error.why,
        }
    }

    #[test]
    fn dockers_grammar_is_read() {
        for (text, expected) in [
            ("80", "any>80/tcp"),
            ("8080:80", "8080>80/tcp"),
            ("8080:80/udp", "8080>80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080>80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 any>80/tcp"),
            ("8000-8001:80-81", "8000>80/tcp 8001>81/tcp"),
            ("8000-8010:80", "8000-8010>80/tcp"),
            ("[::1]:8080:80", "::1 8080>80/tcp"),
            ("[fd00::1]::80/udp", "fd00::1 any>80/udp"),
            ("80/sctp", "any>80/sctp"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", ":", "0", "65536", "8080:", "80/icmp", "x:80:80", "9-8:1", "1-2:1-3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
