//! `ports`: every published port and whose it is.

use serde_json::{Value, json};

use super::output::{self, Column, Form, Output};
use crate::api::client::Client;
use crate::api::wire::Port;
use crate::model::Result;

/// What `ports` takes.
#[derive(Debug, clap::Args)]
pub struct PortsArgs {
    /// `json`, `table TEMPLATE`, or a Go template, e.g. '{{.Host}} {{.Endpoint}}'
    #[arg(long)]
    format: Option<String>,
}

/// Names in templates, and headings.
const COLUMNS: &[Column] = &[
    ("Host", "HOST"),
    ("Proto", "PROTO"),
    ("Container", "CONTAINER"),
    ("Endpoint", "ENDPOINT"),
    ("Network", "NETWORK"),
    ("Note", "NOTE"),
    ("EndpointID", "ENDPOINT ID"),
];

pub(super) async fn run(args: PortsArgs, client: &Client, form: Form) -> Result<Output> {
    let ports = client.ports().await?;
    shown(&ports, &args, form).map(Output::new)
}

fn shown(ports: &[Port], args: &PortsArgs, form: Form) -> Result<String> {
    match (form, &args.format) {
        (Form::Json, None) => output::json(ports),
        (Form::Text, None) => {
            // Few ports have a note.
            let columns = if ports.iter().all(|port| port.note.is_empty()) { 5 } else { 6 };
            let headings = COLUMNS.iter().take(columns).map(|(_, heading)| *heading);
            let row = |port: &Port| {
                vec![
                    host(port),
                    port.protocol.clone(),
                    container(port),
                    port.endpoint.clone(),
                    port.network.clone(),
                    port.note.clone(),
                ]
            };
            Ok(output::table(&headings.collect::<Vec<_>>(), ports.iter().map(row).collect()))
        }
        (Form::Text | Form::Json, Some(format)) => {
            let row = |port: &Port| {
                json!({
                    "Host": host(port),
                    "Proto": port.protocol,
                    "Container": container(port),
                    "Endpoint": port.endpoint,
                    "Network": port.network,
                    "Note": port.note,
                    "EndpointID": port.endpoint_id,
                })
            };
            let rows: Vec<Value> = ports.iter().map(row).collect();
            output::formatted(format, COLUMNS, &rows)
        }
    }
}

fn host(port: &Port) -> String {
    with_ports(&port.host_ip, &port.host_ports)
}

fn container(port: &Port) -> String {
    with_ports(&port.container_ip, &port.container_ports)
}

/// `10.1.0.2:80`, `[fd00::2]:80`.
fn with_ports(address: &str, ports: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{ports}"),
        false => format!("{address}:{ports}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_a_row() {
        let port = json!({
            "HostIP": "0.0.0.0", "HostPorts": "8000-8010", "Protocol": "tcp",
            "ContainerIP": "10.1.0.2", "ContainerPorts": "80-90", "Endpoint": "web-1",
            "EndpointID": "3f", "Network": "web",
        });
        let ports: Vec<Port> = vec![serde_json::from_value(port).unwrap()];
        assert_eq!(
            shown(&ports, &PortsArgs { format: None }, Form::Text).unwrap(),
            "HOST                PROTO   CONTAINER        ENDPOINT   NETWORK\n\
             0.0.0.0:8000-8010   tcp     10.1.0.2:80-90   web-1      web\n"
        );
        let format = Some("{{.Host}} {{.EndpointID}}".to_owned());
        let text = shown(&ports, &PortsArgs { format }, Form::Text).unwrap();
        assert_eq!(text, "0.0.0.0:8000-8010 3f\n");
    }

    #[test]
    fn what_is_not_as_expected_of_a_port_is_noted() {
        let port = |number: &str, note: &str| {
            json!({
                "HostIP": "*", "HostPorts": number, "Protocol": "tcp", "ContainerIP": "10.1.0.2",
                "ContainerPorts": "80", "Endpoint": "web-1", "EndpointID": "3f", "Network": "web",
                "Note": note,
            })
        };
        let ports = json!([port("80", ""), port("81", "[::1]: relay, needs the daemon")]);
        let ports: Vec<Port> = serde_json::from_value(ports).unwrap();
        assert_eq!(
            shown(&ports, &PortsArgs { format: None }, Form::Text).unwrap(),
            "HOST   PROTO   CONTAINER     ENDPOINT   NETWORK   NOTE\n\
             *:80   tcp     10.1.0.2:80   web-1      web\n\
             *:81   tcp     10.1.0.2:80   web-1      web       [::1]: relay, needs the daemon\n"
        );
        let format = Some("{{.Note}}".to_owned());
        let text = shown(&ports, &PortsArgs { format }, Form::Text).unwrap();
        assert_eq!(text, "\n[::1]: relay, needs the daemon\n");
    }
}
