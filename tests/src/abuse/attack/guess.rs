//! Guesses: at invitations, at enrollment tokens, at which farms there are.

use std::rc::Rc;
use std::time::{Duration, Instant};

use farm_protocol::base32;
use farm_protocol::broker::{Address, FromBroker, RefusedReason, Signal, ToBroker, UndeliveredReason, Watch};
use farm_protocol::id::{FarmId, InvitationId};

use super::device::phones;
use super::{Field, crowd};
use crate::device::{Device, DeviceError, Link};

/// Ten thousand and more invitations, each asked for by one of many phones.
pub(super) async fn pairing(field: &Rc<Field>) {
    // Each phone asks five times, is told "limit" from then on, and soon sent away.
    field.at_least(10_000);
    phones(field, 100, async |field, _, link| {
        for _ in 0..55 {
            let peer = Address::Invitation(InvitationId::from_bytes(field.rng.borrow_mut().bytes()));
            let guess = ToBroker::Signal(Signal { peer, payload: vec![1; 64] });
            if link.send(&guess).await.is_err() {
                return false;
            }
            field.sent("guesses", 1);
        }
        for _ in 0..55 {
            match link.next().await {
                Ok(FromBroker::Undelivered(_)) => {}
                // It goes on beyond its limit.
                Ok(FromBroker::Refused(refused)) if refused.reason == RefusedReason::Limit => return false,
                Ok(other) => field.breach(format!("a guess was answered by {other:?}")),
                Err(_) => return false,
            }
        }
        // Its guesses are used up: another phone goes on.
        false
    })
    .await;
}

/// Farms that nobody knows, with tokens that nobody issued.
pub(super) async fn tokens(field: &Rc<Field>) {
    field.at_least(200);
    crowd(field, 32, async |field| {
        let Ok(mut link) = Link::connect(&field.target, field.address(20)).await else { return };
        let farm = Device::farm(u64::from(field.number()) | 4 << 40);
        let token = base32::encode(&field.rng.borrow_mut().bytes::<20>());
        field.sent("tokens", 1);
        match link.enter(&farm, Some(&token)).await {
            Ok(_) => field.breach(format!("the token {token} was good")),
            Err(DeviceError::Refused(RefusedReason::BadToken)) => field.count("wrong"),
            Err(DeviceError::Refused(RefusedReason::Limit)) => field.count("limit"),
            Err(_) => {}
        }
    })
    .await;
}

/// Asks by a watch and by a signal for a farm that exists and for one that does
/// not, in turn: answers and times must not tell which is which.
pub(super) async fn enumeration(field: &Rc<Field>) {
    let mut times = [Vec::new(), Vec::new()];
    while !field.over() {
        let phone = Device::phone(u64::from(field.number()) | 5 << 40);
        let Ok(mut link) = Link::connect(&field.target, field.address(500)).await else { continue };
        if link.enter(&phone, None).await.is_err() {
            continue;
        }
        let unknown = FarmId::from_bytes(field.rng.borrow_mut().bytes());
        // Within what one phone may ask at once.
        for turn in 0..40 {
            let which = turn % 2;
            let farm = [field.orders.farm, unknown][which];
            let Some(took) = ask(field, &mut link, farm, turn % 4 < 2).await else { break };
            times[which].push(took.as_secs_f64() * 1e6);
            field.sent("questions", 1);
        }
    }
    for (name, times) in ["existing farm, µs", "no such farm, µs"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            field.saw(name, *median);
        }
    }
}

/// One question, and how long its answer took.
async fn ask(field: &Field, link: &mut Link, farm: FarmId, by_watch: bool) -> Option<Duration> {
    let start = Instant::now();
    if by_watch {
        link.send(&ToBroker::Watch(Watch { farms: vec![farm] })).await.ok()?;
    } else {
        let signal = Signal { peer: Address::Farm(farm), payload: vec![1] };
        link.send(&ToBroker::Signal(signal)).await.ok()?;
    }
    let told = link.next().await.ok()?;
    let took = start.elapsed();
    match told {
        FromBroker::Presence(presence) if by_watch && presence.state.is_none() => {}
        FromBroker::Undelivered(told) if !by_watch && told.reason == UndeliveredReason::Offline => {}
        other => field.breach(format!("a stranger was told {other:?}")),
    }
    Some(took)
}
