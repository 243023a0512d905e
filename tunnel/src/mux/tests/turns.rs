//! Who sends when, and how much is on the way.

use std::collections::BTreeMap;

use super::*;
use crate::mux::*;

fn size(frame: &Frame) -> usize {
    if let Frame::Data { bytes, .. } = frame { bytes.len() } else { 0 }
}

#[test]
fn no_more_is_on_the_way_than_the_carrier_holds() {
    let config = Config { in_flight_limit: 200_000, ..Config::default() };
    let mut pair = Pair::with_config(config);
    let ids: Vec<StreamId> = (0..4).map(|_| pair.open()).collect();
    for id in &ids {
        write(&mut pair.farm, *id, SEND_BUFFER);
    }
    let frames = drain(&mut pair.farm, pair.now);
    let charge: usize = frames.iter().map(|frame| size(frame) + FRAME_CHARGE).sum();
    assert!((150_000..=200_000).contains(&charge), "{charge}");
    for frame in frames {
        pair.phone.handle_frame(frame, pair.now).unwrap();
    }
    for _ in 0..30 {
        pair.settle();
        ids.iter().for_each(|id| drop(read_all(&mut pair.phone, *id, pair.now)));
    }
    assert!(pair.farm.usage.in_flight == 0 && pair.farm.buffered_bytes() == 0);
}

#[test]
fn small_frames_on_the_way_are_bounded_too() {
    let mut pair = Pair::new();
    let id = pair.open();
    let mut frames = 0;
    for _ in 0..SEND_BUFFER {
        write(&mut pair.farm, id, 1);
        frames += drain(&mut pair.farm, pair.now).len();
    }
    assert!(frames <= IN_FLIGHT_LIMIT / FRAME_CHARGE, "{frames}");
    assert!(pair.farm.streams[&id].send.pieces() <= 2 * (65 + 4 * SEND_BUFFER / 1024));
}

#[test]
fn bulk_streams_share_by_bytes() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..5).map(|_| pair.open()).collect();
    let mut sent: BTreeMap<StreamId, usize> = BTreeMap::new();
    for _ in 0..1000 {
        for (n, id) in ids.iter().enumerate() {
            // Each writes in pieces of its own size.
            while write(&mut pair.farm, *id, 700 * (n + 1)) == 700 * (n + 1) {}
        }
        for _ in 0..10 {
            let Some(frame) = pair.farm.poll_transmit(pair.now) else { break };
            *sent.entry(frame.stream()).or_default() += size(&frame);
            pair.phone.handle_frame(frame, pair.now).unwrap();
        }
        ids.iter().for_each(|id| drop(read_all(&mut pair.phone, *id, pair.now)));
        for frame in drain(&mut pair.phone, pair.now) {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
    }
    let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
    assert!(*least > 1_000_000 && most - least <= 3 * DEFAULT_PAYLOAD, "{sent:?}");
}

#[test]
fn a_keystroke_goes_before_the_bulk_even_when_the_carrier_is_full() {
    let mut pair = Pair::new();
    let bulk: Vec<StreamId> = (0..8).map(|_| pair.open()).collect();
    let shell = pair.open();
    for id in &bulk {
        write(&mut pair.farm, *id, SEND_BUFFER);
    }
    assert!(pair.farm.poll_transmit(pair.now).is_some());
    write(&mut pair.farm, shell, 1);
    assert_eq!(pair.farm.poll_transmit(pair.now), Some(data(shell, 0, b"x")));
    drain(&mut pair.farm, pair.now);
    write(&mut pair.farm, shell, 1);
    assert_eq!(pair.farm.poll_transmit(pair.now), Some(data(shell, 1, b"x")));
}

#[test]
fn a_queue_that_grew_before_its_turn_waits_with_the_bulk() {
    let mut pair = Pair::new();
    let (bulk, shell) = (pair.open(), pair.open());
    write(&mut pair.farm, bulk, 1);
    write(&mut pair.farm, bulk, SEND_BUFFER / 2);
    write(&mut pair.farm, shell, 1);
    assert_eq!(pair.farm.poll_transmit(pair.now), Some(data(shell, 0, b"x")));
}

#[test]
fn short_queues_do_not_starve_the_bulk() {
    let mut pair = Pair::new();
    let (bulk, quick) = (pair.open(), pair.open());
    let mut sent: BTreeMap<StreamId, usize> = BTreeMap::new();
    for _ in 0..1000 {
        while write(&mut pair.farm, bulk, SEND_BUFFER) > 0 {}
        write(&mut pair.farm, quick, 10_000);
        if let Some(frame) = pair.farm.poll_transmit(pair.now) {
            *sent.entry(frame.stream()).or_default() += size(&frame);
            pair.phone.handle_frame(frame, pair.now).unwrap();
        }
        [bulk, quick].iter().for_each(|id| drop(read_all(&mut pair.phone, *id, pair.now)));
        for frame in drain(&mut pair.phone, pair.now) {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
    }
    assert!(sent[&bulk] * 5 >= sent[&quick] * 4 && sent[&quick] > 1_000_000, "{sent:?}");
}

#[test]
fn small_writes_are_sent_at_once_but_together_when_they_had_to_wait() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 3);
    assert_eq!(drain(&mut pair.phone, pair.now).len(), 1);
    for _ in 0..1000 {
        write(&mut pair.phone, id, 3);
    }
    let sizes: Vec<usize> = drain(&mut pair.phone, pair.now).iter().map(size).collect();
    assert_eq!(sizes, [3000]);
}

#[test]
fn acks_go_before_bytes() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.farm, id, 100_000);
    let mut offset = 0;
    for _ in 0..5 {
        pair.farm.handle_frame(data(id, offset, &[0; 16_384]), pair.now).unwrap();
        offset += 16_384;
    }
    assert!(matches!(pair.farm.poll_transmit(pair.now), Some(Frame::Ack { .. })));
    assert!(matches!(pair.farm.poll_transmit(pair.now), Some(Frame::Data { .. })));
}

#[test]
fn payloads_follow_the_configuration_within_bounds() {
    for (asked, used) in [(1, MIN_PAYLOAD), (5000, 5000), (1 << 30, farm_protocol::frame::MAX_PAYLOAD)] {
        let config = Config { max_payload: asked, in_flight_limit: 0 };
        let mut pair = Pair::with_config(config);
        let id = pair.open();
        write(&mut pair.phone, id, 200_000);
        let frame = pair.phone.poll_transmit(pair.now).unwrap();
        assert_eq!(size(&frame), used);
        pair.farm.handle_frame(frame, pair.now).unwrap();
        let mut arrived = 0;
        while pair.phone.buffered_bytes() > 0 {
            pair.settle();
            arrived += read_all(&mut pair.farm, id, pair.now).len();
        }
        assert_eq!(arrived, 200_000);
    }
}
