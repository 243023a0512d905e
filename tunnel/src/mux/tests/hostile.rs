//! A peer that keeps to nothing: no panic, no memory beyond the bounds.

use proptest::prelude::*;

use super::*;
use crate::mux::*;
use farm_protocol::frame::ResetReason;

/// What a peer, or the program at this end, may do.
#[derive(Debug, Clone)]
enum Step {
    Frame(Frame),
    Resume(Vec<StreamState>),
    CarrierLost,
    Open,
    Write(StreamId, usize),
    Finish(StreamId),
    Reset(StreamId),
    Read(StreamId, usize),
    Transmit(usize),
    Pass(u64),
}

fn id() -> impl Strategy<Value = StreamId> {
    prop_oneof![8 => 0_u32..6, 1 => 0_u32..300, 1 => any::<u32>()]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..40, 3 => 0_u64..600_000, 1 => any::<u64>(), 1 => u64::MAX - 9..=u64::MAX]
}

fn frame() -> impl Strategy<Value = Frame> {
    let size = prop_oneof![6 => 0_usize..40, 1 => 0_usize..61_440];
    let target = prop_oneof![9 => Just("greenhouse".to_owned()), 1 => Just(String::new())];
    prop_oneof![
        2 => (id(), target, offset())
            .prop_map(|(stream, target, credit)| Frame::Open { stream, target, credit }),
        4 => (id(), offset(), size).prop_map(|(stream, offset, size)| Frame::Data {
            stream,
            offset,
            bytes: vec![1; size].into()
        }),
        3 => (id(), offset(), offset()).prop_map(|(id, received, credit)| ack(id, received, credit)),
        2 => (id(), offset()).prop_map(|(stream, offset)| Frame::Fin { stream, offset }),
        1 => id().prop_map(|stream| Frame::Reset { stream, reason: ResetReason::Other }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let state = (id(), offset(), offset()).prop_map(|(id, received, credit)| state(id, received, credit));
    prop_oneof![
        20 => frame().prop_map(Step::Frame),
        2 => prop::collection::vec(state, 0..8).prop_map(Step::Resume),
        1 => Just(Step::CarrierLost),
        2 => Just(Step::Open),
        3 => (id(), 0_usize..400_000).prop_map(|(id, len)| Step::Write(id, len)),
        1 => id().prop_map(Step::Finish),
        1 => id().prop_map(Step::Reset),
        3 => (id(), 0_usize..100_000).prop_map(|(id, max)| Step::Read(id, max)),
        3 => (0_usize..50).prop_map(Step::Transmit),
        1 => (0_u64..20_000).prop_map(Step::Pass),
    ]
}

fn take(mux: &mut Mux, step: Step, now: &mut Instant) {
    match step {
        Step::Frame(frame) => {
            let _ = mux.handle_frame(frame, *now);
        }
        Step::Resume(states) => {
            mux.hello();
            // Either answer is right; what counts is the state after it.
            let _ = mux.resume(&states, *now);
        }
        Step::CarrierLost => mux.carrier_lost(),
        Step::Open => {
            let _ = mux.open("greenhouse");
        }
        Step::Write(id, len) => {
            let _ = mux.write(id, &mut Bytes::from(vec![0; len]));
        }
        Step::Finish(id) => {
            let _ = mux.finish(id);
        }
        Step::Reset(id) => mux.reset(id, ResetReason::Aborted),
        Step::Read(id, max) => drop(mux.read(id, max, *now)),
        Step::Transmit(count) => (0..count).for_each(|_| drop(mux.poll_transmit(*now))),
        Step::Pass(millis) => {
            mux.set_round_trip_time(Duration::from_secs(millis).saturating_mul(u32::MAX));
            *now += Duration::from_millis(millis);
            mux.handle_timeout(*now);
        }
    }
}

/// What must hold whatever happened.
pub(super) fn check(mux: &Mux) {
    let mut sum = Usage::default();
    for stream in mux.streams.values() {
        sum.add(stream.usage());
        let pieces = stream.send.pieces() + stream.receive.pieces();
        let held = stream.send.held() + stream.receive.held();
        assert!(pieces <= 3 * 65 + 4 * held / 1024, "{pieces} pieces for {held} bytes");
        assert!(stream.receive.held() as u64 <= stream.receive.granted());
    }
    assert_eq!(sum, mux.usage, "the sums are right");
    assert!(mux.stream_count() <= MAX_STREAMS);
    assert!(mux.buffered_bytes() <= MAX_BUFFERED);
    assert!(mux.usage.in_flight <= mux.config.in_flight_limit);
    assert!(mux.usage.exposure <= SESSION_WINDOW + MAX_STREAMS as u64 * MIN_WINDOW);
    assert!(mux.events.len() <= MAX_EVENTS + 8 * MAX_STREAMS);
    assert!(mux.deadlines.len() <= MAX_STREAMS);
    assert!(mux.outbox.owed().all(|id| mux.streams.contains_key(id)), "owed to the living");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_peer_sends_breaks_this_end(
        phone in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let role = if phone { Role::Phone } else { Role::Farm };
        let mut mux = Mux::new(role, Config { max_payload: 4096, in_flight_limit: 100_000 });
        let mut now = Instant::now();
        for step in steps {
            take(&mut mux, step, &mut now);
            check(&mux);
        }
    }
}

#[test]
fn events_that_nobody_takes_stay_bounded() {
    let mut farm = Mux::new(Role::Farm, Config::default());
    let now = Instant::now();
    farm.resume(&[], now).unwrap();
    let mut refused = 0;
    for stream in 1..5000 {
        let open = Frame::Open { stream, target: "greenhouse".to_owned(), credit: 0 };
        refused += usize::from(farm.handle_frame(open, now).is_err());
        farm.handle_frame(Frame::Reset { stream, reason: ResetReason::Other }, now).unwrap();
        check(&farm);
    }
    assert!(refused > 0 && farm.stream_count() == 0, "{refused}");
    assert!(drain(&mut farm, now).len() <= MAX_ANSWERS);
}
