mod upgrade;

use proptest::prelude::*;

use super::*;

const BOOT: BootId = BootId::from_bytes([1; 16]);
const NEXT_BOOT: BootId = BootId::from_bytes([2; 16]);

fn drain(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.poll_action()).filter(|a| *a != Action::Changed).collect()
}

fn present(boot: BootId, epoch: Epoch) -> Event {
    Event::Presence { boot, epoch, online: true }
}

/// A session that is live, and its epoch.
fn live(now: Instant) -> (Session, Epoch) {
    let mut session = Session::new(Epoch::of_start(1), 7, now);
    session.handle(Event::Start, now);
    session.handle(Event::BrokerLink(true), now);
    session.handle(present(BOOT, Epoch::of_start(5)), now);
    let offers: Vec<_> =
        drain(&mut session).into_iter().filter(|a| matches!(a, Action::Offer { .. })).collect();
    let Some(Action::Offer { epoch, .. }) = offers.last().copied() else { panic!("{offers:?}") };
    complete(&mut session, epoch, now);
    (session, epoch)
}

fn complete(session: &mut Session, epoch: Epoch, now: Instant) {
    session.handle(Event::Answered(epoch), now);
    session.handle(Event::Opened(epoch), now);
    session.handle(Event::Hello(epoch), now);
    assert_eq!(session.live(), Some(epoch));
    session.actions.clear();
}

#[test]
fn a_lost_carrier_is_replaced_at_once() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Lost(epoch), now);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Close(epoch, GoodbyeReason::Superseded)));
    assert!(
        matches!(actions.last(), Some(Action::Offer { farm_boot: BOOT, .. }))
            || session.poll_timeout().is_some_and(|(at, _)| at <= now + Duration::from_millis(50)),
        "{actions:?}"
    );
}

/// A session without a carrier whose offer is on its way, and the offer's epoch.
fn offered(now: Instant) -> (Session, Epoch) {
    let (mut session, epoch) = live(now);
    session.handle(Event::Lost(epoch), now);
    let later = session.poll_timeout().map_or(now, |(at, _)| at.min(now + Duration::from_millis(50)));
    session.handle_timeout(later);
    let offer = newest_offer(&mut session).expect("an offer");
    (session, offer)
}

fn newest_offer(session: &mut Session) -> Option<Epoch> {
    let offer = |action| match action {
        Action::Offer { epoch, .. } => Some(epoch),
        _ => None,
    };
    drain(session).into_iter().filter_map(offer).next_back()
}

#[test]
fn nothing_is_offered_without_the_broker_and_everything_anew_when_it_is_back() {
    let now = Instant::now();
    let (mut session, first) = offered(now);
    session.handle(Event::BrokerLink(false), now);
    session.handle_timeout(now + ANSWER_DEADLINE);
    session.handle_timeout(now + ANSWER_DEADLINE + recovery::RECHECK);
    assert_eq!(newest_offer(&mut session), None, "an offer that nobody can carry");
    let back = now + Duration::from_secs(30);
    session.handle(Event::BrokerLink(true), back);
    assert!(newest_offer(&mut session).is_some_and(|epoch| epoch > first));
    // An offer that was on its way when the link broke is lost with it.
    let (mut session, first) = offered(now);
    session.handle(Event::BrokerLink(false), now);
    session.handle(Event::BrokerLink(true), now + Duration::from_millis(100));
    assert!(newest_offer(&mut session).is_some_and(|epoch| epoch > first));
}

#[test]
fn an_offer_that_may_have_been_lost_is_made_again_at_once() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    // The farm had another address when it was made.
    let (mut session, first) = offered(now);
    session.handle(present(BOOT, Epoch::of_start(5).next()), later);
    assert!(newest_offer(&mut session).is_some_and(|epoch| epoch > first));
    // Our own path was gone.
    let (mut session, first) = offered(now);
    session.handle(Event::PathBack, later);
    assert!(newest_offer(&mut session).is_some_and(|epoch| epoch > first));
    // The same news change nothing for a session that works.
    let (mut session, epoch) = live(now);
    session.handle(Event::PathBack, later);
    assert_eq!((newest_offer(&mut session), session.live()), (None, Some(epoch)));
}

#[test]
fn an_address_change_makes_before_it_breaks() {
    let now = Instant::now();
    let (mut session, old) = live(now);
    session.handle(Event::Network(Network::Changed), now);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Probe(old)), "{actions:?}");
    let Some(Action::Offer { epoch: new, .. }) = actions.last().copied() else { panic!("{actions:?}") };
    assert_eq!(session.live(), Some(old), "the old carrier goes on until the new one works");
    session.handle(Event::Answered(new), now);
    session.handle(Event::Opened(new), now);
    session.handle(Event::Hello(new), now);
    assert_eq!(drain(&mut session), [Action::Attach(new), Action::Close(old, GoodbyeReason::Superseded)]);
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_restarted_farm_is_called_at_once_and_late_word_of_its_old_run_is_ignored() {
    let now = Instant::now();
    let (mut session, _) = live(now);
    session.handle(present(NEXT_BOOT, Epoch::of_start(6)), now);
    assert!(matches!(drain(&mut session)[..], [Action::Offer { farm_boot: NEXT_BOOT, .. }]));
    let before = session.snapshot();
    session.handle(Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false }, now);
    assert_eq!(drain(&mut session), []);
    assert_eq!(session.snapshot(), before);
}

#[test]
fn attention_that_went_and_came_back_probes_and_sets_the_pace() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Attention { watched: false }, now);
    assert_eq!(drain(&mut session), []);
    session.handle(Event::Attention { watched: true }, now);
    assert_eq!(drain(&mut session), [Action::Probe(epoch)]);

    session.handle(Event::Attention { watched: false }, now);
    session.handle(Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false }, now);
    session.handle(Event::Lost(epoch), now);
    drain(&mut session);
    session.handle(Event::Undelivered, now);
    let (at, _) = session.poll_timeout().expect("attempts never end");
    assert!(at > now + recovery::BLIND_RETRY, "nobody looks, so the next attempt is not soon");
}

#[test]
fn a_lying_broker_ends_nothing() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false }, now);
    session.handle(Event::PresenceUnknown, now);
    session.handle(Event::BrokerLink(false), now);
    assert_eq!(drain(&mut session), [Action::Probe(epoch)]);
    assert_eq!(session.live(), Some(epoch));
}

#[test]
fn an_unanswered_offer_is_made_again_when_the_farm_shows_itself_anew() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Lost(epoch), now);
    drain(&mut session);
    // The offer went to a connection that the farm no longer has.
    session.handle(present(BOOT, Epoch::of_start(5).next()), now);
    let actions = drain(&mut session);
    let Some(Action::Offer { epoch: again, .. }) = actions.last().copied() else { panic!("{actions:?}") };
    assert!(matches!(actions[..], [Action::Close(..), Action::Offer { .. }]), "{actions:?}");
    session.handle(Event::Answered(again), now);
    session.handle(present(BOOT, Epoch::of_start(5).next().next()), now);
    assert_eq!(drain(&mut session), [], "an answered one goes on");
}

#[test]
fn an_offer_that_the_broker_handed_on_twice_is_not_given_up_for_its_second_copy() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Lost(epoch), now);
    let epoch = session.epoch();
    drain(&mut session);
    let reason = OfferRefused::StaleEpoch;
    session.handle(Event::Refused { epoch, reason, farm_boot: BOOT, newest: epoch }, now);
    assert_eq!(drain(&mut session), []);
    complete(&mut session, epoch, now);
}

#[test]
fn a_farm_that_says_which_run_it_is_is_called_at_once_however_often_others_failed() {
    let mut now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Attention { watched: false }, now);
    session.handle(Event::Lost(epoch), now);
    let mut offered = epoch;
    for _ in 0..30 {
        now = session.poll_timeout().expect("attempts never end").0;
        session.handle_timeout(now);
        for action in drain(&mut session) {
            if let Action::Offer { epoch, .. } = action {
                offered = epoch;
            }
        }
    }
    while session.attempt.is_none() {
        now = session.poll_timeout().expect("attempts never end").0;
        session.handle_timeout(now);
        offered = session.epoch();
    }
    drain(&mut session);
    let reason = OfferRefused::OtherBoot;
    session.handle(Event::Refused { epoch: offered, reason, farm_boot: NEXT_BOOT, newest: offered }, now);
    let actions = drain(&mut session);
    assert!(matches!(actions[..], [.., Action::Offer { farm_boot: NEXT_BOOT, .. }]), "{actions:?}");
}

#[test]
fn an_offer_for_an_unknown_run_is_corrected_by_the_farm() {
    let now = Instant::now();
    let mut session = Session::new(Epoch::of_start(1), 7, now);
    session.handle(Event::BrokerLink(true), now);
    session.handle(Event::Start, now);
    assert_eq!(drain(&mut session), [], "presence may come first");
    let now = now + PRESENCE_WITHIN;
    session.handle_timeout(now);
    let Some(Action::Offer { epoch, .. }) = drain(&mut session).last().copied() else { panic!() };
    let newest = Epoch::of_start(3);
    let reason = OfferRefused::OtherBoot;
    session.handle(Event::Refused { epoch, reason, farm_boot: BOOT, newest }, now);
    let actions = drain(&mut session);
    let Some(Action::Offer { epoch, farm_boot, .. }) = actions.last().copied() else { panic!("{actions:?}") };
    assert_eq!((epoch, farm_boot), (newest.next(), BOOT));
}

#[test]
fn every_step_has_a_deadline_and_attempts_never_end() {
    let start = Instant::now();
    let mut now = start;
    let mut session = Session::new(Epoch::of_start(1), 7, now);
    session.handle(Event::Start, now);
    session.handle(Event::BrokerLink(true), now);
    let mut offers = 0;
    while now < start + Duration::from_secs(3600) {
        let (at, due) = session.poll_timeout().expect("always a deadline");
        now = now.max(at);
        session.handle_timeout(now);
        for action in drain(&mut session) {
            offers += u32::from(matches!(action, Action::Offer { .. }));
        }
        assert!(at <= now + Duration::from_secs(60), "{due:?}");
    }
    assert!((60..=1200).contains(&offers), "{offers} offers in an hour to a farm that never answers");
}

#[test]
fn a_hello_that_never_comes_costs_the_frozen_carrier_too() {
    let now = Instant::now();
    let (mut session, old) = live(now);
    session.handle(Event::Network(Network::Changed), now);
    let Some(Action::Offer { epoch: new, .. }) = drain(&mut session).last().copied() else { panic!() };
    session.handle(Event::Answered(new), now);
    session.handle(Event::Opened(new), now);
    session.handle_timeout(now + HELLO_DEADLINE);
    let actions = drain(&mut session);
    assert!(actions.contains(&Action::Close(old, GoodbyeReason::Superseded)), "{actions:?}");
    assert!(session.poll_timeout().is_some() || matches!(actions.last(), Some(Action::Offer { .. })));
}

#[test]
fn whoever_is_taken_over_moves_to_a_slot_of_its_own_and_fights_nobody() {
    let now = Instant::now();
    let (mut session, epoch) = live(now);
    // The broker's word alone ends nothing.
    session.handle(Event::Superseded, now);
    session.handle(Event::BrokerLink(false), now);
    assert_eq!((drain(&mut session), session.live()), (vec![], Some(epoch)));
    session.handle(Event::Goodbye(epoch, GoodbyeReason::TakenOver), now);
    assert_eq!(
        drain(&mut session),
        [Action::Close(epoch, GoodbyeReason::Superseded), Action::TakeAnotherSlot]
    );
    assert_eq!(session.snapshot().failure, Some(Failure::Superseded));
    session.handle(Event::NewSlot(Epoch::of_start(9)), now);
    assert_eq!(drain(&mut session), [], "nothing can be said before the new link is up");
    session.handle(Event::BrokerLink(true), now);
    let actions = drain(&mut session);
    let [Action::Offer { epoch: new, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(new, Epoch::of_start(9).next());
    complete(&mut session, new, now);
}

#[test]
fn without_a_slot_left_it_tells_and_looks_once_a_minute() {
    let mut now = Instant::now();
    let (mut session, epoch) = live(now);
    session.handle(Event::Goodbye(epoch, GoodbyeReason::TakenOver), now);
    let (mut offers, end) = (0, now + Duration::from_secs(600));
    while now < end {
        while let Some(action) = session.poll_action() {
            match action {
                Action::TakeAnotherSlot => session.handle(Event::NoSlot, now),
                Action::Offer { epoch, .. } => {
                    offers += 1;
                    session.handle(Event::Answered(epoch), now);
                    session.handle(Event::Opened(epoch), now);
                    session.handle(Event::Hello(epoch), now);
                    session.handle(Event::Goodbye(epoch, GoodbyeReason::TakenOver), now);
                }
                _ => {}
            }
        }
        assert_eq!(session.snapshot().failure, Some(Failure::NoSlotLeft));
        now = session.poll_timeout().expect("always a deadline").0;
        session.handle_timeout(now);
    }
    assert!((9..=13).contains(&offers), "{offers} offers in ten minutes");
}

#[test]
fn what_nobody_looks_at_rests_and_connects_when_somebody_does() {
    let start = Instant::now();
    let (session, epoch) = live(start);
    let mut session = session.rests_after(REST_AFTER);
    assert_eq!(session.poll_timeout(), None, "somebody looks");
    session.handle(Event::Attention { watched: false }, start);
    assert_eq!(session.poll_timeout(), Some((start + REST_AFTER, Due::Rest)));
    let now = start + REST_AFTER;
    session.handle_timeout(now);
    assert_eq!(drain(&mut session), [Action::Close(epoch, GoodbyeReason::SessionEnded)]);
    assert_eq!((session.snapshot().state, session.snapshot().failure), (State::Resting, None));
    // Nothing of what goes on around it wakes it.
    session.handle(Event::Lost(epoch), now);
    session.handle(present(NEXT_BOOT, Epoch::of_start(6)), now);
    session.handle(Event::Network(Network::Changed), now);
    session.handle(Event::BrokerLink(false), now);
    session.handle(Event::BrokerLink(true), now);
    assert_eq!((drain(&mut session), session.poll_timeout()), (vec![], None));
    session.handle(Event::Attention { watched: true }, now);
    let actions = drain(&mut session);
    let [Action::Offer { epoch, farm_boot: NEXT_BOOT, .. }] = actions[..] else { panic!("{actions:?}") };
    complete(&mut session, epoch, now);
}

fn event() -> impl Strategy_<Value = Event> {
    (0u8..19, 0u64..4).prop_map(|(kind, n)| {
        let epoch = (0..n).fold(Epoch::of_start(1), |e, _| e.next());
        match kind {
            0 => Event::Start,
            1 => Event::Stop,
            2 => Event::BrokerLink(n % 2 == 0),
            3 => Event::Presence {
                boot: BootId::from_bytes([n as u8; 16]),
                epoch: Epoch::of_start(n),
                online: n != 3,
            },
            4 => Event::PresenceUnknown,
            5 => Event::Answered(epoch),
            6 => Event::Refused {
                epoch,
                reason: [OfferRefused::OtherBoot, OfferRefused::StaleEpoch, OfferRefused::NotPaired]
                    [n as usize % 3],
                farm_boot: BOOT,
                newest: Epoch::of_start(n),
            },
            7 => Event::Undelivered,
            8 => Event::Opened(epoch),
            9 => Event::Hello(epoch),
            10 => Event::Lost(epoch),
            11 => Event::Goodbye(epoch, GoodbyeReason::Stopping),
            13 => Event::Superseded,
            14 => Event::NewSlot(Epoch::of_start(1 + n)),
            15 => Event::NoSlot,
            16 => Event::Goodbye(epoch, GoodbyeReason::TakenOver),
            17 => Event::Path { epoch, relayed: n % 2 == 1 },
            12 => Event::Network([Network::Up, Network::Down, Network::Changed][n as usize % 3]),
            _ => Event::Attention { watched: n % 2 == 0 },
        }
    })
}

use proptest::strategy::Strategy as Strategy_;

proptest! {
    /// Whatever comes in whatever order: every carrier that was started
    /// is closed, and a started session that is not live has a deadline.
    #[test]
    fn carriers_never_leak(script in proptest::collection::vec((event(), 0u64..20), 0..80)) {
        let mut now = Instant::now();
        let mut session = Session::new(Epoch::of_start(1), 7, now).rests_after(Duration::from_secs(30));
        let mut open = std::collections::BTreeSet::new();
        for (event, seconds) in script {
            now += Duration::from_secs(seconds);
            session.handle_timeout(now);
            session.handle(event.clone(), now);
            for action in drain(&mut session) {
                match action {
                    Action::Offer { epoch, .. } => prop_assert!(open.insert(epoch)),
                    Action::Close(epoch, _) => { open.remove(&epoch); }
                    Action::Attach(epoch) => prop_assert!(open.contains(&epoch)),
                    _ => {}
                }
            }
            let held: std::collections::BTreeSet<_> =
                session.live.into_iter().chain(session.attempt.map(|a| a.epoch)).collect();
            prop_assert_eq!(&open, &held, "after {:?}", event);
            let waits = session.started && session.live.is_none() && !session.resting;
            prop_assert!(!waits || session.poll_timeout().is_some());
        }
    }
}
