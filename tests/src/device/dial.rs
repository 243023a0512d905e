//! Connections to a broker on loopback, from any address of 127.0.0.0/8.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::version::TLS13;
use futures_rustls::rustls::{CipherSuite, ClientConfig, RootCertStore, crypto::ring};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use smol::Async;
use smol::net::TcpStream;

use super::certificate::NAME;

/// A connection after its TLS handshake.
pub type Secure = TlsStream<TcpStream>;

/// The n-th address of 127.0.0.0/8 from `127.FIRST.0.1` on.
#[must_use]
pub fn loopback(first: u8, n: u32) -> Ipv4Addr {
    // Neither .0 nor .255, which some tools take for networks.
    let (rest, last) = (n / 254, n % 254 + 1);
    Ipv4Addr::new(127, first, (rest % 256) as u8, last as u8)
}

/// Where a broker is and how it is recognised.
#[derive(Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    connector: TlsConnector,
}

impl Target {
    /// A broker whose certificate lies in this DER file. Connections do not
    /// resume former ones: each is a full handshake, by the cipher that our
    /// broker chooses, so that others that are measured beside it have the same
    /// to do.
    ///
    /// # Errors
    /// When the file can't be read or holds no certificate.
    pub fn new(address: SocketAddr, der: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from(std::fs::read(der)?);
        roots.add(certificate).map_err(io::Error::other)?;
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// The broker's name as devices sign it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{NAME}:{}", self.address.port())
    }

    /// A TCP connection from this address.
    ///
    /// # Errors
    /// The system's.
    pub async fn tcp(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let SocketAddr::V4(to) = self.address else {
            return Err(io::Error::other("a broker on 127.0.0.0/8 is expected"));
        };
        tcp(from, to).await
    }

    /// A TLS connection from this address.
    ///
    /// # Errors
    /// The system's, or that the broker ended the handshake.
    pub async fn tls(&self, from: Ipv4Addr) -> io::Result<Secure> {
        let stream = self.tcp(from).await?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

async fn tcp(from: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    // The port is chosen at connect, so that each pair of addresses has all of them.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    match connect(socket.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Async::new_nonblocking(std::net::TcpStream::from(socket))?;
    stream.writable().await?;
    if let Some(error) = stream.get_ref().take_error()? {
        return Err(error);
    }
    stream.get_ref().set_nodelay(true)?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_are_hosts() {
        let all: std::collections::BTreeSet<_> = (0..5000).map(|n| loopback(9, n)).collect();
        assert_eq!(all.len(), 5000);
        assert!(all.iter().all(|ip| ip.octets()[..2] == [127, 9] && (1..255).contains(&ip.octets()[3])));
    }

    #[test]
    fn a_connection_comes_from_where_it_is_told() {
        smol::block_on(async {
            let listener = smol::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let SocketAddr::V4(to) = listener.local_addr().unwrap() else { unreachable!() };
            let from = loopback(7, 300);
            let stream = tcp(from, to).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1, stream.local_addr().unwrap());
            assert_eq!(stream.local_addr().unwrap().ip(), from);
            drop(listener);
            assert!(tcp(from, to).await.is_err(), "nobody listens any more");
        });
    }
}
