//! Hostile traffic at the relay: by strangers, and by a farm of their own with
//! credentials that are good.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Instant;

use farm_broker::core::relay::message::{Class, Method, Writer, attribute as a};
use farm_protocol::relay::Relay;

use super::Field;
use crate::abuse::relayed::credentials;
use crate::device::loopback;
use crate::device::turn::{SILENCE, Turn, allocate, bind, channel_data, code, permit};

/// The number of the first hostile farm; each attack has one of its own, whose
/// allocations nobody else pays for.
const HOSTILE_FARM: u64 = 11 << 40;

/// Networks that packets seem to come from: few, so that the limit of each is
/// met on a slow machine, too.
const NETWORKS: u32 = 4;

/// More than one device may have allocations.
const CLIENTS: u32 = 80;

/// Clients where fewer will do.
const FEW: u32 = 16;

/// Packets of one socket in a row.
const BURST: usize = 32;

/// Where no peer may be: the server's own network, and what is nobody's.
const INSIDE: [&str; 6] =
    ["10.0.0.1:80", "127.0.0.2:22", "169.254.169.254:80", "192.168.1.1:53", "100.64.0.1:80", "224.0.0.1:9"];

/// The relay's limit of requests of one network, with a second of slack.
const ANSWERS_AT_ONCE: f64 = 300.0;
const ANSWERS_A_SECOND: f64 = 100.0;

/// A client in one of the networks.
fn client(field: &Field, number: u32, relay: &Relay) -> Option<Turn> {
    let from = loopback(super::HOSTILE_NET, number % NETWORKS * 254 + number / NETWORKS);
    let server = SocketAddr::new(field.orders.address.ip(), relay.udp?);
    Turn::new(from, server, relay).ok()
}

/// The credentials of the hostile farm; strangers have none.
async fn own(field: &Field) -> Relay {
    if let Some(token) = &field.orders.token {
        match credentials(&field.target, token, HOSTILE_FARM + field.attack() as u64).await {
            Ok(relay) => return relay,
            Err(error) => field.breach(format!("an enrolled farm has no relay: {error}")),
        }
    }
    let udp = Some(field.orders.address.port());
    let (username, credential) = ("1:0".to_owned(), "guessed".to_owned());
    Relay { host: None, udp, tcp: None, tls: None, username, credential, seconds: 7200 }
}

fn clients(field: &Field, relay: &Relay, count: u32) -> Vec<Turn> {
    (0..count).filter_map(|number| client(field, number, relay)).collect()
}

fn drain(client: &Turn, mut each: impl FnMut(&[u8])) {
    let mut bytes = [0; 2048];
    if client.socket().set_nonblocking(true).is_ok() {
        while let Ok(length) = client.socket().recv(&mut bytes) {
            each(&bytes[..length]);
        }
    }
}

/// Every kind of request, with good credentials, as fast as it goes.
pub(super) async fn floods(field: &Rc<Field>) {
    let relay = own(field).await;
    field.at_least(20_000);
    let mut clients = clients(field, &relay, CLIENTS);
    let mut allocated = 0;
    for client in &mut clients {
        match client.allocate() {
            Ok(_) => allocated += 1,
            Err(486 | 508 | SILENCE) => field.count("refused"),
            Err(code) => field.breach(format!("an allocation was answered with {code}")),
        }
        if field.over() {
            break;
        }
    }
    field.saw("allocations", f64::from(allocated));
    while !field.over() {
        for (number, client) in clients.iter_mut().enumerate() {
            for n in 0..BURST {
                let peer = SocketAddr::from((Ipv4Addr::new(198, 51, 100, n as u8), 9));
                let channel = 0x4000 + (field.draw() % 200) as u16;
                let request = match (number + n) % 4 {
                    0 => client.request(Method::Allocate, &allocate),
                    1 => client.request(Method::Refresh, &|writer| writer),
                    2 => client.request(Method::CreatePermission, &permit(peer)),
                    _ => client.request(Method::ChannelBind, &bind(channel, peer)),
                };
                // A full queue loses it, which is what a flood is about.
                let _lost = client.socket().send(&request);
            }
            field.sent("requests", BURST as u64);
            drain(client, |answer| {
                if matches!(code(answer), None | Some(400 | 437 | 438 | 486 | 508)) {
                    return;
                }
                field.breach(format!("a good request was answered with {:?}", code(answer)));
            });
        }
    }
}

/// Requests with credentials that are wrong, forged or prolonged.
pub(super) async fn wrong_credentials(field: &Rc<Field>) {
    let relay = own(field).await;
    field.at_least(10_000);
    let mut clients = clients(field, &relay, FEW);
    for client in &mut clients {
        // Takes a nonce, and is refused.
        if client.allocate().is_ok() {
            field.breach("credentials that nobody gave opened an allocation");
        }
        if field.over() {
            break;
        }
    }
    while !field.over() {
        for client in &mut clients {
            for n in 0..BURST {
                let name =
                    format!("{}:{:016x}{:016x}", 4_000_000_000_u64 + n as u64, field.draw(), field.draw());
                match n % 3 {
                    0 => client.pretend(&name, "guessed"),
                    1 => client.pretend("admin", "admin"),
                    _ => client.pretend(&"9".repeat(500), ""),
                }
                let request = client.request(Method::Allocate, &allocate);
                let _lost = client.socket().send(&request);
            }
            field.sent("requests", BURST as u64);
            drain(client, |answer| {
                if code(answer).is_none() {
                    field.breach("credentials that nobody gave opened an allocation");
                }
            });
        }
    }
}

/// Peers in the server's own network, by every way to name one.
pub(super) async fn peers_inside(field: &Rc<Field>) {
    let relay = own(field).await;
    field.at_least(2_000);
    let Ok(victim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return };
    let (Ok(inside), Ok(())) = (victim.local_addr(), victim.set_nonblocking(true)) else { return };
    let mut clients = clients(field, &relay, FEW);
    for client in &mut clients {
        if client.allocate().is_err() {
            continue;
        }
        for peer in INSIDE.iter().filter_map(|peer| peer.parse::<SocketAddr>().ok()) {
            for answer in
                [client.ask(Method::CreatePermission, &permit(peer)).map(drop), client.bind(0x4001, peer)]
            {
                field.sent("requests", 1);
                match answer {
                    Err(403 | SILENCE) => {}
                    other => field.breach(format!("the peer {peer} was answered with {other:?}")),
                }
            }
            if field.over() {
                break;
            }
        }
        // The relay's own host may be named, for its allocations.
        let _permitted = client.bind(0x4000, inside);
        let _permitted = client.ask(Method::CreatePermission, &permit(field.orders.address));
    }
    while !field.over() {
        for client in &clients {
            for n in 0..BURST {
                let peer = if n % 2 == 0 { inside } else { field.orders.address };
                let packet = match n % 4 {
                    0 => channel_data(0x4000, b"to ourselves"),
                    _ => indication(peer, b"to ourselves", field.draw()),
                };
                let _lost = client.socket().send(&packet);
            }
            field.sent("packets", BURST as u64);
            drain(client, |_| {});
        }
        if victim.recv(&mut [0; 64]).is_ok() {
            field.breach("a program beside the broker was reached through the relay");
        }
    }
}

fn indication(peer: SocketAddr, data: &[u8], draw: u64) -> Vec<u8> {
    let mut transaction = [0x11; 12];
    transaction[..8].copy_from_slice(&draw.to_be_bytes());
    Writer::new(Method::Send, Class::Indication, transaction)
        .with_address(a::XOR_PEER_ADDRESS, peer)
        .with(a::DATA, data)
        .finish(None)
}

/// Data for channels that nobody bound and peers that nobody let in, from who
/// has an allocation and from who has none.
pub(super) async fn unbound(field: &Rc<Field>) {
    let relay = own(field).await;
    field.at_least(30_000);
    let mut clients = clients(field, &relay, FEW);
    for client in clients.iter_mut().step_by(2) {
        let _refused = client.allocate();
        if field.over() {
            break;
        }
    }
    while !field.over() {
        for client in &clients {
            for n in 0..BURST {
                let length = (field.draw() % 1400) as usize;
                let peer = SocketAddr::from((Ipv4Addr::new(198, 51, 100, n as u8), 9));
                let packet = match n % 3 {
                    0 => channel_data(0x4000 + n as u16, &vec![0x5a; length]),
                    1 => indication(peer, &vec![0x5a; length], field.draw()),
                    // It says that it is longer than it is.
                    _ => [&0x4000_u16.to_be_bytes()[..], &0xffff_u16.to_be_bytes(), b"short"].concat(),
                };
                let _lost = client.socket().send(&packet);
            }
            field.sent("packets", BURST as u64);
            drain(client, |_| field.breach("what nobody bound was answered"));
        }
    }
}

/// Questions whose source is forged, so that answers go to somebody else: here
/// to one network, which counts what it gets.
pub(super) fn reflection(field: &Rc<Field>) {
    field.at_least(20_000);
    let began = Instant::now();
    let victims: Vec<_> = (1..=16)
        .filter_map(|host| UdpSocket::bind((loopback(super::HOSTILE_NET, 250 * 254 + host), 0)).ok())
        .collect();
    let (mut asked, mut answers, mut bytes_out, mut bytes_back) = (0u64, 0u64, 0u64, 0u64);
    let mut buffer = [0; 2048];
    while !field.over() {
        for victim in &victims {
            for n in 0..BURST as u64 {
                asked += 1;
                let mut transaction = [0x22; 12];
                transaction[..8].copy_from_slice(&asked.to_be_bytes());
                let method =
                    [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];
                let writer = Writer::new(method[n as usize % 4], Class::Request, transaction);
                let request = writer.finish(None);
                if victim.send_to(&request, field.orders.address).is_ok() {
                    bytes_out += request.len() as u64;
                }
            }
            field.sent("questions", BURST as u64);
            while victim.set_nonblocking(true).is_ok()
                && let Ok(length) = victim.recv(&mut buffer)
            {
                answers += 1;
                bytes_back += length as u64;
            }
        }
    }
    field.saw("answers", answers as f64);
    field.saw("bytes back for each byte", bytes_back as f64 / bytes_out.max(1) as f64);
    let most = ANSWERS_AT_ONCE + ANSWERS_A_SECOND * (1.0 + began.elapsed().as_secs_f64());
    if answers as f64 > most {
        field.breach(format!("{answers} answers to one network, at most {most:.0} are allowed"));
    }
    if bytes_back > 3 * answers.max(1) * 20 {
        field.breach("an answer is three times as long as its question");
    }
}
