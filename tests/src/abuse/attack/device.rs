//! Devices that are let in and then misbehave: a stranger with an enrolled
//! farm of their own.

use std::rc::Rc;
use std::time::Duration;

use farm_protocol::broker::{Access, Address, Signal, ToBroker, Watch};

use super::{Field, crowd, rest};
use crate::device::{Device, Link};

/// The number of the hostile farm.
const FARM: u64 = 9 << 40;

async fn enter_farm(field: &Field, farm: &Device) -> Option<Link> {
    let mut link = Link::connect(&field.target, field.address(200)).await.ok()?;
    link.enter(farm, field.orders.token.as_deref()).await.ok()?;
    Some(link)
}

/// Phones that never read, while their farm sends them all it may.
pub(super) async fn never_reading(field: &Rc<Field>) {
    // As much as one farm may send at once: for each phone more than may wait.
    field.at_least(150);
    let farm = Device::farm(FARM);
    let Some(mut at_farm) = enter_farm(field, &farm).await else { return };
    let phones: Vec<_> = (0..3).map(|n| Device::phone(FARM + 1 + n)).collect();
    let list = phones.iter().map(Device::phone_id).collect();
    let access = Access { phones: list, ..Access::default() };
    if at_farm.send(&ToBroker::Access(access)).await.is_err() {
        return;
    }
    let mut held = Vec::new();
    for phone in &phones {
        let Ok(mut link) = Link::connect(&field.target, field.address(200)).await else { continue };
        if link.enter(phone, None).await.is_ok() {
            held.push(link);
        }
        if field.over() {
            return;
        }
    }
    field.saw("phones", held.len() as f64);
    for round in 0.. {
        for phone in &phones {
            let peer = Address::Phone(phone.session());
            let signal = Signal { peer, payload: vec![round as u8; 20_000] };
            if field.over() || at_farm.send(&ToBroker::Signal(signal)).await.is_err() {
                return rest(field, Duration::from_secs(60)).await;
            }
            field.sent("signals of 20 kB", 1);
            // The farm reads what it is told, the phones don't.
            while smol::future::poll_once(at_farm.listen()).await.is_some_and(|told| told.is_ok()) {}
        }
    }
}

/// A farm that comes in a new run all the time, watched by many phones.
pub(super) async fn flapping(field: &Rc<Field>) {
    // More than a farm's presence may change at once.
    field.at_least(20);
    let mut farm = Device::farm(FARM);
    let Some(mut at_farm) = enter_farm(field, &farm).await else { return };
    let watchers: Vec<_> = (0..100).map(|n| Device::phone(FARM + 1 + n)).collect();
    let mut held = Vec::new();
    for phone in &watchers {
        let Ok(mut link) = Link::connect(&field.target, field.address(200)).await else { continue };
        let watch = ToBroker::Watch(Watch { farms: vec![farm.farm_id()] });
        if link.enter(phone, None).await.is_ok() && link.send(&watch).await.is_ok() {
            held.push(link);
        }
    }
    let list: Vec<_> = watchers.iter().map(Device::phone_id).collect();
    while !field.over() {
        let access = Access { phones: list.clone(), ..Access::default() };
        let _gone = at_farm.send(&ToBroker::Access(access)).await;
        farm.restart();
        let Some(next) = enter_farm(field, &farm).await else { continue };
        // The former one is superseded while it is still open.
        at_farm = next;
        field.sent("runs", 1);
        for link in &mut held {
            while smol::future::poll_once(link.listen()).await.is_some_and(|told| told.is_ok()) {
                field.count("presence");
            }
        }
    }
}

/// Keeps so many phones connected while `each` is done with one of them after
/// the other; one that was thrown out comes back.
pub(super) async fn phones(
    field: &Rc<Field>,
    count: u32,
    each: impl AsyncFn(&Field, &Device, &mut Link) -> bool + Clone + 'static,
) {
    crowd(field, count, async move |field| {
        let phone = Device::phone(u64::from(field.number()) | 3 << 40);
        let Ok(mut link) = Link::connect(&field.target, field.address(500)).await else { return };
        if link.enter(&phone, None).await.is_err() {
            return;
        }
        while !field.over() && each(&field, &phone, &mut link).await {}
    })
    .await;
}
