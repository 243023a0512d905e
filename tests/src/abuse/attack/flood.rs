//! Each kind of message, as fast as it goes.

use std::rc::Rc;

use async_tungstenite::tungstenite::Bytes;
use farm_protocol::broker::{Access, Address, Signal, ToBroker, Watch};
use farm_protocol::id::{FarmId, PhoneId};

use super::Field;
use super::device::phones;
use crate::device::{Device, Link, Message};

/// Phones at once.
const PHONES: u32 = 64;

/// Sends one and reads what has come: a flood that does not read is another
/// attack. `false` when the broker has closed.
async fn send(field: &Field, link: &mut Link, message: Message) -> bool {
    field.sent("messages", 1);
    if link.send_raw(message).await.is_err() {
        return false;
    }
    loop {
        match smol::future::poll_once(link.listen()).await {
            None => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
        }
    }
}

fn encoded(message: &ToBroker) -> Message {
    Message::binary(farm_protocol::codec::encode(message).unwrap_or_default())
}

pub(super) async fn heartbeats(field: &Rc<Field>) {
    // More than each phone may say at once; the same of the others below.
    field.at_least(u64::from(PHONES) * 150);
    phones(field, PHONES, async |field, phone, link| send(field, link, encoded(&phone.heartbeat(1))).await)
        .await;
}

pub(super) async fn signals(field: &Rc<Field>) {
    field.at_least(u64::from(PHONES) * 150);
    phones(field, PHONES, async |field, _, link| {
        let peer = Address::Farm(field.orders.farm);
        // Mostly short, which cost least: the limit of signals is met before
        // that of messages.
        let length = if field.below(8) == 0 { 20_000 } else { 100 };
        let message = ToBroker::Signal(Signal { peer, payload: vec![0; length] });
        send(field, link, encoded(&message)).await
    })
    .await;
}

pub(super) async fn watches(field: &Rc<Field>) {
    field.at_least(u64::from(PHONES) * 10);
    phones(field, PHONES, async |field, _, link| {
        let farms = (0..256).map(|_| FarmId::from_bytes(field.rng.borrow_mut().bytes())).collect();
        send(field, link, encoded(&ToBroker::Watch(Watch { farms }))).await
    })
    .await;
}

/// By a farm of the attackers' own, the only ones who may say it.
pub(super) async fn access(field: &Rc<Field>) {
    field.at_least(100);
    let farm = Device::farm(9 << 40);
    while !field.over() {
        let Ok(mut link) = Link::connect(&field.target, field.address(200)).await else { continue };
        if link.enter(&farm, field.orders.token.as_deref()).await.is_err() {
            continue;
        }
        loop {
            let phones = (0..256).map(|_| PhoneId::from_bytes(field.rng.borrow_mut().bytes())).collect();
            let message = encoded(&ToBroker::Access(Access { phones, ..Access::default() }));
            if field.over() || !send(field, &mut link, message).await {
                break;
            }
        }
    }
}

pub(super) async fn pings(field: &Rc<Field>) {
    field.at_least(u64::from(PHONES) * 50);
    phones(field, PHONES, async |field, _, link| {
        send(field, link, Message::Ping(Bytes::from_static(b"x"))).await
    })
    .await;
}
