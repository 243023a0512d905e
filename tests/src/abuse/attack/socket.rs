//! On a WebSocket: what is no message, or comes when it must not.

use std::rc::Rc;

use async_tungstenite::tungstenite::Bytes;
use farm_protocol::broker::{Access, Address, FromBroker, RefusedReason, Signal, ToBroker, Watch};
use farm_protocol::channel::{CLAIM_HEADER, Channel};
use farm_protocol::codec;
use farm_protocol::keys::Nonce;
use futures_util::AsyncWriteExt;

use super::{Field, crowd};
use crate::device::{Device, DeviceError, Link, Message};

/// The address book of attacks that need a WebSocket: few enough that the
/// limits per address are met, too.
const ADDRESSES: u32 = 1000;

/// Reads until the end; what the broker said last.
async fn end(link: &mut Link) -> Option<FromBroker> {
    let mut last = None;
    while let Ok(message) = link.next().await {
        last = Some(message);
    }
    last
}

/// Frames that break RFC 6455, and messages that are no CBOR of ours.
pub(super) async fn frames(field: &Rc<Field>) {
    crowd(field, 32, async |field| {
        let Ok(mut link) = Link::connect(&field.target, field.address(ADDRESSES)).await else { return };
        field.sent("frames", 1);
        let sent = match field.below(6) {
            0 => link.send_raw(Message::binary(field.bytes(1 + field.below(3000) as usize))).await,
            1 => link.send_raw(Message::text("hello")).await,
            2 => link.send_raw(Message::binary(vec![0; codec::MAX_MESSAGE + 1])).await,
            3 => link.send_raw(Message::binary(vec![0x81; 60_000])).await,
            // Unmasked, with reserved bits, of a kind that does not exist.
            4 => raw(&mut link, &[0xff, 0x7e, 0x01, 0x00, 1, 2, 3]).await,
            // A length of 2^62.
            _ => raw(&mut link, &[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await,
        };
        if sent.is_ok()
            && let Some(FromBroker::Welcome(_)) = end(&mut link).await
        {
            field.breach("garbage was welcomed");
        }
    })
    .await;
}

async fn raw(link: &mut Link, bytes: &[u8]) -> Result<(), DeviceError> {
    let stream = link.stream.get_mut();
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// Messages out of order, of the other role, and in a name that is not one's own.
pub(super) async fn states(field: &Rc<Field>) {
    // Each kind of violation several times.
    field.at_least(60);
    crowd(field, 32, async |field| {
        let number = u64::from(field.number()) | 1 << 40;
        let (phone, farm) = (Device::phone(number), field.orders.farm);
        let name = field.target.name();
        let violation = field.below(7);
        if violation == 6 {
            return passed_on(&field, &phone).await;
        }
        let Ok(mut link) = Link::connect(&field.target, field.address(ADDRESSES)).await else { return };
        field.sent("violations", 1);
        let message = match violation {
            0 => phone.heartbeat(1),
            1 => ToBroker::Watch(Watch { farms: vec![farm] }),
            2 => ToBroker::Signal(Signal { peer: Address::Farm(farm), payload: vec![1] }),
            // A recording: signed for another challenge.
            3 => ToBroker::Authenticate(Box::new(phone.authenticate(&Nonce::from_bytes([7; 16]), &name))),
            // Another's key with one's own signature.
            4 => {
                let mut claim = phone.authenticate(&link.nonce, &name);
                claim.key = Device::phone(number + 1).key.public();
                ToBroker::Authenticate(Box::new(claim))
            }
            // In as a phone, then speaking as a farm.
            _ => {
                if link.enter(&phone, None).await.is_err() {
                    return;
                }
                ToBroker::Access(Access::default())
            }
        };
        if link.send(&message).await.is_err() {
            return;
        }
        match end(&mut link).await {
            Some(FromBroker::Refused(refused)) if refused.reason != RefusedReason::Limit => {
                field.count("refused");
            }
            Some(FromBroker::Welcome(_)) => field.breach(format!("violation {violation} was welcomed")),
            _ => {}
        }
    })
    .await;
}

/// A claim that was made for another connection, in the request.
async fn passed_on(field: &Field, phone: &Device) {
    let Ok(secure) = field.target.tls(field.address(ADDRESSES)).await else { return };
    let claim = phone.claim(&Channel::from_bytes([7; 32]), &field.target.name());
    let header = Some((CLAIM_HEADER, claim));
    let Ok(mut link) = Link::upgrade(&field.target, secure, header).await else { return };
    field.sent("violations", 1);
    if let Ok(FromBroker::Welcome(_)) = link.next().await {
        field.breach("a claim for another connection was welcomed");
    }
}

/// Clients that are gone after each step, without a word.
pub(super) async fn vanishing(field: &Rc<Field>) {
    field.at_least(60);
    crowd(field, 32, async |field| {
        let from = field.address(ADDRESSES);
        let steps = field.below(6);
        field.sent("clients", 1);
        let Ok(tcp) = field.target.tcp(from).await else { return };
        if steps == 0 {
            return;
        }
        drop(tcp);
        let Ok(secure) = field.target.tls(from).await else { return };
        if steps == 1 {
            return;
        }
        let Ok(mut link) = Link::over(&field.target, secure, None).await else { return };
        if steps == 2 {
            return;
        }
        let phone = Device::phone(u64::from(field.number()) | 2 << 40);
        if link.enter(&phone, None).await.is_err() || steps == 3 {
            return;
        }
        let farms = vec![field.orders.farm];
        if link.send(&ToBroker::Watch(Watch { farms })).await.is_err() || steps == 4 {
            return;
        }
        // In the middle of a frame.
        let _gone = raw(&mut link, &Bytes::from_static(&[0x82, 0xfe, 0x10, 0x00, 1, 2, 3, 4, 9])).await;
    })
    .await;
}
