use std::time::Duration;

use farm_protocol::broker::{
    Access, Address, FromBroker, MAX_SIGNAL, Presence, Signal, ToBroker, UndeliveredReason as Reason,
};

use super::world::{Device, World, access, invitation};
use crate::core::ConnectionId;

struct Pair {
    world: World,
    farm: Device,
    phone: Device,
    at_farm: ConnectionId,
    at_phone: ConnectionId,
}

impl Pair {
    /// A farm with one invitation, and a phone that it lists or not.
    fn new(listed: bool) -> Self {
        let mut world = World::new();
        let (farm, phone) = (Device::farm(1), Device::phone(1));
        let at_farm = world.enter(&farm);
        let phones = [&phone];
        world.say(at_farm, access(if listed { &phones } else { &[] }, &[invitation(1)]));
        let at_phone = world.enter(&phone);
        Self { world, farm, phone, at_farm, at_phone }
    }

    fn signal_farm(&mut self) -> Option<Reason> {
        self.world.try_signal(self.at_phone, Address::Farm(self.farm.farm_id()))
    }

    fn signal_phone(&mut self) -> Option<Reason> {
        self.world.try_signal(self.at_farm, Address::Phone(self.phone.session()))
    }

    fn signal_invitation(&mut self, number: u8) -> Option<Reason> {
        self.world.try_signal(self.at_phone, Address::Invitation(invitation(number)))
    }
}

#[test]
fn signals_go_both_ways_with_the_senders_address() {
    let mut pair = Pair::new(true);
    assert_eq!(pair.signal_farm(), None);
    let from = pair.world.one_signal(pair.at_farm);
    assert_eq!(from, Address::Phone(pair.phone.session()));
    assert_eq!(pair.signal_phone(), None);
    let from = pair.world.one_signal(pair.at_phone);
    assert_eq!(from, Address::Farm(pair.farm.farm_id()));
}

#[test]
fn a_strangers_signal_and_one_to_an_unknown_farm_end_the_same() {
    let mut pair = Pair::new(false);
    assert_eq!(pair.signal_farm(), Some(Reason::Offline));
    assert!(pair.world.take(pair.at_farm).is_empty());
    let unknown = Address::Farm(Device::farm(5).farm_id());
    assert_eq!(pair.world.try_signal(pair.at_phone, unknown), Some(Reason::Offline));
}

#[test]
fn a_former_phone_is_heard_and_answered_but_learns_nothing_of_the_farms_presence() {
    let mut pair = Pair::new(false);
    let former = vec![pair.phone.phone_id()];
    pair.world.say(pair.at_farm, ToBroker::Access(Access { former, ..Access::default() }));
    pair.world.say(pair.at_phone, super::world::watch(&[&pair.farm]));
    let told = pair.world.take(pair.at_phone);
    assert!(matches!(&told[..], [FromBroker::Presence(Presence { state: None, .. })]), "{told:?}");
    assert_eq!(pair.signal_phone(), Some(Reason::Offline), "it has said nothing yet");
    assert_eq!(pair.signal_farm(), None);
    assert_eq!(pair.signal_phone(), None);
    assert!(pair.world.take(pair.at_phone).iter().any(|message| matches!(message, FromBroker::Signal(_))));
}

#[test]
fn a_farm_reaches_no_phone_that_it_has_nothing_to_do_with() {
    let mut pair = Pair::new(false);
    assert_eq!(pair.signal_phone(), Some(Reason::Offline));
    assert!(pair.world.take(pair.at_phone).is_empty());
}

#[test]
fn a_signal_to_a_device_that_is_away_is_not_handed_on() {
    let mut pair = Pair::new(true);
    pair.world.say(pair.at_phone, ToBroker::Goodbye);
    assert_eq!(pair.signal_phone(), Some(Reason::Offline));
    pair.at_phone = pair.world.enter(&pair.phone);
    pair.world.say(pair.at_farm, ToBroker::Goodbye);
    assert_eq!(pair.signal_farm(), Some(Reason::Offline));
    assert_eq!(pair.signal_invitation(1), Some(Reason::Offline));
}

#[test]
fn an_invitation_leads_to_its_farm_and_back() {
    let mut pair = Pair::new(false);
    assert_eq!(pair.signal_invitation(2), Some(Reason::Offline), "nobody's invitation");
    assert_eq!(pair.signal_invitation(1), None);
    let from = pair.world.one_signal(pair.at_farm);
    assert_eq!(from, Address::Phone(pair.phone.session()));
    assert_eq!(pair.signal_phone(), None, "the farm may answer");
    let from = pair.world.one_signal(pair.at_phone);
    assert_eq!(from, Address::Farm(pair.farm.farm_id()));
    assert_eq!(pair.signal_farm(), Some(Reason::Offline), "but the phone stays a stranger");
}

#[test]
fn the_answer_to_a_strangers_pairing_must_come_within_a_minute() {
    let mut pair = Pair::new(false);
    assert_eq!(pair.signal_invitation(1), None);
    pair.world.advance(Duration::from_secs(59));
    assert_eq!(pair.signal_phone(), None);
    pair.world.advance(Duration::from_secs(1));
    assert_eq!(pair.signal_phone(), Some(Reason::Offline));
}

#[test]
fn an_exchange_survives_the_farms_reconnect() {
    let mut pair = Pair::new(false);
    assert_eq!(pair.signal_invitation(1), None);
    pair.world.say(pair.at_farm, ToBroker::Goodbye);
    pair.world.advance(Duration::from_secs(2));
    pair.at_farm = pair.world.enter(&pair.farm);
    assert_eq!(pair.signal_phone(), None);
}

#[test]
fn a_farm_may_still_tell_a_phone_that_it_was_revoked() {
    let mut pair = Pair::new(true);
    assert_eq!(pair.signal_farm(), None);
    pair.world.say(pair.at_farm, access(&[], &[]));
    assert_eq!(pair.signal_phone(), None);
    assert_eq!(pair.signal_farm(), Some(Reason::Offline));
}

#[test]
fn a_withdrawn_invitation_leads_nowhere() {
    let mut pair = Pair::new(false);
    pair.world.say(pair.at_farm, access(&[], &[invitation(2)]));
    assert_eq!(pair.signal_invitation(1), Some(Reason::Offline));
    assert_eq!(pair.signal_invitation(2), None);
    assert_eq!(pair.world.core.farms.invitations(), 1);
}

#[test]
fn an_invitation_stays_with_the_farm_that_named_it_first() {
    let mut pair = Pair::new(false);
    let thief = pair.world.enter(&Device::farm(2));
    pair.world.say(thief, access(&[], &[invitation(1)]));
    assert_eq!(pair.signal_invitation(1), None);
    pair.world.one_signal(pair.at_farm);
    assert!(pair.world.take(thief).is_empty());
    // Nor does the thief take it away with itself.
    pair.world.say(thief, access(&[], &[]));
    assert_eq!(pair.signal_invitation(1), None);
}

#[test]
fn farms_do_not_reach_farms_nor_phones_phones() {
    let mut pair = Pair::new(true);
    let (farm, phone) = (Device::farm(2), Device::phone(2));
    pair.world.enter(&farm);
    pair.world.enter(&phone);
    for (from, to) in [
        (pair.at_farm, Address::Farm(farm.farm_id())),
        (pair.at_farm, Address::Invitation(invitation(1))),
        (pair.at_phone, Address::Phone(phone.session())),
    ] {
        assert_eq!(pair.world.try_signal(from, to), Some(Reason::Offline));
    }
}

#[test]
fn an_oversized_signal_is_not_handed_on() {
    let mut pair = Pair::new(true);
    let peer = Address::Farm(pair.farm.farm_id());
    let payload = vec![0; MAX_SIGNAL + 1];
    pair.world.say(pair.at_phone, ToBroker::Signal(Signal { peer, payload }));
    assert!(pair.world.take(pair.at_farm).is_empty());
    assert_eq!(pair.world.take(pair.at_phone).len(), 1);
    assert_eq!(pair.world.core.counters().limit_signal_size, 1);
}

#[test]
fn exchanges_are_bounded_and_the_oldest_gives_way() {
    let mut world = World::with(|settings| {
        settings.limits.exchanges_per_farm = 3;
    });
    let farm = Device::farm(1);
    let at_farm = world.enter(&farm);
    world.say(at_farm, access(&[], &[invitation(1)]));
    let phones: Vec<Device> = (1..=4).map(Device::phone).collect();
    for phone in &phones {
        let connection = world.enter(phone);
        assert_eq!(world.try_signal(connection, Address::Invitation(invitation(1))), None);
        world.advance(Duration::from_secs(1));
    }
    let answers: Vec<_> =
        phones.iter().map(|phone| world.try_signal(at_farm, Address::Phone(phone.session()))).collect();
    assert_eq!(answers, [Some(Reason::Offline), None, None, None]);
    world.check_invariants();
}
