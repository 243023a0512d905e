use std::time::Duration;

use farm_protocol::id::Slot;
use proptest::prelude::*;

use super::*;

const FARM: BootId = BootId::from_bytes([1; 16]);
const PHONE: BootId = BootId::from_bytes([2; 16]);

fn session(n: u8) -> SessionId {
    SessionId { phone: PhoneId::from_bytes([n; 20]), slot: Slot::default() }
}

fn offer(n: u8, epoch: Epoch) -> Event {
    Event::Offer { session: session(n), epoch, phone_boot: PHONE, farm_boot: FARM }
}

fn drain(core: &mut Lifecycle) -> Vec<Action> {
    std::iter::from_fn(|| core.poll_action()).collect()
}

/// A lifecycle with session 1 live at `epoch`.
fn live(epoch: Epoch, now: Instant) -> Lifecycle {
    let mut core = Lifecycle::new(FARM);
    core.handle(offer(1, epoch), now);
    core.handle(Event::Opened(session(1), epoch), now);
    core.handle(Event::Hello(session(1), epoch), now);
    assert_eq!(
        drain(&mut core),
        [Action::Begin(session(1)), Action::Connect(session(1), epoch), Action::Attach(session(1), epoch)]
    );
    core
}

#[test]
fn a_new_carrier_replaces_the_old_one_only_once_it_works() {
    let now = Instant::now();
    let (old, new) = (Epoch::of_start(1), Epoch::of_start(1).next());
    let mut core = live(old, now);
    core.handle(offer(1, new), now);
    core.handle(Event::Opened(session(1), new), now);
    assert_eq!(drain(&mut core), [Action::Connect(session(1), new)], "the old carrier goes on");
    core.handle(Event::Hello(session(1), new), now);
    assert_eq!(
        drain(&mut core),
        [Action::Attach(session(1), new), Action::Close(session(1), old, GoodbyeReason::Superseded)]
    );
    core.handle(Event::Lost(session(1), old), now);
    assert_eq!(drain(&mut core), [], "the old carrier's end is no news");
    assert_eq!(core.poll_timeout(), None, "a live session is not on any clock");
}

#[test]
fn older_equal_and_absurd_epochs_are_refused() {
    let now = Instant::now();
    let known = Epoch::of_start(5);
    let mut core = live(known, now);
    for bad in [known, Epoch::of_start(4), Epoch::of_start(2_000_000)] {
        core.handle(offer(1, bad), now);
        let reason = OfferRefused::StaleEpoch;
        assert_eq!(
            drain(&mut core),
            [Action::Refuse { session: session(1), epoch: bad, reason, newest: known }]
        );
    }
    assert_eq!(core.snapshot()[0].live, Some(known));
}

#[test]
fn an_offer_for_another_run_of_the_farm_is_refused() {
    let now = Instant::now();
    let mut core = Lifecycle::new(FARM);
    let replayed = Event::Offer {
        session: session(1),
        epoch: Epoch::of_start(1),
        phone_boot: PHONE,
        farm_boot: BootId::from_bytes([9; 16]),
    };
    core.handle(replayed, now);
    assert!(matches!(drain(&mut core)[..], [Action::Refuse { reason: OfferRefused::OtherBoot, .. }]));
    assert!(core.snapshot().is_empty());
}

#[test]
fn a_recorded_offer_is_refused_after_its_session_ended() {
    let now = Instant::now();
    let epoch = Epoch::of_start(1);
    let mut core = live(epoch, now);
    core.handle(Event::Ended(session(1), epoch), now);
    drain(&mut core);
    core.handle(offer(1, epoch), now);
    assert!(matches!(drain(&mut core)[..], [Action::Refuse { reason: OfferRefused::StaleEpoch, .. }]));
}

#[test]
fn a_restarted_phone_frees_its_old_session_at_once() {
    let now = Instant::now();
    let (old, new) = (Epoch::of_start(1), Epoch::of_start(2));
    let mut core = live(old, now);
    let event = Event::Offer {
        session: session(1),
        epoch: new,
        phone_boot: BootId::from_bytes([3; 16]),
        farm_boot: FARM,
    };
    core.handle(event, now);
    assert_eq!(
        drain(&mut core),
        [
            Action::End(session(1), ResetReason::Restarted),
            Action::Close(session(1), old, GoodbyeReason::TakenOver),
            Action::Begin(session(1)),
            Action::Connect(session(1), new)
        ]
    );
}

#[test]
fn a_parked_session_is_resumed_or_expires() {
    let now = Instant::now();
    let epoch = Epoch::of_start(1);
    let mut core = live(epoch, now);
    core.handle(Event::Lost(session(1), epoch), now);
    assert_eq!(drain(&mut core), [Action::Park(session(1))]);
    assert_eq!(core.poll_timeout(), Some((now + PARKED_FOR, Due::Expiry)));
    core.handle_timeout(now + PARKED_FOR - Duration::from_secs(1));
    core.handle(offer(1, epoch.next()), now + PARKED_FOR - Duration::from_secs(1));
    assert_eq!(drain(&mut core), [Action::Connect(session(1), epoch.next())], "no new session begins");
    core.handle(Event::Lost(session(1), epoch.next()), now + PARKED_FOR);
    core.handle_timeout(now + PARKED_FOR);
    assert_eq!(drain(&mut core), [Action::End(session(1), ResetReason::Expired)]);
    assert_eq!(core.poll_timeout(), None);
}

#[test]
fn an_attempt_holds_back_the_expiry_and_the_clock() {
    let now = Instant::now();
    let (old, new) = (Epoch::of_start(1), Epoch::of_start(1).next());
    let mut core = live(old, now);
    core.handle(Event::Lost(session(1), old), now);
    let just_before = now + PARKED_FOR - Duration::from_secs(1);
    core.handle(offer(1, new), just_before);
    drain(&mut core);
    let deadline = just_before + CONNECT_DEADLINE;
    assert_eq!(core.poll_timeout(), Some((deadline, Due::Connect)));
    core.handle_timeout(now + PARKED_FOR);
    assert_eq!(core.poll_timeout(), Some((deadline, Due::Connect)), "due again at once: a busy loop");
    core.handle_timeout(deadline);
    let end = Action::End(session(1), ResetReason::Expired);
    assert_eq!(
        drain(&mut core),
        [Action::Close(session(1), new, GoodbyeReason::Superseded), end],
        "the attempt failed, and the time was up"
    );
    assert_eq!(core.poll_timeout(), None);
}

#[test]
fn a_carrier_that_never_opens_or_never_greets_is_closed() {
    let now = Instant::now();
    let epoch = Epoch::of_start(1);
    let mut core = Lifecycle::new(FARM);
    core.handle(offer(1, epoch), now);
    drain(&mut core);
    assert_eq!(core.poll_timeout(), Some((now + CONNECT_DEADLINE, Due::Connect)));
    core.handle(Event::Opened(session(1), epoch), now);
    assert_eq!(core.poll_timeout(), Some((now + HELLO_DEADLINE, Due::Hello)));
    core.handle_timeout(now + HELLO_DEADLINE);
    assert!(matches!(drain(&mut core)[..], [Action::Close(..)]));
    core.handle_timeout(now + PARKED_FOR);
    assert_eq!(drain(&mut core), [Action::End(session(1), ResetReason::Expired)]);
}

#[test]
fn a_full_farm_drops_the_session_parked_for_longest() {
    let now = Instant::now();
    let mut core = Lifecycle::new(FARM);
    for n in 0..MAX_SESSIONS as u8 {
        core.handle(offer(n, Epoch::of_start(1)), now);
    }
    drain(&mut core);
    core.handle(offer(200, Epoch::of_start(1)), now);
    assert!(matches!(drain(&mut core)[..], [Action::Refuse { reason: OfferRefused::Limit, .. }]));
    core.handle(Event::Lost(session(3), Epoch::of_start(1)), now);
    core.handle(offer(200, Epoch::of_start(1)), now);
    assert_eq!(drain(&mut core)[0], Action::End(session(3), ResetReason::Limit));
    assert_eq!(core.snapshot().len(), MAX_SESSIONS);
}

#[test]
fn revoking_a_phone_ends_its_sessions_only() {
    let now = Instant::now();
    let mut core = live(Epoch::of_start(1), now);
    core.handle(offer(2, Epoch::of_start(1)), now);
    drain(&mut core);
    core.handle(Event::Revoked(session(1).phone), now);
    assert_eq!(drain(&mut core)[0], Action::End(session(1), ResetReason::SessionEnded));
    assert_eq!(core.snapshot().len(), 1);
}

fn events() -> impl Strategy<Value = (Event, u64)> {
    let epoch = (0u64..3, 0u64..3)
        .prop_map(|(starts, turns)| (0..turns).fold(Epoch::of_start(starts), |epoch, _| epoch.next()));
    let event = (0u8..3, epoch, 0u8..2, 0u8..8).prop_map(|(n, epoch, boot, kind)| match kind {
        0..=2 => Event::Offer {
            session: session(n),
            epoch,
            phone_boot: BootId::from_bytes([boot; 16]),
            farm_boot: if kind == 2 && boot == 1 { PHONE } else { FARM },
        },
        3 => Event::Opened(session(n), epoch),
        4 => Event::Hello(session(n), epoch),
        5 => Event::Lost(session(n), epoch),
        6 => Event::Ended(session(n), epoch),
        _ => Event::Revoked(session(n).phone),
    });
    (event, 0u64..200)
}

proptest! {
    /// Whatever comes in whatever order: one live carrier per session,
    /// every carrier started is closed or reported lost, every waiting
    /// state has a deadline.
    #[test]
    fn carriers_never_leak(script in proptest::collection::vec(events(), 0..60)) {
        let mut now = Instant::now();
        let mut core = Lifecycle::new(FARM);
        let mut open: std::collections::BTreeSet<(SessionId, Epoch)> = Default::default();
        for (event, seconds) in script {
            now += Duration::from_secs(seconds);
            core.handle_timeout(now);
            if let Event::Lost(session, epoch) = event {
                open.remove(&(session, epoch));
            }
            core.handle(event, now);
            for action in drain(&mut core) {
                match action {
                    Action::Connect(session, epoch) => prop_assert!(open.insert((session, epoch))),
                    Action::Close(session, epoch, _) => { open.remove(&(session, epoch)); }
                    Action::Attach(session, epoch) => prop_assert!(open.contains(&(session, epoch))),
                    _ => {}
                }
            }
            let held: std::collections::BTreeSet<_> = core
                .sessions
                .iter()
                .flat_map(|(id, s)| s.live.into_iter().chain(s.attempt.iter().map(|a| a.epoch)).map(|e| (*id, e)))
                .collect();
            prop_assert!(open.is_subset(&held), "forgotten without a close: {open:?} / {held:?}");
            let waiting = core.sessions.values().any(|s| s.live.is_none() || s.attempt.is_some());
            prop_assert!(!waiting || core.poll_timeout().is_some());
        }
        core.handle(Event::Stop, now);
        for action in drain(&mut core) {
            if let Action::Close(session, epoch, _) = action { open.remove(&(session, epoch)); }
        }
        prop_assert!(open.is_empty());
    }
}
