//! What waits to be sent to one device: bounded in messages and bytes, and
//! without memory of its own while empty (a channel with 64 places would cost
//! each idle connection a kilobyte).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

/// Most messages that wait for one device: presence of 256 watched farms, or
/// the offers of 256 phones, with room.
pub const MAX_MESSAGES: usize = 1024;

/// Most bytes that wait for one device: what its mobile link takes in a
/// second.
pub const MAX_BYTES: usize = 512 * 1024;

/// Most bytes that wait for all devices together.
pub const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that may always wait for a device: it must not be thrown out because
/// others don't read. A signal and its answers; 80 MB for 20,000 devices.
pub const ALWAYS_BYTES: usize = 4 * 1024;

/// The device does not read: the bound is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The bytes that wait for all devices together.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    state: State,
    waker: Option<Waker>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// No more will come.
    Closed,
    /// What is left is not to be sent either.
    Dropped,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    waiting: Waiting,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change below is complete before anything could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let left = self.lock().bytes;
        self.waiting.0.fetch_sub(left, Ordering::Relaxed);
    }
}

/// The end that messages are put into. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Outbox(Arc<Shared>);

/// The end that messages are sent from.
#[derive(Debug)]
pub(super) struct Outlet(Arc<Shared>);

/// What is next to do for the sending end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this.
    Message(Bytes),
    /// All was sent and no more will come.
    Closed,
    /// Give the device up.
    Dropped,
}

/// A new queue.
pub(super) fn outbox(waiting: &Waiting) -> (Outbox, Outlet) {
    let shared = Arc::new(Shared { queue: Mutex::default(), waiting: waiting.clone() });
    (Outbox(shared.clone()), Outlet(shared))
}

impl Outbox {
    /// Puts a message last.
    pub(super) fn push(&self, message: Bytes) -> Result<(), Full> {
        let mut queue = self.0.lock();
        let bytes = queue.bytes + message.len();
        let total = self.0.waiting.0.load(Ordering::Relaxed) + message.len();
        let crowded = total > MAX_TOTAL_BYTES && bytes > ALWAYS_BYTES;
        if bytes > MAX_BYTES || queue.messages.len() >= MAX_MESSAGES || crowded {
            return Err(Full);
        }
        self.0.waiting.0.fetch_add(message.len(), Ordering::Relaxed);
        queue.bytes = bytes;
        queue.messages.push_back(message);
        wake(queue);
        Ok(())
    }

    /// Gives the device up without sending what waits.
    pub(super) fn give_up(self) {
        self.0.lock().state = State::Dropped;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        if queue.state == State::Open {
            queue.state = State::Closed;
        }
        wake(queue);
    }
}

fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Outlet {
    /// Waits for something to do. Nothing is lost when the future is dropped.
    pub(super) async fn next(&self) -> Next {
        poll_fn(|context| {
            let mut queue = self.0.lock();
            if queue.state == State::Dropped {
                return Poll::Ready(Next::Dropped);
            }
            if let Some(message) = self.take(&mut queue) {
                return Poll::Ready(Next::Message(message));
            }
            if queue.state == State::Closed {
                return Poll::Ready(Next::Closed);
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What can be sent right now, besides.
    pub(super) fn more(&self) -> Option<Bytes> {
        let mut queue = self.0.lock();
        if queue.state == State::Dropped { None } else { self.take(&mut queue) }
    }

    fn take(&self, queue: &mut Queue) -> Option<Bytes> {
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.len();
        self.0.waiting.0.fetch_sub(message.len(), Ordering::Relaxed);
        if queue.messages.is_empty() {
            queue.messages = VecDeque::new();
        }
        Some(message)
    }

    /// Waits until the device is given up.
    pub(super) async fn dropped(&self) {
        poll_fn(|context| {
            let mut queue = self.0.lock();
            if queue.state == State::Dropped {
                return Poll::Ready(());
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};

    #[test]
    fn messages_come_in_order_then_the_end() {
        let waiting = Waiting::default();
        let (inlet, outlet) = outbox(&waiting);
        inlet.push(Bytes::from_static(b"one")).unwrap();
        inlet.push(Bytes::from_static(b"two")).unwrap();
        drop(inlet);
        block_on(async {
            assert_eq!(outlet.next().await, Next::Message(Bytes::from_static(b"one")));
            assert_eq!(outlet.more(), Some(Bytes::from_static(b"two")));
            assert_eq!(outlet.more(), None);
            assert_eq!(outlet.next().await, Next::Closed);
        });
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_bounds_hold_and_what_is_dropped_is_given_back() {
        let waiting = Waiting::default();
        let (inlet, outlet) = outbox(&waiting);
        let half = Bytes::from(vec![0; MAX_BYTES / 2]);
        assert_eq!(inlet.push(half.clone()), Ok(()));
        assert_eq!(inlet.push(half.clone()), Ok(()));
        assert_eq!(inlet.push(Bytes::from_static(b"x")), Err(Full));
        inlet.give_up();
        assert_eq!(block_on(outlet.next()), Next::Dropped);
        block_on(outlet.dropped());
        drop(outlet);
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);

        let (many, _outlet) = outbox(&waiting);
        for _ in 0..MAX_MESSAGES {
            many.push(Bytes::new()).unwrap();
        }
        assert_eq!(many.push(Bytes::new()), Err(Full));

        let full: Vec<_> = (0..MAX_TOTAL_BYTES / MAX_BYTES).map(|_| outbox(&waiting)).collect();
        for (inlet, _) in &full {
            inlet.push(Bytes::from(vec![0; MAX_BYTES])).unwrap();
        }
        let (one_more, _outlet) = outbox(&waiting);
        assert_eq!(
            one_more.push(Bytes::from(vec![0; ALWAYS_BYTES])),
            Ok(()),
            "others must not cost it its place"
        );
        assert_eq!(one_more.push(Bytes::from_static(b"x")), Err(Full));
    }

    #[test]
    fn a_waiting_end_is_woken() {
        let (inlet, outlet) = outbox(&Waiting::default());
        block_on(async {
            let mut next = Box::pin(outlet.next());
            assert_eq!(poll_once(&mut next).await, None);
            inlet.push(Bytes::from_static(b"one")).unwrap();
            assert_eq!(next.await, Next::Message(Bytes::from_static(b"one")));
        });
    }
}
