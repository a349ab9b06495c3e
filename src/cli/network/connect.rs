//! `network connect` and `disconnect`: namespaces by path, without Docker.

use std::path::{Path, PathBuf};

use super::create::pair;
use crate::api::client::Client;
use crate::api::wire::{AttachRequest, Endpoint};
use crate::cli::output::{Form, Output, json};
use crate::model::{Error, Result};

/// What `network connect` takes.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// Name, id, or beginning of an id
    network: String,
    /// Namespace: a path, or a name of `ip netns`
    netns: PathBuf,
    /// What lists call the endpoint; the bare name of the namespace where none is given
    #[arg(long)]
    name: Option<String>,
    /// IPv4 address; a free one where none is given
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address; a free one where none is given and the network has IPv6
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// MAC address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Name of the interface in the namespace
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Publish a port to the host: [[HOST_IP:]HOST_PORT:]PORT[/tcp|udp]
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Endpoint option by Docker's key: com.docker.network.endpoint.sysctls or .ifname
    #[arg(long = "driver-opt", value_name = "KEY=VALUE", value_parser = pair)]
    driver_opts: Vec<(String, String)>,
    /// Leave the namespace's default route alone
    #[arg(long)]
    no_default_route: bool,
}

/// What `network disconnect` takes.
#[derive(Debug, clap::Args)]
pub struct DisconnectArgs {
    /// Name, id, or beginning of an id
    network: String,
    /// Endpoint: its name, id, or the beginning of its id
    endpoint: String,
}

pub(super) async fn connect(args: ConnectArgs, client: &Client, form: Form) -> Result<Output> {
    let request = AttachRequest {
        netns: path(args.netns.clone())?,
        interface: args.interface,
        ip: args.ip,
        ip6: args.ip6,
        mac: args.mac_address,
        default_route: !args.no_default_route,
        publish: args.publish,
        driver_opts: args.driver_opts.into_iter().collect(),
        name: args.name.or_else(|| bare_name(&args.netns)),
    };
    let endpoint = client.attach(&args.network, &request).await?;
    let output = Output::new(match form {
        Form::Json => json(&endpoint)?,
        Form::Text => format!("{}\n", endpoint.endpoint_id),
    });
    Ok(output.warn(unreserved(client, &endpoint).await, form))
}

/// SCTP ports that the kernel has no sockets for, so that another program can take them. They are
/// published already: that they cannot be listed is no error of the connect.
async fn unreserved(client: &Client, endpoint: &Endpoint) -> Vec<String> {
    if !endpoint.ports.iter().any(|port| port.ends_with("/sctp")) {
        return Vec::new();
    }
    let ports = client.ports().await.unwrap_or_default();
    let noted = ports.iter().filter(|port| {
        port.endpoint_id == endpoint.endpoint_id && port.protocol == "sctp" && !port.note.is_empty()
    });
    noted.map(|port| format!("port {}/sctp: {}", port.host_ports, port.note)).collect()
}

pub(super) async fn disconnect(
    args: DisconnectArgs,
    client: &Client,
    form: Form,
) -> Result<Output> {
    let endpoint = client.detach(&args.network, &args.endpoint).await?;
    Ok(Output::new(match form {
        Form::Json => json(&endpoint)?,
        Form::Text => String::new(),
    }))
}

/// A namespace that was called by its bare name gives the endpoint its name, so that
/// `network disconnect` takes the same words.
fn bare_name(netns: &Path) -> Option<String> {
    let bare = netns.components().count() == 1 && !netns.is_absolute();
    bare.then(|| netns.to_string_lossy().into_owned())
}

/// A bare name is one of `ip netns` (man 8 ip-netns: bound below /run/netns).
fn path(netns: PathBuf) -> Result<PathBuf> {
    if netns.components().count() == 1 && !netns.is_absolute() {
        return Ok(PathBuf::from("/run/netns").join(netns));
    }
    std::path::absolute(&netns).map_err(|error| {
        Error::usage(format!("namespace \"{}\"", netns.display()), error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_one_of_ip_netns() {
        assert_eq!(path("lab".into()).unwrap(), PathBuf::from("/run/netns/lab"));
        assert_eq!(bare_name(Path::new("lab")).as_deref(), Some("lab"));
        assert_eq!(bare_name(Path::new("/proc/1/ns/net")), None);
        assert_eq!(path("/proc/7/ns/net".into()).unwrap(), PathBuf::from("/proc/7/ns/net"));
        assert!(path("./lab".into()).unwrap().is_absolute());
    }
}
