//! A watched socket: what the kernel said of it, and who waits.

use std::sync::Mutex;
use std::task::{Context, Waker};

use rustix::event::epoll::EventFlags;

use super::locked;

/// A way to use a socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Read,
    Write,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) key: usize,
    ways: Mutex<[Side; 2]>,
}

#[derive(Debug, Default)]
struct Side {
    /// To be tried: the kernel said so, or it was not tried since.
    ready: bool,
    /// Nothing else will be said of it.
    ended: bool,
    waker: Option<Waker>,
}

impl Source {
    /// The kernel says at once what the socket is ready for. Writing is tried
    /// before it does: a new socket takes what is written.
    pub(super) fn new(key: usize) -> Self {
        let write = Side { ready: true, ..Side::default() };
        Self { key, ways: Mutex::new([Side::default(), write]) }
    }

    /// Whether to try; else whoever asks is woken when it is time. To be
    /// followed by [`Source::again`] unless the try showed that nothing is left.
    pub(super) fn begin(&self, way: Way, cx: &Context<'_>) -> bool {
        let side = &mut locked(&self.ways)[way as usize];
        // Taken back before the try: what the kernel says from now on counts.
        if std::mem::replace(&mut side.ready, side.ended) {
            return true;
        }
        if !side.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            side.waker = Some(cx.waker().clone());
        }
        false
    }

    /// There may be more.
    pub(super) fn again(&self, way: Way) {
        locked(&self.ways)[way as usize].ready = true;
    }

    /// The kernel said this.
    pub(super) fn happened(&self, flags: EventFlags, wakers: &mut Vec<Waker>) {
        let over = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let no_more = over || flags.contains(EventFlags::RDHUP);
        let mut ways = locked(&self.ways);
        let [read, write] = &mut *ways;
        for (side, ready, ended) in [
            (read, no_more || flags.contains(EventFlags::IN), no_more),
            (write, over || flags.contains(EventFlags::OUT), over),
        ] {
            side.ended |= ended;
            if ready {
                side.ready = true;
                wakers.extend(side.waker.take());
            }
        }
    }
}
