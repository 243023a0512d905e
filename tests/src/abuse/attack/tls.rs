//! Before there is TLS.

use std::rc::Rc;
use std::time::Duration;

use futures_util::AsyncWriteExt;

use super::{Field, crowd, rest};

/// Bytes that are no TLS, or its beginning gone wrong.
pub(super) async fn garbage(field: &Rc<Field>) {
    crowd(field, 64, async |field| {
        let Ok(mut stream) = field.target.tcp(field.address(512)).await else { return };
        let bytes = match field.below(4) {
            0 => field.bytes(1 + field.below(2000) as usize),
            1 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            // A handshake record, as long as it says, with nothing in it that
            // makes sense.
            2 => [&[22, 3, 1, 1, 0][..], &field.bytes(256)].concat(),
            // One that says it is longer than TLS allows.
            _ => [&[22, 3, 3, 0xff, 0xff][..], &field.bytes(512)].concat(),
        };
        if stream.write_all(&bytes).await.is_ok() {
            field.sent("openings", 1);
        }
    })
    .await;
}

/// Handshakes that begin and never go on, held open: more from each address
/// than it may have.
pub(super) async fn half_open(field: &Rc<Field>) {
    field.at_least(6000);
    crowd(field, 6000, async |field| {
        let Ok(mut stream) = field.target.tcp(field.crowded(60)).await else { return };
        // The head of a ClientHello that never comes.
        if stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.is_ok() {
            field.sent("half handshakes", 1);
            let mut nothing = [0; 1];
            // Until the broker closes it.
            let _ended = futures_util::AsyncReadExt::read(&mut stream, &mut nothing).await;
        }
        rest(&field, Duration::from_millis(100)).await;
    })
    .await;
}

/// Complete handshakes, closed at once: the most work for the broker.
pub(super) async fn handshakes(field: &Rc<Field>) {
    field.at_least(800);
    crowd(field, 32, async |field| {
        field.sent("handshakes", 1);
        if let Ok(mut stream) = field.target.tls(field.crowded(1000)).await {
            field.count("completed");
            let _closing = stream.close().await;
        }
    })
    .await;
}
