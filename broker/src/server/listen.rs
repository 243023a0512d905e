//! Sockets as the broker wants them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{Backlog, setsockopt, sockopt};

use super::inherited::Inherited;

/// Connections that wait to be accepted: after a restart all devices come
/// back at once.
const BACKLOG: i32 = 4096;

/// The kernel asks a silent peer after this time, so that a farm without
/// power is noticed within 30 s (20 + 3 x 3) although its heartbeat comes
/// only every minute. Two bare packets every 20 s are 0.4 MB a day.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);

/// Between two questions without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Questions without an answer until the connection is dead.
const KEEPALIVE_COUNT: u32 = 3;

/// Data without an acknowledgement for this long: the connection is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// What the kernel holds for a device that does not read, in bytes.
const SEND_BUFFER: usize = 128 * 1024;

/// Tries to find a port that is free for both TCP and UDP.
const PORT_TRIES: u32 = 16;

/// Why the broker can't listen.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} ({transport}): {}", explain(.source, .option))]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub transport: &'static str,
    /// The option that says where.
    pub option: &'static str,
    /// Why.
    pub source: io::Error,
}

fn explain(error: &io::Error, option: &str) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use: stop the program that has it",
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine: correct it",
        io::ErrorKind::PermissionDenied => "not permitted: ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => return format!("{error}: choose another address with {option}"),
    };
    format!("{why}, or choose another one with {option}")
}

/// Where the STUN responder listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StunListen {
    /// At the same address and port number as TCP.
    #[default]
    Same,
    /// At an address of its own: TCP comes through a proxy, UDP does not.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// Binds TCP and UDP. For port 0 the kernel chooses one, the same for both
/// with [`StunListen::Same`].
pub(super) fn bind(
    inherited: &mut Inherited,
    address: SocketAddr,
    stun: StunListen,
) -> Result<(TcpListener, Option<UdpSocket>), ListenError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = failed(address, "TCP", "--listen");
        let listener = bind_tcp(inherited, address).map_err(&tcp)?;
        let stun_address = match stun {
            StunListen::Off => return Ok((listener, None)),
            StunListen::At(address) => address,
            StunListen::Same => listener.local_addr().map_err(&tcp)?,
        };
        let bound = bind_udp(inherited, stun_address);
        match bound.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && stun == StunListen::Same && tries > 0 => {}
            Err(source) => return Err(failed(stun_address, "UDP, for STUN", "--stun")(source)),
        }
    }
}

fn failed(
    address: SocketAddr,
    transport: &'static str,
    option: &'static str,
) -> impl Fn(io::Error) -> ListenError {
    move |source| ListenError { address, transport, option, source }
}

/// Binds another TCP port, for plain HTTP, where one is wanted.
pub(super) fn bind_plain(
    inherited: &mut Inherited,
    address: Option<SocketAddr>,
    option: &'static str,
) -> Result<Option<TcpListener>, ListenError> {
    match address {
        Some(address) => bind_tcp(inherited, address).map(Some).map_err(failed(address, "TCP", option)),
        None => Ok(None),
    }
}

fn bind_udp(inherited: &mut Inherited, address: SocketAddr) -> io::Result<UdpSocket> {
    inherited.udp_at(address).map_or_else(|| UdpSocket::bind(address), Ok)
}

fn bind_tcp(inherited: &mut Inherited, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = match inherited.tcp_at(address) {
        Some(listener) => listener,
        None => TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    // Asking again raises the backlog that the standard library chose.
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    tune(&listener)?;
    Ok(listener)
}

/// Makes the kernel notice dead devices and bound what it holds for slow ones.
/// Linux gives all of it on to the sockets that are accepted.
fn tune(listener: &TcpListener) -> io::Result<()> {
    let socket = listener.as_fd();
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &(KEEPALIVE_IDLE.as_secs() as u32))?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &(KEEPALIVE_INTERVAL.as_secs() as u32))?;
    setsockopt(&socket, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    setsockopt(&socket, sockopt::TcpUserTimeout, &(UNACKNOWLEDGED.as_millis() as u32))?;
    setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
    Ok(())
}
