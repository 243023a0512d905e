//! From a relay to a direct way.

use super::*;

/// A session that is live through a relay, and its epoch.
fn relayed(now: Instant) -> (Session, Epoch) {
    let (mut session, epoch) = live(now);
    session.handle(Event::Path { epoch, relayed: true }, now);
    (session, epoch)
}

/// Lets the time of the next attempt come: when, and the epoch of its offer.
fn next_try(session: &mut Session) -> (Instant, Epoch) {
    let Some((at, Due::Upgrade)) = session.poll_timeout() else { panic!("{:?}", session.poll_timeout()) };
    session.handle_timeout(at);
    let actions = drain(session);
    let [Action::Offer { epoch, ways: Ways::DirectOnly, .. }] = actions[..] else { panic!("{actions:?}") };
    (at, epoch)
}

#[test]
fn a_direct_carrier_takes_the_place_of_a_relayed_one_once_it_works() {
    let start = Instant::now();
    let (mut session, old) = relayed(start);
    let (at, new) = next_try(&mut session);
    assert!(at - start <= recovery::UPGRADE_FIRST, "{:?}", at - start);
    assert_eq!((session.live(), session.snapshot().state), (Some(old), State::Live));
    session.handle(Event::Answered(new), at);
    session.handle(Event::Opened(new), at);
    session.handle(Event::Path { epoch: new, relayed: false }, at);
    session.handle(Event::Hello(new), at);
    assert_eq!(drain(&mut session), [Action::Attach(new), Action::Close(old, GoodbyeReason::Superseded)]);
    assert_eq!(session.poll_timeout(), None, "nothing is left to be tried");
}

#[test]
fn tries_that_come_to_nothing_grow_rare_and_break_nothing() {
    let start = Instant::now();
    let (mut session, old) = relayed(start);
    let mut pauses = Vec::new();
    let mut last = start;
    for round in 0..10 {
        let (at, epoch) = next_try(&mut session);
        pauses.push(at - last);
        last = at;
        // Each end that it may come to.
        match round % 4 {
            0 => session.handle(Event::Lost(epoch), at),
            1 => session.handle(Event::Undelivered, at),
            2 => {
                let reason = OfferRefused::BadDescription;
                session.handle(Event::Refused { epoch, reason, farm_boot: BOOT, newest: epoch }, at);
            }
            _ => {
                session.handle(Event::Answered(epoch), at);
                session.handle_timeout(at + CONNECT_DEADLINE);
            }
        }
        assert_eq!(drain(&mut session), [Action::Close(epoch, GoodbyeReason::Superseded)]);
        let shown = session.snapshot();
        assert_eq!((session.live(), shown.failure, shown.attempt), (Some(old), None, 0));
        // The broker's word that it is away ends with its next presence.
        session.handle(present(BOOT, Epoch::of_start(5)), at);
    }
    assert!(pauses[..6].windows(2).all(|pair| pair[0] * 2 < pair[1]), "{pauses:?}");
    assert!(pauses[6..].iter().all(|pause| *pause >= recovery::UPGRADE_LONGEST * 4 / 5), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= recovery::UPGRADE_LONGEST), "{pauses:?}");
}

#[test]
fn nothing_is_tried_unless_somebody_looks_and_the_farm_can_be_reached() {
    let start = Instant::now();
    for off in [
        Event::Attention { watched: false },
        Event::BrokerLink(false),
        Event::Network(Network::Down),
        Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false },
    ] {
        let (mut session, _) = relayed(start);
        session.handle(off.clone(), start);
        assert_eq!(session.poll_timeout(), None, "{off:?}");
        session.handle_timeout(start + recovery::UPGRADE_LONGEST);
        assert_eq!(newest_offer(&mut session), None, "{off:?}");
    }
    // What was due meanwhile is done when somebody looks again.
    let (mut session, _) = relayed(start);
    session.handle(Event::Attention { watched: false }, start);
    session.handle(Event::Attention { watched: true }, start + recovery::UPGRADE_FIRST);
    assert!(newest_offer(&mut session).is_some());
}

#[test]
fn a_relayed_carrier_that_dies_does_not_wait_for_the_try_beside_it() {
    let start = Instant::now();
    let (mut session, old) = relayed(start);
    let (at, direct) = next_try(&mut session);
    session.handle(Event::Answered(direct), at);
    session.handle(Event::Lost(old), at);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Close(direct, GoodbyeReason::Superseded)), "{actions:?}");
    assert!(
        matches!(actions.last(), Some(Action::Offer { ways: Ways::Any, .. }))
            || matches!(session.poll_timeout(), Some((_, Due::Attempt))),
        "{actions:?}"
    );
}

#[test]
fn another_address_is_a_reason_to_look_for_every_way_at_once() {
    let start = Instant::now();
    let (mut session, old) = relayed(start);
    let (at, direct) = next_try(&mut session);
    session.handle(Event::Network(Network::Changed), at);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Close(direct, GoodbyeReason::Superseded)), "{actions:?}");
    assert!(matches!(actions.last(), Some(Action::Offer { ways: Ways::Any, .. })), "{actions:?}");
    assert_eq!(session.live(), Some(old));
    // The farm's likewise.
    let (mut session, _) = relayed(start);
    let (at, direct) = next_try(&mut session);
    session.handle(Event::Answered(direct), at);
    session.handle(present(BOOT, Epoch::of_start(5).next()), at);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Close(direct, GoodbyeReason::Superseded)), "{actions:?}");
    assert!(matches!(actions.last(), Some(Action::Offer { ways: Ways::Any, .. })), "{actions:?}");
}

#[test]
fn a_path_that_is_known_before_the_hello_counts_and_one_that_became_direct_too() {
    let start = Instant::now();
    let (mut session, _) = live(start);
    session.handle(Event::Network(Network::Changed), start);
    let epoch = newest_offer(&mut session).expect("an offer");
    session.handle(Event::Answered(epoch), start);
    session.handle(Event::Opened(epoch), start);
    session.handle(Event::Path { epoch, relayed: true }, start);
    assert!(!matches!(session.poll_timeout(), Some((_, Due::Upgrade))));
    session.handle(Event::Hello(epoch), start);
    session.actions.clear();
    let (at, direct) = next_try(&mut session);
    session.handle(Event::Answered(direct), at);
    session.handle(Event::Path { epoch, relayed: false }, at);
    assert_eq!(drain(&mut session), [Action::Close(direct, GoodbyeReason::Superseded)]);
    assert_eq!(session.poll_timeout(), None);
}
