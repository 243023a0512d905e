//! Before there is a device: HTTP.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_util::{AsyncReadExt, AsyncWriteExt};

use super::{Field, crowd, rest};
use crate::device::{DeviceError, Link, Secure};

/// Sends bytes on a new connection and gives the beginning of the answer.
async fn exchange(field: &Field, from: Ipv4Addr, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = field.target.tls(from).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    answer(&mut stream).await
}

async fn answer(stream: &mut Secure) -> Option<Vec<u8>> {
    let mut answer = vec![0; 1024];
    let count = stream.read(&mut answer).await.ok()?;
    answer.truncate(count);
    (count > 0).then_some(answer)
}

/// A good head with something wrong in it.
fn fuzzed(field: &Field) -> Vec<u8> {
    let good = format!("GET {CONNECT_PATH} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    let mut bytes = good.into_bytes();
    match field.below(5) {
        0 => bytes = field.bytes(64 + field.below(512) as usize),
        1 => {
            for _ in 0..=field.below(8) {
                let at = field.below(bytes.len() as u64) as usize;
                bytes[at] = field.draw() as u8;
            }
            // Whatever it has become, it ends.
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        2 => bytes = [b"GET /", &vec![b'a'; 9000][..], b" HTTP/1.1\r\n\r\n"].concat(),
        3 => {
            let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
            bytes = format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes();
        }
        _ => bytes = b"GET / HTTP/1.1\r\nContent-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    }
    bytes
}

/// Heads of requests that are none.
pub(super) async fn heads(field: &Rc<Field>) {
    crowd(field, 32, async |field| {
        let bytes = fuzzed(&field);
        field.sent("heads", 1);
        if let Some(answer) = exchange(&field, field.address(1000), &bytes).await
            && answer.starts_with(b"HTTP/1.1 101")
        {
            field.breach("a fuzzed head became a WebSocket");
        }
    })
    .await;
}

/// Handshakes of WebSockets with something missing or wrong.
pub(super) async fn websocket_heads(field: &Rc<Field>) {
    crowd(field, 32, async |field| {
        let fields = [
            "Connection: Upgrade\r\n".to_owned(),
            "Upgrade: websocket\r\n".to_owned(),
            "Sec-WebSocket-Version: 13\r\n".to_owned(),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n".to_owned(),
            format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"),
        ];
        let wrong = field.below(5) as usize;
        let text: String = fields
            .iter()
            .enumerate()
            .map(|(n, text)| match (n == wrong, text.split_once(": ")) {
                (true, Some((name, _))) if field.below(2) == 0 => format!("{name}: rubbish\r\n"),
                (true, _) => String::new(),
                (false, _) => text.clone(),
            })
            .collect();
        // A key of any length is as good as another to the library.
        let good = wrong == 3 && text.contains("Sec-WebSocket-Key");
        let head = format!("GET {CONNECT_PATH} HTTP/1.1\r\nHost: localhost\r\n{text}\r\n");
        field.sent("heads", 1);
        if let Some(answer) = exchange(&field, field.address(1000), head.as_bytes()).await
            && answer.starts_with(b"HTTP/1.1 101")
            && !good
        {
            field.breach(format!("became a WebSocket: {head}"));
        }
    })
    .await;
}

/// Heads that come a byte a second.
pub(super) async fn slow(field: &Rc<Field>) {
    field.at_least(400);
    crowd(field, 400, async |field| {
        field.sent("slow heads", 1);
        let Ok(mut stream) = field.target.tls(field.crowded(100)).await else {
            return rest(&field, Duration::from_secs(1)).await;
        };
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nx: 012345678901234567890123456789" {
            rest(&field, Duration::from_secs(1)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return field.count("cut off");
            }
        }
    })
    .await;
}

/// Good requests, as many as fit.
pub(super) async fn requests(field: &Rc<Field>) {
    crowd(field, 32, async |field| {
        let Ok(mut stream) = field.target.tls(field.address(100)).await else { return };
        let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
        let many = one.repeat(50);
        loop {
            field.sent("requests", 50);
            if stream.write_all(many.as_bytes()).await.is_err() || answer(&mut stream).await.is_none() {
                return;
            }
            if field.over() {
                return;
            }
        }
    })
    .await;
}

/// WebSockets from pages of others.
pub(super) async fn origins(field: &Rc<Field>) {
    const WRONG: [&str; 5] = [
        "https://evil.example",
        "https://localhost.evil.example",
        "null",
        "https://greenhouse--north.localhost",
        "http://[::1",
    ];
    crowd(field, 32, async |field| {
        let origin = WRONG[field.below(WRONG.len() as u64) as usize];
        field.sent("WebSockets", 1);
        match Link::connect_as(&field.target, field.address(1000), Some(origin)).await {
            Ok(_) => field.breach(format!("a page of {origin} got a WebSocket")),
            Err(DeviceError::WebSocket(_)) => field.count("refused"),
            Err(_) => field.count("cut off"),
        }
    })
    .await;
}
