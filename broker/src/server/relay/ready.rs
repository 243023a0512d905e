//! Waits for what comes to all relayed sockets at once.
//!
//! To wait for each by itself costs a wake-up of its task, a read that finds
//! nothing more and a wait that is armed anew, for every packet that comes
//! alone: together as much as relaying it. Here the kernel tells which sockets
//! have something, many at once, and goes on telling until it is read.

use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use smol::Async;

use crate::core::relay::AllocationId;

/// Sockets that are told of at once.
const AT_ONCE: usize = 64;

const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// All relayed sockets.
pub(super) struct Sockets(Async<OwnedFd>);

impl Sockets {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Async::new_nonblocking(epoll)?))
    }

    /// One more, until it is closed.
    pub(super) fn add(&self, socket: &UdpSocket, id: AllocationId) -> io::Result<()> {
        epoll::add(&self.0, socket, epoll::EventData::new_u64(id.0), epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Waits until one or more have something; `ready` is empty before.
    pub(super) async fn wait(&self, ready: &mut Vec<AllocationId>) -> io::Result<()> {
        loop {
            self.look(ready)?;
            if !ready.is_empty() {
                return Ok(());
            }
            self.0.readable().await?;
        }
    }

    fn look(&self, ready: &mut Vec<AllocationId>) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; AT_ONCE];
        let (events, _) = epoll::wait(&self.0, &mut events[..], Some(&NOT_AT_ALL))?;
        ready.extend(events.iter().map(|event| AllocationId(event.data.u64())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};

    #[test]
    fn a_socket_is_told_of_until_it_is_read_and_not_after_it_is_closed() {
        block_on(async {
            let (sockets, mut ready) = (Sockets::new().unwrap(), Vec::new());
            let [one, other] = [1, 2].map(|id| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                sockets.add(&socket, AllocationId(id)).unwrap();
                socket
            });
            assert!(poll_once(sockets.wait(&mut ready)).await.is_none());
            other.send_to(b"hello", one.local_addr().unwrap()).unwrap();
            for _ in 0..2 {
                sockets.wait(&mut ready).await.unwrap();
                assert!(ready.drain(..).eq([AllocationId(1)]));
            }
            one.recv(&mut [0; 8]).unwrap();
            assert!(poll_once(sockets.wait(&mut ready)).await.is_none());
            other.send_to(b"hello", one.local_addr().unwrap()).unwrap();
            one.send_to(b"hello", other.local_addr().unwrap()).unwrap();
            drop(one);
            sockets.wait(&mut ready).await.unwrap();
            assert!(ready.drain(..).eq([AllocationId(2)]));
        });
    }
}
