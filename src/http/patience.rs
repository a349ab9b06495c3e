//! A stream that waits for ever for a request to begin, but not for one that has begun.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// How many request heads of a connection were read, and how many of those requests are answered.
#[derive(Debug, Default)]
pub(super) struct Heads {
    begun: AtomicU64,
    done: AtomicU64,
}

impl Heads {
    /// A head was read; its request is in work until the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InWork {
        self.begun.fetch_add(1, Ordering::AcqRel);
        InWork(self.clone())
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    fn idle(&self) -> bool {
        self.begun() == self.done.load(Ordering::Acquire)
    }
}

/// A request in work.
#[derive(Debug)]
pub(super) struct InWork(Arc<Heads>);

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// A stream that fails with `TimedOut` when a head that has begun does not end in time.
#[derive(Debug)]
pub(super) struct Patient {
    stream: UnixStream,
    heads: Arc<Heads>,
    limit: Duration,
    /// The head that is awaited, by number, and until when.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Patient {
    pub(super) fn new(stream: UnixStream, heads: Arc<Heads>, limit: Duration) -> Self {
        Self { stream, heads, limit, deadline: None }
    }

    /// Whether the head that is being read is late; asks to be woken when it will be.
    fn late(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline.take_if(|(head, _)| *head != self.heads.begun());
        self.deadline.as_mut().is_some_and(|(_, until)| until.as_mut().poll(context).is_ready())
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.late(context) {
            let why = "the request's head did not end in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        let first_bytes = self.deadline.is_none() && buffer.filled().len() > before;
        if first_bytes && self.heads.idle() {
            self.deadline = Some((self.heads.begun(), Box::pin(sleep(self.limit))));
        }
        polled
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
