//! Listening sockets that the service manager holds (`sd_listen_fds(3)`): while
//! the broker is replaced, connections wait in them instead of being refused.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;

/// Most sockets that are taken over: the broker listens on fewer.
const MOST: usize = 16;

/// What was handed over and not used yet.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Inherited {
    /// Takes what the service manager hands over; nothing where there is none.
    /// Once, before there are threads: it changes the environment.
    ///
    /// # Errors
    /// Something that is no TCP or UDP socket.
    pub fn take() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..handed.len().min(MOST) {
            if let Ok(Some(listener)) = handed.take_tcp_listener(index) {
                listener.set_nonblocking(true)?;
                inherited.tcp.push(listener);
            } else if let Some(socket) = handed.take_udp_socket(index)? {
                socket.set_nonblocking(true)?;
                inherited.udp.push(socket);
            }
        }
        Ok(inherited)
    }

    /// The TCP socket at this address, if it was handed over.
    pub(super) fn tcp_at(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|listener| listener.local_addr().ok() == Some(address))?;
        Some(self.tcp.swap_remove(at))
    }

    /// The UDP socket at this address, if it was handed over.
    pub(super) fn udp_at(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        let at = self.udp.iter().position(|socket| socket.local_addr().ok() == Some(address))?;
        Some(self.udp.swap_remove(at))
    }

    /// Addresses that the config does not name: a mistake in one of the two.
    pub(super) fn unused(&self) -> Vec<SocketAddr> {
        let tcp = self.tcp.iter().filter_map(|listener| listener.local_addr().ok());
        tcp.chain(self.udp.iter().filter_map(|socket| socket.local_addr().ok())).collect()
    }
}
