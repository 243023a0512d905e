//! A stream's life, and what the other end may not do to it.

use super::*;
use crate::mux::*;
use farm_protocol::frame::{MAX_TARGET, ResetReason};

fn failed(mux: &mut Mux, id: StreamId) -> bool {
    events(mux).contains(&Event::Reset { id, reason: ResetReason::ProtocolError })
}

#[test]
fn bytes_flow_both_ways_and_both_ends_forget_the_stream() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.write(id, &mut Bytes::from_static(b"question")).unwrap();
    pair.phone.finish(id).unwrap();
    pair.settle();
    assert_eq!(events(&mut pair.farm), [Event::Readable { id }]);
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"question");
    assert_eq!(events(&mut pair.farm), [Event::Finished { id }]);
    pair.farm.write(id, &mut Bytes::from_static(b"answer")).unwrap();
    pair.farm.finish(id).unwrap();
    pair.settle();
    assert_eq!(read_all(&mut pair.phone, id, pair.now), b"answer");
    pair.settle();
    let all = [Event::Readable { id }, Event::Finished { id }, Event::Closed { id }];
    assert_eq!(events(&mut pair.phone), all);
    assert_eq!(events(&mut pair.farm), [Event::Closed { id }]);
    for mux in [&mut pair.phone, &mut pair.farm] {
        assert_eq!((mux.stream_count(), mux.buffered_bytes()), (0, 0));
        assert_eq!(mux.usage, Usage::default());
        assert_eq!(mux.write(id, &mut Bytes::from_static(b"x")), Err(StreamError::Gone));
        assert_eq!(mux.finish(id), Err(StreamError::Gone));
        assert_eq!(mux.poll_timeout(), None);
    }
}

#[test]
fn a_stream_without_bytes_ends_cleanly() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.finish(id).unwrap();
    pair.farm.finish(id).unwrap();
    pair.settle();
    let both = [Event::Finished { id }, Event::Closed { id }];
    assert_eq!(events(&mut pair.phone), both);
    assert_eq!(events(&mut pair.farm), both);
}

#[test]
fn the_end_is_acknowledged_when_the_reader_has_reached_it() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.farm.finish(id).unwrap();
    write(&mut pair.phone, id, 10);
    pair.phone.finish(id).unwrap();
    pair.settle();
    assert_eq!((pair.phone.stream_count(), pair.farm.stream_count()), (1, 1));
    assert_eq!(pair.phone.buffered_bytes(), 0, "the bytes themselves are acknowledged");
    assert_eq!(pair.farm.read(id, 9, pair.now).unwrap().len(), 9);
    pair.settle();
    assert_eq!(pair.phone.stream_count(), 1);
    read_all(&mut pair.farm, id, pair.now);
    pair.settle();
    assert_eq!((pair.phone.stream_count(), pair.farm.stream_count()), (0, 0));
}

#[test]
fn nothing_is_written_after_the_end() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.finish(id).unwrap();
    pair.phone.finish(id).unwrap();
    let refused = pair.phone.write(id, &mut Bytes::from_static(b"x"));
    assert_eq!(refused, Err(StreamError::Finished));
}

#[test]
fn a_reader_is_told_once_until_it_has_read_all() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 10);
    pair.settle();
    write(&mut pair.phone, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.farm), [Event::Readable { id }]);
    pair.farm.read(id, 15, pair.now).unwrap();
    write(&mut pair.phone, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.farm), []);
    read_all(&mut pair.farm, id, pair.now);
    write(&mut pair.phone, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.farm), [Event::Readable { id }]);
}

#[test]
fn a_refused_stream_says_why_and_frees_both_ends() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 10_000);
    pair.farm.reset(id, ResetReason::UnknownService);
    pair.settle();
    let reason = ResetReason::UnknownService;
    assert_eq!(events(&mut pair.phone), [Event::Reset { id, reason }]);
    assert_eq!(events(&mut pair.farm), [], "who resets knows it");
    for mux in [&pair.phone, &pair.farm] {
        assert_eq!((mux.stream_count(), mux.usage), (0, Usage::default()));
    }
}

#[test]
fn no_event_follows_ones_own_reset() {
    let mut pair = Pair::new();
    let (id, other) = (pair.open(), pair.open());
    write(&mut pair.phone, id, 10);
    write(&mut pair.phone, other, 10);
    pair.settle();
    pair.farm.reset(id, ResetReason::Aborted);
    assert_eq!(events(&mut pair.farm), [Event::Readable { id: other }]);
}

#[test]
fn bytes_confirm_a_stream_as_an_ack_does() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    drain(&mut pair.phone, pair.now);
    pair.phone.handle_frame(data(id, 0, b"x"), pair.now).unwrap();
    assert_eq!(events(&mut pair.phone), [Event::Established { id }, Event::Readable { id }]);
    pair.phone.carrier_lost();
    assert_eq!(pair.phone.hello().len(), 1, "the phone has something to say about it");
}

#[test]
fn an_open_that_was_never_sent_is_reset_without_a_word() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    pair.phone.reset(id, ResetReason::Aborted);
    assert_eq!(pair.exchange(), 0);
    assert_eq!(pair.open(), id + 1, "its number is not used again");
}

#[test]
fn ending_the_session_resets_every_stream_at_both_ends() {
    let mut pair = Pair::new();
    let ids = [pair.open(), pair.open()];
    pair.phone.reset_all(ResetReason::SessionEnded);
    pair.settle();
    let all = ids.map(|id| Event::Reset { id, reason: ResetReason::SessionEnded });
    assert_eq!(events(&mut pair.phone), all);
    assert_eq!(events(&mut pair.farm), all);
}

#[test]
fn only_the_phone_opens() {
    let mut pair = Pair::new();
    assert_eq!(pair.farm.open("greenhouse"), Err(OpenError::NotThePhone));
    let open = Frame::Open { stream: 1, target: "greenhouse".to_owned(), credit: 0 };
    let refused = pair.phone.handle_frame(open, pair.now);
    assert_eq!(refused, Err(Violation::OpenedByFarm { stream: 1 }));
}

#[test]
fn unusable_opens_are_refused() {
    let mut pair = Pair::new();
    assert_eq!(pair.phone.open(""), Err(OpenError::BadTarget(0)));
    let long = "a".repeat(MAX_TARGET + 1);
    assert_eq!(pair.phone.open(&long), Err(OpenError::BadTarget(MAX_TARGET + 1)));
    for (stream, target) in [(0, "greenhouse"), (1, ""), (1, long.as_str())] {
        let open = Frame::Open { stream, target: target.to_owned(), credit: 0 };
        assert_eq!(pair.farm.handle_frame(open, pair.now), Err(Violation::BadOpen { stream }));
    }
    pair.phone.last_id = u32::MAX;
    assert_eq!(pair.phone.open("greenhouse"), Err(OpenError::Exhausted));
}

#[test]
fn streams_are_limited_at_both_ends() {
    let mut pair = Pair::new();
    for _ in 0..MAX_STREAMS {
        pair.phone.open("greenhouse").unwrap();
    }
    assert_eq!(pair.phone.open("greenhouse"), Err(OpenError::TooManyStreams));
    pair.settle();
    let id = MAX_STREAMS as u32 + 1;
    let open = Frame::Open { stream: id, target: "greenhouse".to_owned(), credit: 0 };
    pair.farm.handle_frame(open, pair.now).unwrap();
    let answer = Frame::Reset { stream: id, reason: ResetReason::Limit };
    assert_eq!(drain(&mut pair.farm, pair.now), [answer]);
    assert_eq!(pair.farm.stream_count(), MAX_STREAMS);
}

#[test]
fn an_honest_phone_never_runs_into_the_farms_limit() {
    let mut pair = Pair::new();
    let mut live = Vec::new();
    for round in 0..150 {
        while let Ok(id) = pair.phone.open("greenhouse") {
            write(&mut pair.phone, id, 5);
            pair.phone.finish(id).unwrap();
            live.push(id);
        }
        // One direction at a time, and readers at both ends that lag.
        for frame in drain(&mut pair.phone, pair.now) {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
        for event in events(&mut pair.farm) {
            match event {
                Event::Opened { id, .. } => pair.farm.finish(id).unwrap(),
                Event::Reset { reason, .. } => panic!("round {round}: {reason:?}"),
                _ => {}
            }
        }
        live.retain(|id| (id + round) % 3 != 0 || read_all(&mut pair.farm, *id, pair.now).is_empty());
        for frame in drain(&mut pair.farm, pair.now) {
            pair.phone.handle_frame(frame, pair.now).unwrap();
        }
        let refused = |event: &Event| matches!(event, Event::Reset { .. });
        assert!(!events(&mut pair.phone).iter().any(refused), "round {round}");
        assert!(pair.farm.stream_count() <= MAX_STREAMS);
        if round % 5 == 0 {
            pair.next_carrier();
        }
    }
    assert!(pair.phone.last_id > 5_000, "streams did come and go: {}", pair.phone.last_id);
}

#[test]
fn missing_bytes_are_a_violation() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.farm.handle_frame(data(id, 0, b"abc"), pair.now).unwrap();
    let gap = Violation::Gap { stream: id, expected: 3, offset: 4 };
    assert_eq!(pair.farm.handle_frame(data(id, 4, b"e"), pair.now), Err(gap));
    assert_eq!(pair.farm.handle_frame(Frame::Fin { stream: id, offset: 4 }, pair.now), Err(gap));
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"abc", "a resume can go on from here");
}

#[test]
fn bytes_that_came_before_are_skipped() {
    let mut pair = Pair::new();
    let id = pair.open();
    for (offset, bytes) in [(0, &b"abc"[..]), (0, b"ab"), (1, b"bcde"), (5, b"f"), (0, b"abcdef")] {
        pair.farm.handle_frame(data(id, offset, bytes), pair.now).unwrap();
    }
    assert_eq!(read_all(&mut pair.farm, id, pair.now), b"abcdef");
}

#[test]
fn breaking_one_stream_resets_that_one_only() {
    let mut pair = Pair::new();
    let bystander = pair.open();
    let over_credit = vec![0; MIN_WINDOW as usize];
    let fin = |stream, offset| Frame::Fin { stream, offset };
    type Attack<'a> = (&'a str, fn(StreamId) -> Vec<Frame>);
    let attacks: [Attack<'_>; 6] = [
        ("an ack beyond what was sent", |id| vec![ack(id, 1, 0)]),
        ("an ack of an end never sent", |id| vec![ack(id, u64::MAX, u64::MAX)]),
        ("bytes after the end", |id| vec![Frame::Fin { stream: id, offset: 0 }, data(id, 0, b"x")]),
        ("an end before the bytes", |id| vec![data(id, 0, b"xyz"), Frame::Fin { stream: id, offset: 2 }]),
        ("two ends", |id| {
            let fin = |offset| Frame::Fin { stream: id, offset };
            vec![data(id, 0, b"xyz"), fin(3), fin(2)]
        }),
        ("an end, then bytes over it", |id| {
            vec![data(id, 0, b"xyz"), Frame::Fin { stream: id, offset: 3 }, data(id, 2, b"zzz")]
        }),
    ];
    for (name, frames) in attacks {
        let id = pair.open();
        for frame in frames(id) {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
        assert!(failed(&mut pair.farm, id), "{name}");
        pair.settle();
        assert!(failed(&mut pair.phone, id), "{name}");
    }
    let id = pair.open();
    for offset in (0..).step_by(over_credit.len()).take(9) {
        pair.farm.handle_frame(data(id, offset, &over_credit), pair.now).unwrap();
    }
    assert!(failed(&mut pair.farm, id), "bytes beyond the credit");
    assert!(pair.farm.buffered_bytes() == 0 && pair.farm.stream_count() == 1);
    pair.farm.handle_frame(fin(bystander, 0), pair.now).unwrap();
    assert_eq!(events(&mut pair.farm), [Event::Finished { id: bystander }]);
}

#[test]
fn frames_of_closed_streams_are_harmless() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.reset(id, ResetReason::Aborted);
    drain(&mut pair.phone, pair.now);
    let late = [data(id, 0, b"late"), ack(id, 0, 9), Frame::Fin { stream: id, offset: 4 }];
    for frame in late.clone() {
        pair.phone.handle_frame(frame, pair.now).unwrap();
    }
    assert_eq!(drain(&mut pair.phone, pair.now), [], "the farm was told");
    for frame in late {
        let stream = frame.stream() + 1;
        let frame = match frame {
            Frame::Data { offset, bytes, .. } => Frame::Data { stream, offset, bytes },
            Frame::Ack { received, credit, .. } => ack(stream, received, credit),
            _ => Frame::Fin { stream, offset: 4 },
        };
        let refused = pair.phone.handle_frame(frame, pair.now);
        assert_eq!(refused, Err(Violation::NeverOpened { stream }));
    }
}
