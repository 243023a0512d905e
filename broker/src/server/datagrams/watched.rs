//! Waits for what comes to all sockets of datagrams at once. The kernel tells
//! which of them have something, many at once, and goes on telling until it is
//! read: nothing is armed anew, and no read finds nothing.

use std::io::{self, PipeReader};
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::core::relay::AllocationId;

/// Sockets that are told of at once.
const AT_ONCE: usize = 64;

/// Allocations are numbered from 1.
const CLIENTS: u64 = 0;
const END: u64 = u64::MAX;

/// Who has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The socket of all clients.
    Clients,
    /// A relayed socket.
    Peers(AllocationId),
    /// It is time to end.
    End,
}

/// The sockets; each is watched until it is closed.
pub(in crate::server) struct Watched(OwnedFd);

impl Watched {
    /// None yet.
    pub(in crate::server) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a relayed socket.
    pub(in crate::server) fn add(&self, socket: &UdpSocket, id: AllocationId) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(id.0), EventFlags::IN)?)
    }

    /// Watches the socket of all clients.
    pub(super) fn add_clients(&self, socket: &UdpSocket) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(CLIENTS), EventFlags::IN)?)
    }

    /// Tells when the other end of the pipe is closed.
    pub(super) fn add_end(&self, end: &PipeReader) -> io::Result<()> {
        Ok(epoll::add(&self.0, end, EventData::new_u64(END), EventFlags::empty())?)
    }

    /// Blocks until one or more have something.
    pub(super) fn wait(&self, sources: &mut Vec<Source>) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; AT_ONCE];
        let (events, _) = epoll::wait(&self.0, &mut events[..], None)?;
        sources.extend(events.iter().map(|event| match event.data.u64() {
            CLIENTS => Source::Clients,
            END => Source::End,
            id => Source::Peers(AllocationId(id)),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_of_until_it_is_read_and_not_after_it_is_closed() {
        let watched = Watched::new().unwrap();
        let next = || {
            let mut sources = Vec::new();
            watched.wait(&mut sources).unwrap();
            sources
        };
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let [clients, one, other] = [socket(), socket(), socket()];
        let (end, held) = io::pipe().unwrap();
        watched.add_clients(&clients).unwrap();
        watched.add(&one, AllocationId(1)).unwrap();
        watched.add(&other, AllocationId(2)).unwrap();
        watched.add_end(&end).unwrap();

        clients.send_to(b"hello", one.local_addr().unwrap()).unwrap();
        assert_eq!(next(), [Source::Peers(AllocationId(1))]);
        assert_eq!(next(), [Source::Peers(AllocationId(1))]);
        one.send_to(b"hello", clients.local_addr().unwrap()).unwrap();
        drop(one);
        assert_eq!(next(), [Source::Clients]);
        clients.recv(&mut [0; 8]).unwrap();
        drop(held);
        assert_eq!(next(), [Source::End]);
    }
}
