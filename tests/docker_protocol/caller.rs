//! dockerd's side of a connection, byte for byte.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::agent::DEADLINE;

/// A kept-alive connection.
pub struct Caller {
    stream: BufStream<UnixStream>,
    host: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub closes: bool,
    pub text: String,
}

impl Reply {
    /// What dockerd decodes: an object, and only with status 200.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        let value: Value = serde_json::from_str(&self.text).unwrap();
        assert!(value.is_object(), "{}", self.text);
        value
    }

    /// The error a network driver's or an IPAM driver's caller reads.
    pub fn error(&self, method: &str) -> Option<String> {
        let key = if method.starts_with("IpamDriver.") { "Error" } else { "Err" };
        let text = self.json().get(key)?.as_str().expect("an error is a text").to_owned();
        assert!(!text.is_empty(), "{method}");
        Some(text)
    }
}

impl Caller {
    pub async fn connect(socket: &Path, host: &str) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        Self { stream: BufStream::new(stream), host: host.to_owned() }
    }

    /// Calls as dockerd does: no Content-Type, and an empty body where there are no arguments.
    pub async fn call(&mut self, method: &str, body: Option<&Value>) -> Reply {
        let body = body.map_or_else(String::new, Value::to_string);
        self.post(method, body.as_bytes()).await
    }

    pub async fn post(&mut self, method: &str, body: &[u8]) -> Reply {
        let head = self.head(method, body.len());
        self.send(head.as_bytes()).await;
        self.send(body).await;
        self.reply().await
    }

    pub fn head(&self, method: &str, length: usize) -> String {
        format!(
            "POST /{method} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {length}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
            self.host
        )
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await.unwrap();
            self.stream.flush().await.unwrap();
        };
        timeout(DEADLINE, sent).await.expect("sent in time");
    }

    pub async fn reply(&mut self) -> Reply {
        timeout(DEADLINE, self.read_reply()).await.expect("an answer in time")
    }

    async fn read_reply(&mut self) -> Reply {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("{status:?}"));
        let status = status.parse().unwrap();
        let (mut length, mut closes) = (0, false);
        loop {
            let line = self.line().await.to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            closes |= line == "connection: close";
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        Reply { status, closes, text: String::from_utf8(body).unwrap() }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        assert!(line.ends_with("\r\n"), "the connection ended: {line:?}");
        line.trim_end().to_owned()
    }

    /// Reads until the other side ends the connection.
    pub async fn ended(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await;
        assert!(matches!(read.expect("an end in time"), Ok(0) | Err(_)), "{rest:?}");
    }

    /// Says that nothing more will be sent.
    pub async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}
