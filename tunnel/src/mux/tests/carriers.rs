//! What a stream goes through from one carrier to the next.

use super::*;
use crate::mux::*;
use farm_protocol::frame::ResetReason;

fn reset(id: StreamId, reason: ResetReason) -> Frame {
    Frame::Reset { stream: id, reason }
}

#[test]
fn nothing_is_sent_before_the_others_hello() {
    let mut phone = Mux::new(Role::Phone, Config::default());
    let now = Instant::now();
    let id = phone.open("greenhouse").unwrap();
    write(&mut phone, id, 5);
    assert_eq!(phone.poll_transmit(now), None);
    assert_eq!(phone.hello(), []);
    phone.resume(&[], now).unwrap();
    assert_eq!(drain(&mut phone, now).len(), 2);
    phone.carrier_lost();
    assert_eq!(phone.poll_transmit(now), None);
    assert!(!phone.is_resumed());
}

#[test]
fn bytes_lost_with_a_carrier_are_sent_again_from_where_the_other_end_is() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.write(id, &mut Bytes::from_static(b"abc")).unwrap();
    pair.exchange();
    pair.phone.write(id, &mut Bytes::from_static(b"def")).unwrap();
    pair.phone.finish(id).unwrap();
    assert_eq!(drain(&mut pair.phone, pair.now).len(), 2, "bytes and the end, lost");
    assert_eq!(pair.phone.buffered_bytes(), 6, "no ack came yet");
    pair.next_carrier();
    assert_eq!(pair.phone.buffered_bytes(), 3, "the hello acknowledged the rest");
    let again = drain(&mut pair.phone, pair.now);
    assert_eq!(again, [data(id, 3, b"def"), Frame::Fin { stream: id, offset: 6 }]);
    for frame in again {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"abcdef");
}

#[test]
fn credit_and_acks_lost_with_a_carrier_are_in_the_hello() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, SEND_BUFFER);
    pair.exchange();
    assert_eq!(pair.phone.poll_transmit(pair.now), None);
    write(&mut pair.phone, id, 1000);
    assert_eq!(pair.phone.poll_transmit(pair.now), None, "the credit is used up");
    read_all(&mut pair.farm, id, pair.now);
    assert_eq!(drain(&mut pair.farm, pair.now).len(), 1, "new credit, lost");
    pair.next_carrier();
    pair.settle();
    assert_eq!(read_all(&mut pair.farm, id, pair.now).len(), 1000);
}

#[test]
fn credit_that_was_not_announced_when_the_carrier_was_lost_is_in_the_hello() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, SEND_BUFFER);
    pair.exchange();
    write(&mut pair.phone, id, 1000);
    read_all(&mut pair.farm, id, pair.now);
    pair.next_carrier();
    pair.settle();
    assert_eq!(read_all(&mut pair.farm, id, pair.now).len(), 1000);
}

#[test]
fn an_open_of_a_live_stream_is_confirmed_and_nothing_else() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    let frames = drain(&mut pair.phone, pair.now);
    for frame in [frames.clone(), frames].concat() {
        pair.farm.handle_frame(frame, pair.now).unwrap();
        assert_eq!(drain(&mut pair.farm, pair.now), [ack(id, 0, INITIAL_WINDOW)]);
    }
    assert_eq!(events(&mut pair.farm).len(), 1, "opened once");
}

#[test]
fn a_number_is_never_opened_again() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    let open = pair.phone.poll_transmit(pair.now).unwrap();
    pair.farm.handle_frame(open.clone(), pair.now).unwrap();
    pair.farm.handle_frame(reset(id, ResetReason::Aborted), pair.now).unwrap();
    events(&mut pair.farm);
    pair.farm.handle_frame(open, pair.now).unwrap();
    assert_eq!(drain(&mut pair.farm, pair.now), [reset(id, ResetReason::Restarted)]);
    assert_eq!(events(&mut pair.farm), []);
}

#[test]
fn an_open_lost_with_a_carrier_is_sent_again_with_its_bytes() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    write(&mut pair.phone, id, 5);
    let lost = drain(&mut pair.phone, pair.now);
    pair.next_carrier();
    let again = drain(&mut pair.phone, pair.now);
    assert!(again == lost && again.len() == 2, "without waiting for an answer");
    for frame in again {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    pair.settle();
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"xxxxx");
    assert_eq!(events(&mut pair.phone), [Event::Established { id }]);
}

#[test]
fn an_open_whose_ack_was_lost_is_not_opened_twice() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    write(&mut pair.phone, id, 5);
    for frame in drain(&mut pair.phone, pair.now) {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    pair.farm.write(id, &mut Bytes::from_static(b"hello")).unwrap();
    assert_eq!(drain(&mut pair.farm, pair.now).len(), 2, "the ack and bytes, lost");
    events(&mut pair.farm);
    pair.next_carrier();
    pair.settle();
    assert_eq!(read_all(&mut pair.phone, id, pair.now), b"hello");
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"xxxxx");
    assert_eq!(events(&mut pair.farm), []);
    assert_eq!(pair.phone.buffered_bytes() + pair.farm.buffered_bytes(), 0);
}

#[test]
fn frames_may_overtake_the_hello() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 5);
    pair.farm.write(id, &mut Bytes::from_static(b"answer")).unwrap();
    drain(&mut pair.phone, pair.now);
    pair.phone.carrier_lost();
    pair.farm.carrier_lost();
    let (to_farm, to_phone) = (pair.phone.hello(), pair.farm.hello());
    // The phone has the farm's hello and opens one more; the farm waits.
    pair.phone.resume(&to_phone, pair.now).unwrap();
    let second = pair.phone.open("camera").unwrap();
    for frame in drain(&mut pair.phone, pair.now) {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"xxxxx");
    pair.farm.write(second, &mut Bytes::from_static(b"picture")).unwrap();
    assert_eq!(pair.farm.poll_transmit(pair.now), None);
    pair.farm.resume(&to_farm, pair.now).unwrap();
    pair.settle();
    assert_eq!(read_all(&mut pair.phone, id, pair.now), b"answer");
    assert_eq!(read_all(&mut pair.phone, second, pair.now), b"picture");
    assert_eq!(pair.farm.poll_timeout(), None, "no answer is awaited");
}

#[test]
fn an_ack_may_overtake_the_hello() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 5);
    for frame in drain(&mut pair.phone, pair.now) {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    pair.next_carrier();
    pair.phone.carrier_lost();
    pair.phone.handle_frame(ack(id, 5, MIN_WINDOW), pair.now).unwrap();
    pair.phone.resume(&[state(id, 5, MIN_WINDOW)], pair.now).unwrap();
    assert_eq!(pair.phone.buffered_bytes(), 0);
}

#[test]
fn a_hello_twice_or_senseless_is_a_violation() {
    let mut pair = Pair::new();
    assert_eq!(pair.phone.resume(&[], pair.now), Err(Violation::HelloTwice));
    pair.phone.carrier_lost();
    let twice = [state(7, 0, 0), state(7, 0, 0)];
    assert_eq!(pair.phone.resume(&twice, pair.now), Err(Violation::HelloRepeats { stream: 7 }));
    let long: Vec<StreamState> = (0..=MAX_STREAMS as u32).map(|id| state(id, 0, 0)).collect();
    let refused = pair.phone.resume(&long, pair.now);
    assert_eq!(refused, Err(Violation::HelloTooLong { count: MAX_STREAMS + 1 }));
}

#[test]
fn a_hello_that_contradicts_what_was_agreed_resets_that_stream() {
    let mut pair = Pair::new();
    let (back, ahead, fine) = (pair.open(), pair.open(), pair.open());
    write(&mut pair.phone, back, 100);
    pair.settle();
    pair.phone.carrier_lost();
    let hello = [state(back, 99, 0), state(ahead, 1, 0), state(fine, 0, 0)];
    pair.phone.resume(&hello, pair.now).unwrap();
    let reason = ResetReason::ProtocolError;
    let both = [Event::Reset { id: back, reason }, Event::Reset { id: ahead, reason }];
    assert_eq!(events(&mut pair.phone), both);
    assert_eq!(pair.phone.stream_count(), 1);
}

#[test]
fn a_reset_lost_with_a_carrier_is_said_again_with_its_reason() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.farm.reset(id, ResetReason::ServiceUnavailable);
    assert_eq!(drain(&mut pair.farm, pair.now).len(), 1, "lost");
    pair.next_carrier();
    pair.settle();
    let reason = ResetReason::ServiceUnavailable;
    assert_eq!(events(&mut pair.phone), [Event::Reset { id, reason }]);
}

#[test]
fn a_reset_of_a_stream_opened_before_the_hello_came_is_said() {
    let mut pair = Pair::new();
    pair.phone.carrier_lost();
    pair.farm.carrier_lost();
    let (to_farm, to_phone) = (pair.phone.hello(), pair.farm.hello());
    pair.phone.resume(&to_phone, pair.now).unwrap();
    let id = pair.phone.open("nothing").unwrap();
    for frame in drain(&mut pair.phone, pair.now) {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    pair.farm.reset(id, ResetReason::UnknownService);
    pair.farm.resume(&to_farm, pair.now).unwrap();
    pair.settle();
    let reason = ResetReason::UnknownService;
    assert_eq!(events(&mut pair.phone), [Event::Reset { id, reason }]);
}

#[test]
fn a_stream_complete_at_one_end_completes_at_the_other_after_a_cut() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.finish(id).unwrap();
    pair.settle();
    pair.farm.finish(id).unwrap();
    for frame in drain(&mut pair.farm, pair.now) {
        pair.phone.handle_frame(frame, pair.now).unwrap();
    }
    assert!(events(&mut pair.phone).contains(&Event::Closed { id }));
    assert_eq!(drain(&mut pair.phone, pair.now).len(), 1, "the last ack, lost");
    events(&mut pair.farm);
    pair.next_carrier();
    pair.settle();
    assert_eq!(events(&mut pair.farm), [Event::Closed { id }]);
}

#[test]
fn an_outcome_is_remembered_for_as_many_streams_as_can_live() {
    let mut pair = Pair::new();
    let first = pair.open();
    pair.phone.reset(first, ResetReason::Aborted);
    for _ in 1..TOMBSTONES {
        let id = pair.open();
        pair.phone.reset(id, ResetReason::Aborted);
        drain(&mut pair.phone, pair.now);
    }
    let ask = |pair: &mut Pair| {
        pair.phone.carrier_lost();
        pair.phone.resume(&[state(first, 0, 0)], pair.now).unwrap();
        drain(&mut pair.phone, pair.now)
    };
    assert_eq!(ask(&mut pair), [reset(first, ResetReason::Aborted)]);
    let id = pair.phone.open("greenhouse").unwrap();
    drain(&mut pair.phone, pair.now);
    pair.phone.reset(id, ResetReason::Aborted);
    assert_eq!(ask(&mut pair), [reset(first, ResetReason::Restarted)]);
}

#[test]
fn a_restarted_farm_ends_what_it_had_confirmed_and_opens_the_rest() {
    let mut pair = Pair::new();
    let (old, new) = (pair.open(), pair.phone.open("greenhouse").unwrap());
    write(&mut pair.phone, old, 5);
    write(&mut pair.phone, new, 5);
    drain(&mut pair.phone, pair.now);
    pair.farm = Mux::new(Role::Farm, Config::default());
    pair.next_carrier();
    let (at, why) = pair.phone.poll_timeout().unwrap();
    assert_eq!((at, why), (pair.now + RESUME_ANSWER_DEADLINE, "an answer about a stream is overdue"));
    pair.settle();
    let gone = Event::Reset { id: old, reason: ResetReason::Restarted };
    assert_eq!(events(&mut pair.phone), [gone, Event::Established { id: new }]);
    assert_eq!(read_all(&mut pair.farm, new, pair.now), b"xxxxx");
    assert_eq!(pair.farm.stream_count(), 1);
}

#[test]
fn a_stream_that_nobody_answers_for_is_reset_after_the_deadline() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 5);
    pair.phone.carrier_lost();
    pair.phone.resume(&[], pair.now).unwrap();
    assert_eq!(pair.phone.poll_transmit(pair.now), None, "bytes wait for the answer");
    let (at, _) = pair.phone.poll_timeout().unwrap();
    pair.phone.handle_timeout(at - Duration::from_millis(1));
    assert_eq!(events(&mut pair.phone), []);
    pair.phone.handle_timeout(at);
    let reason = ResetReason::Restarted;
    assert_eq!(events(&mut pair.phone), [Event::Reset { id, reason }]);
    assert_eq!(drain(&mut pair.phone, at), [reset(id, reason)]);
    assert_eq!((pair.phone.poll_timeout(), pair.phone.buffered_bytes()), (None, 0));
}

#[test]
fn time_without_a_carrier_does_not_count_against_an_answer() {
    let mut pair = Pair::new();
    pair.open();
    pair.phone.carrier_lost();
    pair.phone.hello();
    pair.phone.resume(&[], pair.now).unwrap();
    pair.phone.carrier_lost();
    assert_eq!(pair.phone.poll_timeout(), None);
    pair.phone.handle_timeout(pair.now + 100 * RESUME_ANSWER_DEADLINE);
    assert_eq!(pair.phone.stream_count(), 1);
}

#[test]
fn an_open_that_is_never_answered_is_reset_after_the_deadline() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    assert_eq!(pair.phone.poll_timeout(), None);
    drain(&mut pair.phone, pair.now);
    let (at, _) = pair.phone.poll_timeout().unwrap();
    assert_eq!(at, pair.now + OPEN_ANSWER_DEADLINE);
    pair.phone.handle_timeout(at);
    let reason = ResetReason::ServiceUnavailable;
    assert_eq!(events(&mut pair.phone), [Event::Reset { id, reason }]);
}

#[test]
fn a_peer_that_asks_without_reading_the_answers_is_cut_off() {
    let mut pair = Pair::new();
    let strange = |id| data(id, 0, b"x");
    for id in 1..=MAX_ANSWERS as u32 {
        pair.farm.handle_frame(strange(id), pair.now).unwrap();
    }
    let id = MAX_ANSWERS as u32 + 1;
    assert_eq!(pair.farm.handle_frame(strange(id), pair.now), Err(Violation::Flood));
    let open = Frame::Open { stream: id, target: "greenhouse".to_owned(), credit: 0 };
    assert_eq!(pair.farm.handle_frame(open.clone(), pair.now), Err(Violation::Flood));
    drain(&mut pair.farm, pair.now);
    pair.farm.handle_frame(open, pair.now).unwrap();
}
