use super::*;

const ALL: [Failure; 15] = Failure::ALL;

/// One row per failure: its strategy, and the longest delay in ms, for the
/// first attempt and the fifth, with the farm present and absent; watched,
/// network and link up.
#[rustfmt::skip]
const TABLE: [(&str, [(&str, u64); 4]); 15] = {
    const QUICK: &str = "quick_reconnect";
    const FULL: &str = "full_reestablishment";
    const RESTART: &str = "wait_for_presence_then_connect";
    const ABSENT: (&str, u64) = ("wait_for_presence", 15_000);
    const KEEP: (&str, u64) = ("keep_tunnels", 5_000);
    const PARK: (&str, u64) = ("park_until_network", 5_000);
    const TELL: (&str, u64) = ("stop_and_tell", 60_000);
    const SLOT: &str = "take_another_slot";
    const RETRY: &str = "retry_carrier";
    //                           present: first   fifth             absent: first      fifth
    [
        ("network_timeout",         [(QUICK, 0),           (QUICK, 2_000),         (QUICK, 0),             ABSENT]),
        ("ip_change",               [(FULL, 0),            (FULL, 2_000),          (FULL, 0),              ABSENT]),
        ("peer_restart",            [(RESTART, 0),         (RESTART, 2_000),       (RESTART, 2_000),       (RESTART, 15_000)]),
        ("broker_lost",             [KEEP,                 KEEP,                   KEEP,                   KEEP]),
        ("phone_offline",           [PARK,                 PARK,                   PARK,                   PARK]),
        ("farm_offline",            [ABSENT,               ABSENT,                 ABSENT,                 ABSENT]),
        ("carrier_failed",          [(RETRY, 0),           (RETRY, 2_000),         ABSENT,                 ABSENT]),
        ("refused_other_boot",      [(RESTART, 0),         (RESTART, 2_000),       (RESTART, 2_000),       (RESTART, 15_000)]),
        ("refused_stale_epoch",     [("jump_epoch", 0),    (SLOT, 2_000),          ("jump_epoch", 0),      (SLOT, 2_000)]),
        ("refused_not_paired",      [TELL,                 TELL,                   TELL,                   TELL]),
        ("refused_limit",           [("retry_later", 1_000), ("retry_later", 5_000), ("retry_later", 1_000), ("retry_later", 5_000)]),
        ("refused_bad_description", [(RETRY, 0),           (RETRY, 2_000),         (RETRY, 0),             (RETRY, 2_000)]),
        ("refused_other",           [(RETRY, 0),           (RETRY, 2_000),         (RETRY, 0),             (RETRY, 2_000)]),
        ("superseded",              [(SLOT, 0),            (SLOT, 2_000),          (SLOT, 0),              (SLOT, 2_000)]),
        ("no_slot_left",            [TELL,                 TELL,                   TELL,                   TELL]),
    ]
};

const FINE: Context =
    Context { attempt: 0, farm_present: true, broker_link: true, network_up: true, watched: true };

/// The decision, and its delay.
fn ask(failure: Failure, context: &Context, seed: u64) -> (Decision, Duration) {
    let decision = decide(failure, context, &mut Jitter::new(seed));
    (decision, decision.retry_after.expect("attempts never end"))
}

fn check(failure: Failure, context: &Context, (name, most): (&str, u64)) {
    let most = Duration::from_millis(most);
    for seed in 0..50 {
        let (decision, delay) = ask(failure, context, seed);
        assert_eq!(decision.strategy.name(), name, "{failure:?} in {context:?}");
        assert!(delay <= most && delay >= most * 4 / 5, "{delay:?} for {failure:?} in {context:?}");
    }
}

#[test]
fn the_table() {
    for (failure, (name, expected)) in ALL.into_iter().zip(TABLE) {
        assert_eq!(failure.name(), name);
        let cases = [(0, true), (4, true), (0, false), (4, false)];
        for ((attempt, farm_present), expected) in cases.into_iter().zip(expected) {
            check(failure, &Context { attempt, farm_present, ..FINE }, expected);
        }
    }
}

#[test]
fn without_network_or_link_nothing_is_tried_in_vain() {
    for failure in ALL {
        for attempt in [0, 1, 100] {
            for farm_present in [true, false] {
                let fixed = match failure {
                    Failure::BrokerLost => Some(("keep_tunnels", 5_000)),
                    Failure::PhoneOffline => Some(("park_until_network", 5_000)),
                    Failure::Refused(OfferRefused::NotPaired) | Failure::NoSlotLeft => {
                        Some(("stop_and_tell", 60_000))
                    }
                    Failure::Superseded => {
                        Some(("take_another_slot", ladder(attempt, true).as_millis() as u64))
                    }
                    _ => None,
                };
                let context = Context { attempt, farm_present, network_up: false, ..FINE };
                check(failure, &context, fixed.unwrap_or(("park_until_network", 5_000)));
                let context = Context { attempt, farm_present, broker_link: false, ..FINE };
                check(failure, &context, fixed.unwrap_or(("wait_for_broker", 5_000)));
                let context = Context { broker_link: false, network_up: false, ..context };
                check(failure, &context, fixed.unwrap_or(("park_until_network", 5_000)));
            }
        }
    }
}

#[test]
fn in_every_context_there_is_a_bounded_next_attempt() {
    for failure in ALL {
        for bits in 0..16_u8 {
            for attempt in (0..40).chain([1_000, u32::MAX - 1, u32::MAX]) {
                let context = Context {
                    attempt,
                    farm_present: bits & 1 > 0,
                    broker_link: bits & 2 > 0,
                    network_up: bits & 4 > 0,
                    watched: bits & 8 > 0,
                };
                let (decision, delay) = ask(failure, &context, u64::from(attempt));
                let most = Duration::from_secs(if context.watched { 60 } else { 300 });
                assert!(delay <= most, "{delay:?} for {failure:?} in {context:?}");
                assert!(!decision.relay_only || decision.strategy == Strategy::RetryCarrier);
                // Whoever looks away slows things down, never changes them.
                let other = Context { watched: true, ..context };
                assert_eq!(
                    ask(failure, &other, 0).0.strategy,
                    decision.strategy,
                    "{failure:?} in {context:?}"
                );
            }
        }
    }
}

#[test]
fn a_carrier_that_fails_again_and_again() {
    let steps = |watched| {
        let delay = |attempt| {
            let delays = (0..100).map(|seed| {
                ask(Failure::CarrierFailed, &Context { attempt, watched, ..FINE }, seed).1.as_millis()
            });
            (delays.clone().min().unwrap(), delays.max().unwrap())
        };
        (0..16).map(delay).collect::<Vec<_>>()
    };
    let watched = steps(true);
    // Grows at every step, jitter or not, up to 5 s and no further.
    assert!(watched[..7].windows(2).all(|pair| pair[0].1 < pair[1].0), "{watched:?}");
    assert!(watched[6..].iter().all(|(least, most)| *least >= 4_000 && *most <= 5_000), "{watched:?}");
    let unwatched = steps(false);
    assert_eq!(unwatched[..1], watched[..1]);
    assert!(unwatched[12..].iter().all(|(least, most)| *least >= 240_000 && *most <= 300_000));
}

#[test]
fn ways_alternate_once_the_direct_one_failed_twice() {
    let relay: Vec<_> = (0..8)
        .map(|attempt| ask(Failure::CarrierFailed, &Context { attempt, ..FINE }, 1).0.relay_only)
        .collect();
    assert_eq!(relay, [false, false, true, false, true, false, true, false]);
}
