//! Answers as Docker's API gives them, served by a dockerd of paper.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::http::{self, Answer, Limits, Request};

const NETWORK: &str = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";
const RUNNING: &str = "8f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f47";
const STARTING: &str = "1b458f476ffd1b458f476ffd1b458f476ffd1b458f476ffd1b458f476ffd1b45";

fn networks() -> String {
    format!(
        r#"[{{"Name":"web","Id":"{NETWORK}","Driver":"netagent","Labels":{{"lk":"lv"}},
        "IPAM":{{"Driver":"default","Options":null,"Config":[{{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"}}]}},
        "Containers":{{}}}},
        {{"Name":"host","Id":"{}","Driver":"host","Labels":null,"IPAM":{{"Driver":"default","Config":null}}}},
        {{"Name":"ingress","Id":"x8fqk3nrb2mv5s0dyq1l9wzja","Driver":"overlay","IPAM":{{"Config":[{{"Subnet":"10.0.0.0/24"}}]}}}}]"#,
        "a".repeat(64)
    )
}

fn whole() -> String {
    format!(
        r#"{{"Name":"web","Id":"{NETWORK}","Driver":"netagent","Containers":{{
        "ep-{STARTING}":{{"Name":"c2","EndpointID":"{STARTING}","MacAddress":"","IPv4Address":"172.18.0.3/16","IPv6Address":""}}}}}}"#
    )
}

fn containers() -> String {
    format!(
        r#"[{{"Names":["/other/link","/c1"],"NetworkSettings":{{"Networks":{{
        "web":{{"EndpointID":"{RUNNING}","IPAddress":"172.18.0.2","GlobalIPv6Address":"fd00::2"}},
        "idle":{{"EndpointID":"","IPAddress":"","GlobalIPv6Address":""}},"odd":null}}}}}},
        {{"Names":null,"NetworkSettings":null}}]"#
    )
}

/// Serves `pages`, by path, while `work` runs.
async fn with_docker<T>(
    pages: BTreeMap<String, (StatusCode, String)>,
    work: impl AsyncFnOnce(Client) -> T,
) -> T {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let pages = Arc::new(pages);
    let handler = move |request: Request| {
        let page = pages.get(&request.path).cloned();
        let page = page.unwrap_or((StatusCode::NOT_FOUND, r#"{"message":"no such"}"#.into()));
        async move {
            Answer { status: page.0, content_type: "application/json", body: page.1.into_bytes() }
        }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let until = async move { drop(stopped.await) };
    let server = tokio::spawn(http::serve(listener, Limits::default(), until, handler));
    let result = work(socket.to_str().unwrap().parse().unwrap()).await;
    drop(stop);
    server.await.unwrap();
    result
}

fn pages() -> BTreeMap<String, (StatusCode, String)> {
    [
        ("/networks".to_owned(), networks()),
        (format!("/networks/{NETWORK}"), whole()),
        ("/containers/json".to_owned(), containers()),
    ]
    .map(|(path, text)| (path, (StatusCode::OK, text)))
    .into()
}

#[tokio::test]
async fn a_view_holds_names_labels_endpoints_subnets_and_addresses() {
    let view = with_docker(pages(), async |client| client.view().await).await.unwrap();
    let network = &view.networks[&NETWORK.parse().unwrap()];
    assert_eq!((network.name.as_str(), network.labels["lk"].as_str()), ("web", "lv"));
    let names = [(STARTING, "c2"), (RUNNING, "c1")];
    let names = names.map(|(id, name)| (id.parse().unwrap(), name.to_owned()));
    assert_eq!(view.endpoints, names.into(), "also one whose container is only being started");
    let subnets = ["10.0.0.0/24", "172.18.0.0/16"].map(|net| net.parse().unwrap());
    assert_eq!(view.subnets, subnets.into());
    let addresses = ["172.18.0.2", "172.18.0.3", "fd00::2"].map(|address| address.parse().unwrap());
    assert_eq!(view.addresses, addresses.into());
}

#[tokio::test]
async fn the_version_and_whether_containers_outlive_docker_are_read_where_they_are_told() {
    for (version, info, told) in [
        (r#"{"ApiVersion":"1.41"}"#, r#"{"LiveRestoreEnabled":true}"#, (Some((1, 41)), Some(true))),
        (
            r#"{"ApiVersion":"1.100"}"#,
            r#"{"LiveRestoreEnabled":false}"#,
            (Some((1, 100)), Some(false)),
        ),
        (r#"{"ApiVersion":"new"}"#, "{}", (None, Some(false))),
        ("{}", "{}", (None, Some(false))),
    ] {
        let mut pages = pages();
        pages.insert("/version".to_owned(), (StatusCode::OK, version.to_owned()));
        pages.insert("/info".to_owned(), (StatusCode::OK, info.to_owned()));
        let view = with_docker(pages, async |client| client.view().await).await.unwrap();
        assert_eq!((view.api_version, view.live_restore), told, "{version} {info}");
    }
    let view = with_docker(pages(), async |client| client.view().await).await.unwrap();
    assert_eq!((view.api_version, view.live_restore), (None, None), "a Docker that tells nothing");
}

#[tokio::test]
async fn a_network_that_goes_while_it_is_looked_at_is_only_left_out() {
    let mut pages = pages();
    pages.remove(&format!("/networks/{NETWORK}"));
    let view = with_docker(pages, async |client| client.view().await).await.unwrap();
    assert_eq!(view.endpoints.len(), 1);
}

#[tokio::test]
async fn half_a_view_is_an_error_that_names_the_question() {
    for (path, page) in [
        ("/containers/json".to_owned(), (StatusCode::OK, "[{".to_owned())),
        (format!("/networks/{NETWORK}"), (StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned())),
        ("/networks".to_owned(), (StatusCode::NOT_FOUND, String::new())),
    ] {
        let mut pages = pages();
        pages.insert(path.clone(), page);
        let error = with_docker(pages, async |client| client.view().await).await.unwrap_err();
        assert!(error.to_string().contains(&format!("for {path}")), "{error}");
    }
}

#[tokio::test]
async fn a_docker_that_is_not_there_is_an_error_that_names_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let client: Client = format!("unix://{}", socket.display()).parse().unwrap();
    let error = client.view().await.unwrap_err();
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
}

#[test]
fn a_docker_host_is_a_unix_socket_by_absolute_path() {
    assert_eq!(Client::default(), "unix:///run/docker.sock".parse().unwrap());
    assert_eq!(Client::default(), "/run/docker.sock".parse().unwrap());
    for text in ["", "docker.sock", "unix://docker.sock", "tcp://127.0.0.1:2375", "ssh://h"] {
        let error = text.parse::<Client>().unwrap_err();
        assert!(error.to_string().contains("only a unix socket"), "{error}");
    }
}
