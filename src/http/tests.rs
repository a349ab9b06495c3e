//! What callers can do to a server, and what it does then.

use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, mpsc, oneshot};

use super::*;

/// Longer than anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server that answers every request with its path and its body's length.
struct Server {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start<H, F>(limits: Limits, handler: H) -> Self
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, limits, stopped, handler));
        Self { socket, stop, task, _folder: folder }
    }

    fn echo(limits: Limits) -> Self {
        Self::start(limits, |request| async move { echo(&request) })
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    async fn ask(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        ask(&mut stream, text).await
    }

    async fn stop(self) {
        drop(self.stop);
        timeout(DEADLINE, self.task).await.expect("the server ends").unwrap();
    }
}

fn echo(request: &Request) -> Answer {
    match &request.body {
        Ok(body) => Answer::text(StatusCode::OK, format!("{} {}", request.path, body.len())),
        Err(error) => Answer::text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
    }
}

async fn ask(stream: &mut UnixStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    answer(stream).await
}

/// Head and body of one answer.
async fn answer(stream: &mut UnixStream) -> String {
    let read = async {
        let mut bytes = Vec::new();
        loop {
            if let Some(whole) = whole(&bytes) {
                return whole;
            }
            let byte = stream.read_u8().await.expect("an answer, not the end");
            bytes.push(byte);
        }
    };
    timeout(DEADLINE, read).await.expect("an answer in time")
}

fn whole(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    (body.len() == length.unwrap_or("0").parse::<usize>().unwrap()).then(|| text.to_owned())
}

async fn closed(stream: &mut UnixStream) {
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    // A reset is an end as well.
    assert!(matches!(read.expect("an end in time"), Ok(0) | Err(_)), "{rest:?}");
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_empty_host_no_content_type_and_no_body_are_fine() {
    let server = Server::echo(Limits::default());
    let answer = server.ask(&post("/a", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("/a 0\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other_also_when_sent_at_once() {
    let server = Server::echo(Limits::default());
    let mut stream = server.connect().await;
    assert!(ask(&mut stream, &post("/1", "x")).await.ends_with("/1 1\n"));
    let both = post("/2", "xx") + &post("/3", "xxx");
    assert!(ask(&mut stream, &both).await.ends_with("/2 2\n"));
    assert!(answer(&mut stream).await.ends_with("/3 3\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_given_up_and_an_idle_connection_never() {
    let limits = Limits { head_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::echo(limits);
    let mut idle = server.connect().await;
    ask(&mut idle, &post("/1", "")).await;
    let mut fresh = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"POST /x HTTP/1.1\r\nHo").await.unwrap();
    closed(&mut slow).await;
    assert!(ask(&mut idle, &post("/2", "")).await.ends_with("/2 0\n"));
    assert!(ask(&mut fresh, &post("/3", "")).await.ends_with("/3 0\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused_with_the_reason() {
    let limits = Limits { body_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::echo(limits);
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, "POST /x HTTP/1.1\r\nHost:\r\nContent-Length: 9\r\n\r\nx").await;
    assert!(answer.contains("took longer than 50 ms"), "{answer}");
    closed(&mut stream).await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_with_the_reason_and_one_at_the_limit_taken() {
    let server = Server::echo(Limits { body_bytes: 1000, ..Limits::default() });
    assert!(server.ask(&post("/x", &"x".repeat(1000))).await.ends_with("/x 1000\n"));
    // Drained, and announced as too large to drain.
    for bytes in [1001, 1_000_000] {
        let (mut stream, body) = (server.connect().await, post("/x", &"x".repeat(bytes)));
        let sent = stream.write_all(body.as_bytes());
        let sent = timeout(DEADLINE, sent).await.expect("sent or refused in time");
        assert!(sent.is_ok() || bytes > 16_000);
        let answer = answer(&mut stream).await;
        assert!(answer.contains("larger than the limit of 1000 bytes"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        closed(&mut stream).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn half_a_request_reaches_no_handler() {
    let (seen, mut paths) = mpsc::unbounded_channel();
    let server = Server::start(Limits::default(), move |request| {
        let _ = seen.send(request.path.clone());
        async move { echo(&request) }
    });
    for half in ["POST /half HT", "POST /half HTTP/1.1\r\nHost:\r\nContent-Length: 9\r\n\r\nx"] {
        let mut stream = server.connect().await;
        stream.write_all(half.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        closed_or_refused(&mut stream).await;
    }
    server.ask(&post("/whole", "")).await;
    assert_eq!(paths.recv().await.as_deref(), Some("/whole"));
    server.stop().await;
}

/// hyper answers what is no HTTP with 400 before it closes.
async fn closed_or_refused(stream: &mut UnixStream) {
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody_else() {
    let server = Server::echo(Limits::default());
    for garbage in ["\0\u{1}\u{2}\r\n\r\n", "HELO\r\n\r\n", "POST  / HTTP/9.9\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(garbage.as_bytes()).await.unwrap();
        closed_or_refused(&mut stream).await;
    }
    assert!(server.ask(&post("/x", "")).await.ends_with("/x 0\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_admitted_gets_403_and_no_handler() {
    let refuse = |_| async { panic!("a handler was asked") };
    let server = Server::start(Limits { users: vec![], ..Limits::default() }, refuse);
    let answer = server.ask(&post("/x", "x")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("may not use"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_full_house_refuses_at_once() {
    let server = Server::echo(Limits { connections: 1, ..Limits::default() });
    let mut first = server.connect().await;
    ask(&mut first, &post("/1", "")).await;
    let mut second = server.connect().await;
    let refused = answer(&mut second).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(ask(&mut first, &post("/2", "")).await.ends_with("/2 0\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_handler_that_fails_is_a_500_and_the_connection_lives() {
    let server = Server::start(Limits::default(), |request| async move {
        assert!(request.path != "/bad", "as asked");
        echo(&request)
    });
    let mut stream = server.connect().await;
    assert!(ask(&mut stream, &post("/bad", "")).await.starts_with("HTTP/1.1 500"));
    assert!(ask(&mut stream, &post("/good", "")).await.ends_with("/good 0\n"));
    server.stop().await;
}

/// A server whose handler says that it began, and ends when told to.
fn gated() -> (Server, Arc<Notify>, mpsc::UnboundedReceiver<&'static str>) {
    let (said, says) = mpsc::unbounded_channel();
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let server = Server::start(Limits::default(), move |request| {
        let (said, gate) = (said.clone(), gate.clone());
        async move {
            let _ = said.send("begun");
            gate.notified().await;
            let _ = said.send("done");
            echo(&request)
        }
    });
    (server, open, says)
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_cut_the_work_short() {
    let (server, gate, mut says) = gated();
    let mut stream = server.connect().await;
    stream.write_all(post("/x", "").as_bytes()).await.unwrap();
    assert_eq!(says.recv().await, Some("begun"));
    drop(stream);
    gate.notify_one();
    assert_eq!(timeout(DEADLINE, says.recv()).await.unwrap(), Some("done"));
    server.stop().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_in_work_and_closes_what_is_idle() {
    let (server, gate, mut says) = gated();
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    busy.write_all(post("/x", "").as_bytes()).await.unwrap();
    assert_eq!(says.recv().await, Some("begun"));
    let stopped = tokio::spawn(server.stop());
    closed(&mut idle).await;
    gate.notify_one();
    assert!(answer(&mut busy).await.ends_with("/x 0\n"));
    closed(&mut busy).await;
    timeout(DEADLINE, stopped).await.unwrap().unwrap();
}
