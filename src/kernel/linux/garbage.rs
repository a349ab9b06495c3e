//! Deletes links behind the caller's back.
//!
//! Deleting a link is nearly all waiting for the kernel (16 to 32 ms), and deleting a group of
//! them waits once for all. So links are moved to one group, and a thread with a socket of its
//! own deletes what has gathered there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::seen::GARBAGE_GROUP;
use super::wire::{Mode, Request, Wire, refused};
use crate::kernel::KernelError;

/// How long to wait before a refused deletion is tried again: a guess; the kernel refuses none
/// that is ours to make.
const RETRY: Duration = Duration::from_secs(1);

/// The collector's thread, its wake-up call and what waits.
#[derive(Debug)]
pub struct Garbage {
    waiting: Arc<AtomicUsize>,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Garbage {
    /// Starts the collector in the calling thread's namespace, with what an earlier process left.
    pub fn start(wire: &mut Wire) -> Result<Self, KernelError> {
        let left = wire.links()?.iter().filter(|link| link.group == GARBAGE_GROUP).count();
        let own = Wire::open()?;
        let waiting = Arc::new(AtomicUsize::new(left));
        let (wake, calls) = mpsc::channel();
        let thread = thread::Builder::new().name("garbage".into()).spawn({
            let waiting = Arc::clone(&waiting);
            move || collect(own, &waiting, &calls)
        });
        let garbage = Self { waiting, wake: Some(wake), thread: Some(thread.map_err(refused)?) };
        garbage.call();
        Ok(garbage)
    }

    /// One more link was moved to the group.
    pub fn put(&mut self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.call();
    }

    /// How many links wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn call(&self) {
        if let Some(wake) = &self.wake {
            // A collector that has ended leaves the rest to the next start.
            let _ = wake.send(());
        }
    }
}

/// Waits until all is deleted.
impl Drop for Garbage {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn collect(mut wire: Wire, waiting: &AtomicUsize, calls: &Receiver<()>) {
    loop {
        let before = waiting.load(Ordering::Acquire);
        let mut refused = false;
        if before > 0 {
            match delete_group(&mut wire) {
                Ok(()) => {
                    waiting.fetch_sub(before, Ordering::AcqRel);
                }
                Err(error) => {
                    refused = true;
                    tracing::warn!(links = before, %error, "cannot delete links; will try again");
                }
            }
        }
        let called = if refused {
            calls.recv_timeout(RETRY)
        } else {
            calls.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match called {
            Ok(()) | Err(RecvTimeoutError::Timeout) => while calls.try_recv().is_ok() {},
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One message for all of them; that there is none any more is success.
fn delete_group(wire: &mut Wire) -> Result<(), KernelError> {
    let message = LinkUnspec::new_with_index(0).link_group(GARBAGE_GROUP).build();
    let delete = Request::new(RouteNetlinkMessage::DelLink(message), Mode::Existing);
    match wire.send(vec![delete]) {
        Err(error) if error.errno == Errno::ENODEV as i32 => Ok(()),
        other => other,
    }
}
