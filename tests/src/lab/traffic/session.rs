//! An idle session, as of SSH: one byte is answered now and then, and the
//! connection must live through everything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::lab::LabError;
use crate::lab::namespace::Namespace;

/// For one answer: as long as a user may have to wait for the tunnel.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open session.
pub(crate) struct Session {
    stream: TcpStream,
    next: u8,
}

impl Session {
    /// Opens it and types a first key.
    pub(crate) fn open(phone: &Namespace, forward: SocketAddr) -> Result<Self, LabError> {
        let io = || LabError::io("opening the idle session");
        let stream = phone.within(|| TcpStream::connect(forward))?.map_err(io())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io())?;
        stream.set_nodelay(true).map_err(io())?;
        let mut session = Self { stream, next: 0 };
        session.key().map_err(|problem| LabError::Wrong(format!("the idle session: {problem}")))?;
        Ok(session)
    }

    /// Types a key; it must be echoed.
    ///
    /// # Errors
    /// What happened instead.
    pub(crate) fn key(&mut self) -> Result<(), String> {
        self.next = self.next.wrapping_add(1);
        let mut answer = [0];
        let io = |error: std::io::Error| error.to_string();
        self.stream.write_all(&[self.next]).map_err(io)?;
        self.stream.read_exact(&mut answer).map_err(io)?;
        if answer[0] == self.next { Ok(()) } else { Err("another byte came back".to_owned()) }
    }
}
