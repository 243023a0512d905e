//! Datagrams: STUN from many addresses, and what is no STUN.

use std::net::UdpSocket;
use std::rc::Rc;

use farm_protocol::stun::binding_request;

use super::Field;
use crate::device::loopback;

/// Networks of 254 addresses each that requests seem to come from. A forger
/// has any; what comes back goes to whoever really is there.
const NETWORKS: u32 = 16;

/// Datagrams of one socket in a row.
const BURST: usize = 32;

/// Two of three are requests.
pub(super) fn flood(field: &Rc<Field>) {
    let sockets: Vec<_> = (0..NETWORKS)
        .filter_map(|n| UdpSocket::bind((loopback(super::HOSTILE_NET, n * 254 + n), 0)).ok())
        .collect();
    field.at_least(30_000);
    let mut received = 0;
    while !field.over() {
        for socket in &sockets {
            for n in 0..BURST {
                let mut packet = binding_request(&field.rng.borrow_mut().bytes());
                match n % 6 {
                    // Rubbish, which is no request of TURN either.
                    0 => packet = field.bytes(1 + n * 20),
                    // A request with more in it than it says.
                    3 => packet.push(0),
                    _ => {}
                }
                // A full queue loses it, which is what a flood is about.
                let _lost = socket.send_to(&packet, field.orders.address);
            }
            field.sent("datagrams", BURST as u64);
            // Reading would slow the flood down: only look at one of each.
            if socket.set_nonblocking(true).is_ok() && socket.recv(&mut [0; 100]).is_ok() {
                received += 1;
            }
        }
    }
    field.saw("answers looked at", f64::from(received));
}
