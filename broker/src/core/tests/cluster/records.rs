//! Farms and tokens that the engine keeps for all.

use std::collections::BTreeSet;

use farm_protocol::base32;
use farm_protocol::broker::{FromBroker, RefusedReason, ToBroker};

use super::super::world::{Device, UNIX, World, record};
use super::net::Net;
use crate::core::cluster::records::{Entry, Record};
use crate::core::enrollment::{TOKEN_BYTES, TokenHash, TokenRecord};
use crate::core::{Action, ConnectionId, Event};

/// A farm with a token that this broker has not heard of.
fn asks_with_unknown_token(world: &mut World, farm: &Device) -> ConnectionId {
    let connection = world.open();
    let mut claim = farm.authenticate(&world.nonce(connection));
    claim.enrollment_token = Some(base32::encode(&[7; TOKEN_BYTES]));
    world.take(connection);
    world.say(connection, ToBroker::Authenticate(Box::new(claim)));
    connection
}

#[test]
fn a_token_that_is_not_here_yet_is_for_the_engine_to_judge() {
    let mut net = Net::of(2);
    let farm = Device::farm(1);
    let connection = asks_with_unknown_token(&mut net.worlds[0], &farm);
    let [Action::Enroll { record, .. }] = &net.worlds[0].stored[..] else { panic!("not asked") };
    assert_eq!(record.token, TokenHash::of(&[7; TOKEN_BYTES]));
    net.worlds[0].handle(Event::EnrollmentRefused { farm: farm.farm_id() });
    assert_eq!(net.worlds[0].refusal(connection), Some(RefusedReason::BadToken));
    // Guesses are bounded as elsewhere.
    net.check();
}

#[test]
fn guesses_at_tokens_do_not_reach_the_engine_without_bound() {
    let mut net = Net::of(1);
    let world = &mut net.worlds[0];
    for n in 0..20 {
        let farm = Device::farm(n);
        let connection = world.open_from("192.0.2.7".parse().unwrap());
        let mut claim = farm.authenticate(&world.nonce(connection));
        claim.enrollment_token = Some(base32::encode(&[n; TOKEN_BYTES]));
        world.say(connection, ToBroker::Authenticate(Box::new(claim)));
        world.handle(Event::EnrollmentRefused { farm: farm.farm_id() });
    }
    assert_eq!(world.stored.len(), 5);
    assert_eq!(world.core.counters().limit_token_guesses, 15);
}

#[test]
fn without_a_quorum_a_new_farm_is_told_to_wait_and_a_known_one_is_let_in() {
    let mut net = Net::of(2);
    let new = Device::farm(1);
    let connection = asks_with_unknown_token(&mut net.worlds[0], &new);
    net.worlds[0].handle(Event::EnrollmentFailed { farm: new.farm_id() });
    assert!(matches!(&net.worlds[0].take(connection)[..], [FromBroker::RetryAfter(_)]));
    net.engine(false);
    net.enter(0, &Device::farm(2));
}

#[test]
fn a_farm_enrolled_at_one_broker_is_let_in_at_all() {
    let mut net = Net::of(2);
    let farm = Device::farm(1);
    let entry = Entry::Spent(record(&farm));
    net.worlds[1].handle(Event::Recorded(Box::new(Record::Token(record(&farm).token, Some(entry)))));
    let connection = net.worlds[1].open();
    net.worlds[1].authenticate(connection, &farm);
    assert!(matches!(net.worlds[1].take(connection).last(), Some(FromBroker::Welcome(_))));
}

#[test]
fn a_token_issued_at_one_broker_is_good_at_all_and_gone_at_all() {
    let mut net = Net::of(1);
    let world = &mut net.worlds[0];
    let hash = TokenHash::of(&[7; TOKEN_BYTES]);
    let open = Entry::Open(TokenRecord { name: Some("South".into()), expires: UNIX + 60 });
    world.handle(Event::Recorded(Box::new(Record::Token(hash, Some(open)))));
    asks_with_unknown_token(world, &Device::farm(1));
    assert!(matches!(&world.stored[..], [Action::Enroll { record, .. }] if record.name == "South"));
    world.handle(Event::Recorded(Box::new(Record::Token(hash, None))));
    assert!(!world.core.enrollment.tokens.contains_key(&hash));
}

#[test]
fn a_revoked_farm_is_thrown_out_everywhere_and_stays_so() {
    let mut net = Net::of(2);
    let farm = Device::farm(1);
    let connection = net.enter(1, &farm);
    for world in &mut net.worlds {
        world.handle(Event::Recorded(Box::new(Record::Revoked(farm.farm_id(), UNIX))));
        // Its record may come after, from a broker that had not heard.
        let entry = Entry::Spent(record(&farm));
        world.handle(Event::Recorded(Box::new(Record::Token(record(&farm).token, Some(entry)))));
    }
    net.settle();
    assert_eq!(net.worlds[1].refusal(connection), Some(RefusedReason::Revoked));
    for world in &mut net.worlds {
        let connection = world.open();
        world.authenticate(connection, &farm);
        assert_eq!(world.refusal(connection), Some(RefusedReason::Revoked));
    }
    net.check();
}

#[test]
fn what_the_engine_lost_is_written_again() {
    let mut net = Net::of(1);
    let (kept, lost, revoked) = (Device::farm(1), Device::farm(2), Device::farm(3));
    let world = &mut net.worlds[0];
    for farm in [&kept, &lost, &revoked] {
        world.enroll(farm);
    }
    world.handle(Event::Recorded(Box::new(Record::Revoked(revoked.farm_id(), UNIX))));
    world.stored.clear();
    let there: BTreeSet<_> = [kept.farm_id()].into();
    world.handle(Event::RecordsWhole { farms: there.clone(), revoked: BTreeSet::new() });
    let again = std::mem::take(&mut world.stored);
    assert!(
        matches!(&again[..], [Action::Restore { record }, Action::RestoreRevoked { farm, at: UNIX }]
            if record.key == lost.key.public() && *farm == revoked.farm_id()),
        "{again:?}"
    );
    let all = [kept.farm_id(), lost.farm_id()].into();
    world.handle(Event::RecordsWhole { farms: all, revoked: [revoked.farm_id()].into() });
    assert!(world.stored.is_empty(), "nothing is lost, nothing is written");
}

#[test]
fn a_mirror_that_is_not_whole_turns_nobody_away_for_good() {
    let mut net = Net::of(1);
    let farm = Device::farm(1);
    let world = &mut net.worlds[0];
    let connection = world.open();
    world.authenticate(connection, &farm);
    assert!(matches!(world.take(connection).last(), Some(FromBroker::RetryAfter(_))));
    world.handle(Event::RecordsWhole { farms: BTreeSet::new(), revoked: BTreeSet::new() });
    let connection = world.open();
    world.authenticate(connection, &farm);
    assert_eq!(world.refusal(connection), Some(RefusedReason::NotEnrolled));
}
