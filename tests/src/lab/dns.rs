//! The internet's resolver: knows one name (RFC 1035).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::LabError;
use super::namespace::Namespace;

/// Between two looks whether it should end.
const LOOK: Duration = Duration::from_millis(200);
/// Header of a message, bytes.
const HEADER: usize = 12;
/// The type of an IPv4 address record.
const A: u16 = 1;

/// A running resolver; ends when dropped.
pub(super) struct Dns {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Answers at `listen` with `address` for `name`, and that no other exists.
    pub(super) fn start(
        namespace: &Namespace,
        listen: SocketAddr,
        name: &str,
        address: Ipv4Addr,
    ) -> Result<Self, LabError> {
        let socket = namespace
            .within(|| UdpSocket::bind(listen))?
            .and_then(|socket| socket.set_read_timeout(Some(LOOK)).map(|()| socket))
            .map_err(LabError::io("starting the resolver"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (wire_name(name), stop.clone());
        let serve = move || {
            let mut packet = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut packet)
                    && let Some(answer) = answer(&packet[..length], &name, address)
                {
                    // An answer that can't be sent is one that was lost.
                    let _ = socket.send_to(&answer, from);
                }
            }
        };
        let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(serve);
        Ok(Self { stop, thread: Some(thread.map_err(LabError::io("starting the resolver"))?) })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// A name as it is in messages: each label after its length.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// The answer to a query; None to what is none.
fn answer(query: &[u8], name: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let question = query.get(HEADER..)?;
    let end = question.iter().position(|byte| *byte == 0)? + 1;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    question.get(end + 3)?;
    let known = question[..end].eq_ignore_ascii_case(name);
    let found = known && kind == A;
    let mut answer = query[..2].to_vec();
    // A response, recursion available, no error or no such name.
    answer.extend_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
    answer.extend_from_slice(&[0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend_from_slice(&question[..end + 4]);
    if found {
        // The question's name, A, IN, for 60 s, four bytes.
        answer.extend_from_slice(&[0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_address() {
        let name = wire_name("broker.lab");
        let query = |name: &str, kind: u8| {
            let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend_from_slice(&wire_name(name));
            query.extend_from_slice(&[0, kind, 0, 1]);
            query
        };
        let ask = |text: &str, kind| answer(&query(text, kind), &name, Ipv4Addr::new(192, 0, 2, 10)).unwrap();
        let found = ask("Broker.lab", 1);
        assert_eq!((&found[..2], found[3], found[7]), (&[7, 9][..], 0x80, 1));
        assert_eq!(found[found.len() - 4..], [192, 0, 2, 10]);
        let no_ipv6 = ask("broker.lab", 28);
        assert_eq!((no_ipv6[3], no_ipv6[7]), (0x80, 0));
        assert_eq!(ask("elsewhere.lab", 1)[3], 0x83);
        assert_eq!(answer(&[0; 12], &name, Ipv4Addr::LOCALHOST), None);
    }
}
