//! Credit, windows, acks and the bounds on memory.

use super::*;
use crate::mux::*;

/// Sends from the farm for `round_trips`, the reader taking all at once or
/// not at all; says how many bytes arrived.
fn download(pair: &mut Pair, id: StreamId, round_trips: u32, round_trip: Duration, reads: bool) -> usize {
    let mut arrived = 0;
    for _ in 0..round_trips {
        while write(&mut pair.farm, id, 64 * 1024) > 0 {}
        let frames = drain(&mut pair.farm, pair.now);
        pair.now += round_trip / 2;
        for frame in frames {
            pair.phone.handle_frame(frame, pair.now).unwrap();
            if reads {
                arrived += read_all(&mut pair.phone, id, pair.now).len();
            }
        }
        pair.phone.handle_timeout(pair.now + ACK_DELAY);
        let acks = drain(&mut pair.phone, pair.now);
        pair.now += round_trip / 2;
        for frame in acks {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
        events(&mut pair.farm);
        events(&mut pair.phone);
    }
    arrived
}

fn window(mux: &Mux, id: StreamId) -> u64 {
    mux.streams[&id].receive.window()
}

#[test]
fn before_the_first_ack_the_phone_sends_the_least_window_only() {
    let mut pair = Pair::new();
    let id = pair.phone.open("greenhouse").unwrap();
    write(&mut pair.phone, id, 100_000);
    let frames = drain(&mut pair.phone, pair.now);
    let sent: usize =
        frames.iter().map(|frame| if let Frame::Data { bytes, .. } = frame { bytes.len() } else { 0 }).sum();
    assert_eq!(sent as u64, MIN_WINDOW);
    for frame in frames {
        pair.farm.handle_frame(frame, pair.now).unwrap();
    }
    let first = drain(&mut pair.farm, pair.now);
    assert_eq!(first, [ack(id, MIN_WINDOW, INITIAL_WINDOW)]);
}

#[test]
fn a_fast_reader_grows_its_window_to_the_bound() {
    let mut pair = Pair::new();
    let id = pair.open();
    let round_trip = Duration::from_millis(100);
    pair.phone.set_round_trip_time(round_trip);
    let first = download(&mut pair, id, 1, round_trip, true);
    assert!(first as u64 <= INITIAL_WINDOW);
    download(&mut pair, id, 20, round_trip, true);
    assert!(window(&pair.phone, id) >= 1024 * 1024, "{}", window(&pair.phone, id));
    let limit = IN_FLIGHT_LIMIT - IN_FLIGHT_LIMIT / 8;
    // The writer is refilled once per round trip here, up to its buffer.
    let later = download(&mut pair, id, 10, round_trip, true);
    assert!(later >= 10 * SEND_BUFFER.min(limit), "{later}");
    download(&mut pair, id, 100, round_trip, true);
    assert!(window(&pair.phone, id) <= MAX_WINDOW);
}

#[test]
fn a_window_that_is_not_the_limit_does_not_grow() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.set_round_trip_time(Duration::from_millis(10));
    for _ in 0..1000 {
        write(&mut pair.farm, id, 16 * 1024);
        pair.settle();
        pair.now += Duration::from_millis(10);
        read_all(&mut pair.phone, id, pair.now);
    }
    assert_eq!(window(&pair.phone, id), INITIAL_WINDOW);
}

#[test]
fn a_window_shrinks_back_when_its_reader_slows_down() {
    let mut pair = Pair::new();
    let id = pair.open();
    let round_trip = Duration::from_millis(100);
    pair.phone.set_round_trip_time(round_trip);
    download(&mut pair, id, 30, round_trip, true);
    assert!(window(&pair.phone, id) > INITIAL_WINDOW);
    for _ in 0..20 {
        write(&mut pair.farm, id, 1000);
        pair.settle();
        pair.now += 2 * SECOND;
        read_all(&mut pair.phone, id, pair.now);
    }
    assert_eq!(window(&pair.phone, id), INITIAL_WINDOW);
}

#[test]
fn a_stopped_reader_holds_at_most_its_window() {
    let mut pair = Pair::new();
    let id = pair.open();
    download(&mut pair, id, 50, Duration::from_millis(10), false);
    assert_eq!(pair.phone.buffered_bytes() as u64, INITIAL_WINDOW);
    assert!(pair.farm.buffered_bytes() <= SEND_BUFFER);
    // It goes on where it stopped.
    read_all(&mut pair.phone, id, pair.now);
    assert!(download(&mut pair, id, 2, Duration::from_millis(10), true) > 0);
}

#[test]
fn stopped_readers_leave_the_least_window_to_each_other_stream() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..MAX_STREAMS).map(|_| pair.open()).collect();
    for id in &ids[1..] {
        download(&mut pair, *id, 3, Duration::from_millis(1), false);
    }
    let bound = SESSION_WINDOW + MAX_STREAMS as u64 * MIN_WINDOW;
    assert!(pair.phone.usage.exposure <= bound);
    assert!(pair.phone.buffered_bytes() as u64 <= bound);
    assert!(pair.farm.buffered_bytes() <= SESSION_SEND_BUFFER + MAX_STREAMS * MIN_SEND_BUFFER);
    for id in &ids {
        assert!(pair.phone.streams[id].receive.granted() >= MIN_WINDOW);
    }
    // The first still moves bytes, many times what is free.
    let moved = download(&mut pair, ids[0], 100, Duration::from_millis(1), true);
    assert!(moved as u64 >= 50 * MIN_WINDOW / 2, "{moved}");
}

#[test]
fn shrinking_credit_is_ignored() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.phone.handle_frame(ack(id, 0, 0), pair.now).unwrap();
    write(&mut pair.phone, id, 1000);
    assert_eq!(drain(&mut pair.phone, pair.now).len(), 1);
}

#[test]
fn bulk_never_costs_an_ack_per_frame() {
    let mut pair = Pair::new();
    let id = pair.open();
    let (mut frames, mut acks) = (0, 0);
    for _ in 0..100 {
        while write(&mut pair.farm, id, 64 * 1024) > 0 {}
        for frame in drain(&mut pair.farm, pair.now) {
            frames += 1;
            pair.phone.handle_frame(frame, pair.now).unwrap();
            read_all(&mut pair.phone, id, pair.now);
            for frame in drain(&mut pair.phone, pair.now) {
                acks += 1;
                pair.farm.handle_frame(frame, pair.now).unwrap();
            }
        }
    }
    assert!(frames > 1000 && acks * 4 <= frames, "{acks} acks for {frames} frames");
}

#[test]
fn few_bytes_are_acknowledged_after_the_delay() {
    let mut pair = Pair::new();
    let id = pair.open();
    let began = pair.now;
    for _ in 0..10 {
        write(&mut pair.phone, id, 1);
        pair.exchange();
        read_all(&mut pair.farm, id, pair.now);
        pair.now += Duration::from_millis(1);
    }
    assert_eq!(pair.phone.buffered_bytes(), 10);
    let (at, why) = pair.farm.poll_timeout().unwrap();
    assert_eq!((at, why), (began + ACK_DELAY, "acks are due"));
    pair.farm.handle_timeout(at);
    assert_eq!(drain(&mut pair.farm, at).len(), 1, "one ack for all");
}

#[test]
fn tiny_reads_do_not_send_tiny_grants() {
    let mut pair = Pair::new();
    let id = pair.open();
    download(&mut pair, id, 10, Duration::from_millis(10), false);
    let mut acks = 0;
    for _ in 0..64 * 1024 {
        pair.phone.read(id, 1, pair.now).unwrap();
        acks += drain(&mut pair.phone, pair.now).len();
    }
    assert!(acks <= 4, "{acks} acks for 64 KiB read by bytes");
}

#[test]
fn a_sender_out_of_credit_hears_of_the_little_there_is_after_the_delay() {
    let mut pair = Pair::new();
    let id = pair.open();
    download(&mut pair, id, 10, Duration::from_millis(10), false);
    pair.settle();
    assert_eq!(pair.phone.poll_timeout(), None);
    pair.phone.read(id, 100, pair.now).unwrap();
    assert_eq!(pair.phone.poll_transmit(pair.now), None);
    let (at, _) = pair.phone.poll_timeout().unwrap();
    assert_eq!(at, pair.now + ACK_DELAY);
    pair.phone.handle_timeout(at);
    assert_eq!(drain(&mut pair.phone, at), [ack(id, INITIAL_WINDOW, INITIAL_WINDOW + 100)]);
}

#[test]
fn many_writers_in_a_tight_buffer_all_get_their_turn() {
    let mut pair = Pair::new();
    let mut ready: Vec<StreamId> = (0..MAX_STREAMS).map(|_| pair.open()).collect();
    let mut written = std::collections::BTreeMap::new();
    for _ in 0..200 {
        for id in ready.drain(..) {
            let mut taken = 1;
            while taken > 0 {
                taken = write(&mut pair.farm, id, 64 * 1024);
                *written.entry(id).or_insert(0) += taken;
            }
        }
        for frame in drain(&mut pair.farm, pair.now) {
            let id = frame.stream();
            pair.phone.handle_frame(frame, pair.now).unwrap();
            read_all(&mut pair.phone, id, pair.now);
        }
        pair.now += ACK_DELAY;
        pair.phone.handle_timeout(pair.now);
        for frame in drain(&mut pair.phone, pair.now) {
            pair.farm.handle_frame(frame, pair.now).unwrap();
        }
        for event in events(&mut pair.farm) {
            ready.extend(matches!(event, Event::Writable { .. }).then_some(event.stream()));
        }
    }
    let (least, most) = (written.values().min().unwrap(), written.values().max().unwrap());
    assert!(*least > 500_000 && most - least < *least, "{least} to {most}");
}

#[test]
fn a_sender_of_single_bytes_can_not_blow_up_memory() {
    let mut pair = Pair::new();
    let id = pair.open();
    for offset in 0..INITIAL_WINDOW {
        pair.farm.handle_frame(data(id, offset, b"x"), pair.now).unwrap();
        let receive = &pair.farm.streams[&id].receive;
        assert!(receive.pieces() <= 65 + 4 * receive.held() / 1024);
    }
    assert_eq!(pair.farm.buffered_bytes() as u64, INITIAL_WINDOW);
    assert_eq!(read_all(&mut pair.farm, id, pair.now).len() as u64, INITIAL_WINDOW);
}

#[test]
fn a_peer_that_never_acknowledges_bounds_what_is_kept_for_it() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..MAX_STREAMS).map(|_| pair.open()).collect();
    for id in &ids {
        pair.farm.handle_frame(ack(*id, 0, u64::MAX), pair.now).unwrap();
    }
    for _ in 0..50 {
        for id in &ids {
            write(&mut pair.farm, *id, 100_000);
        }
        drain(&mut pair.farm, pair.now);
        assert!(pair.farm.usage.in_flight <= IN_FLIGHT_LIMIT);
    }
    let bound = SESSION_SEND_BUFFER + MAX_STREAMS * MIN_SEND_BUFFER;
    assert!((SESSION_SEND_BUFFER..=bound).contains(&pair.farm.buffered_bytes()));
    pair.next_carrier();
    assert!(pair.farm.buffered_bytes() <= bound);
}

#[test]
fn a_refused_writer_is_told_when_there_is_room() {
    let mut pair = Pair::new();
    let id = pair.open();
    assert_eq!(write(&mut pair.phone, id, 2 * SEND_BUFFER), SEND_BUFFER);
    assert_eq!(write(&mut pair.phone, id, 1), 0);
    assert_eq!(events(&mut pair.phone), []);
    drain(&mut pair.phone, pair.now);
    assert_eq!(events(&mut pair.phone), [Event::Writable { id }]);
    assert!(write(&mut pair.phone, id, SEND_BUFFER) >= WRITABLE_ROOM);
}

#[test]
fn a_refused_writer_that_finished_is_told_nothing() {
    let mut pair = Pair::new();
    let id = pair.open();
    write(&mut pair.phone, id, 2 * SEND_BUFFER);
    pair.phone.finish(id).unwrap();
    drain(&mut pair.phone, pair.now);
    assert_eq!(events(&mut pair.phone), []);
}

#[test]
fn writers_refused_for_the_sake_of_others_are_told_when_those_are_gone() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..MAX_STREAMS).map(|_| pair.open()).collect();
    for id in &ids {
        while write(&mut pair.farm, *id, SEND_BUFFER) > 0 {}
    }
    events(&mut pair.farm);
    ids[1..].iter().for_each(|id| pair.farm.reset(*id, farm_protocol::frame::ResetReason::Aborted));
    let id = ids[0];
    while write(&mut pair.farm, id, SEND_BUFFER) > 0 {}
    drain(&mut pair.farm, pair.now);
    assert!(events(&mut pair.farm).contains(&Event::Writable { id }));
}
