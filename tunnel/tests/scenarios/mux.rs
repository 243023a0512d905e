//! The phone's multiplexer against the farm's, over carriers that come and go.
//! Bytes are not written down: what is at an offset follows from [`byte`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use farm_protocol::frame::{Frame, ResetReason, StreamState};
use farm_tunnel::mux::{Config, Event, Mux, Role};
use serde_json::{Value, json};

use super::Run;

const STEPS: usize = 400;

/// The byte at an offset of a stream, from the phone or from the farm.
fn byte(stream: u32, from_farm: bool, offset: u64) -> u8 {
    let mixed =
        offset.wrapping_mul(31).wrapping_add(u64::from(stream) * 17).wrapping_add(u64::from(from_farm));
    (mixed & 0xff) as u8
}

fn bytes(stream: u32, from_farm: bool, offset: u64, length: u64) -> Bytes {
    (offset..offset + length).map(|at| byte(stream, from_farm, at)).collect()
}

struct Bench {
    run: Run,
    phone: Mux,
    farm: Mux,
    to_phone: VecDeque<Frame>,
    to_farm: VecDeque<Frame>,
    /// Bytes written so far, by stream: from the phone, from the farm.
    written: BTreeMap<u32, (u64, u64)>,
    read: BTreeMap<u32, u64>,
    steps: Vec<Value>,
}

pub(super) fn run(seed: u64) -> Value {
    let run = Run::new(seed);
    let config = Config::default();
    let mut bench = Bench {
        run,
        phone: Mux::new(Role::Phone, config),
        farm: Mux::new(Role::Farm, config),
        to_phone: VecDeque::new(),
        to_farm: VecDeque::new(),
        written: BTreeMap::new(),
        read: BTreeMap::new(),
        steps: Vec::new(),
    };
    bench.carrier();
    for _ in 0..STEPS {
        bench.run.wait(Duration::from_millis(15));
        bench.step();
    }
    json!({ "name": format!("mux {seed}"), "steps": bench.steps })
}

impl Bench {
    fn step(&mut self) {
        let streams: Vec<u32> = self.written.keys().copied().collect();
        let stream = match streams.len() as u64 {
            0 => 1,
            count => streams[self.run.pick(count) as usize],
        };
        match self.run.pick(60) {
            0..=3 => self.open(),
            4..=12 => self.write(stream),
            13..=20 => self.farm_write(stream),
            21..=28 => self.read(stream),
            29..=32 => self.farm_read(stream),
            33..=46 => self.exchange(),
            47..=48 => self.finish(stream),
            49..=50 => {
                // Errors are about streams that have gone.
                let _ = self.farm.finish(stream);
            }
            51 if self.run.pick(4) == 0 => {
                self.phone.reset(stream, ResetReason::Aborted);
                self.note(json!({ "call": "reset", "id": stream, "reason": "aborted" }));
            }
            52 if self.run.pick(4) == 0 => self.farm.reset(stream, ResetReason::ServiceUnavailable),
            53..=54 => self.timeout(),
            55 if self.run.pick(3) == 0 => self.carrier(),
            56 => {
                let span = Duration::from_millis(1 + self.run.pick(300));
                self.phone.set_round_trip_time(span);
                self.note(json!({ "call": "round_trip", "span": super::nanos(span) }));
            }
            _ => self.transmit(),
        }
    }

    fn open(&mut self) {
        let id = self.phone.open("greenhouse").expect("few are open");
        self.written.insert(id, (0, 0));
        self.note(json!({ "call": "open", "target": "greenhouse", "id": id }));
    }

    fn write(&mut self, id: u32) {
        let Some(&(offset, _)) = self.written.get(&id) else { return };
        let length = 1 + self.run.pick(90_000);
        let mut given = bytes(id, false, offset, length);
        let taken = self.phone.write(id, &mut given).ok();
        if let (Some(taken), Some(written)) = (taken, self.written.get_mut(&id)) {
            written.0 += taken as u64;
        }
        self.note(json!({ "call": "write", "id": id, "offset": offset, "length": length, "taken": taken }));
    }

    fn farm_write(&mut self, id: u32) {
        let Some(&(_, offset)) = self.written.get(&id) else { return };
        let length = 1 + self.run.pick(90_000);
        let mut given = bytes(id, true, offset, length);
        if let (Ok(taken), Some(written)) = (self.farm.write(id, &mut given), self.written.get_mut(&id)) {
            written.1 += taken as u64;
        }
    }

    fn read(&mut self, id: u32) {
        let max = 1 + self.run.pick(200_000) as usize;
        let got = self.phone.read(id, max, self.run.now);
        let offset = self.read.entry(id).or_default();
        if let Some(got) = &got {
            assert_eq!(*got, bytes(id, true, *offset, got.len() as u64), "stream {id} at {offset}");
            *offset += got.len() as u64;
        }
        let length = got.map(|got| got.len());
        self.note(json!({ "call": "read", "id": id, "max": max, "length": length }));
    }

    fn farm_read(&mut self, id: u32) {
        while self.farm.read(id, 50_000, self.run.now).is_some() {}
        while self.farm.poll_event().is_some() {}
    }

    fn finish(&mut self, id: u32) {
        let done = self.phone.finish(id).is_ok();
        self.note(json!({ "call": "finish", "id": id, "done": done }));
    }

    /// Frames both ways, as many as there are up to a few.
    fn exchange(&mut self) {
        for _ in 0..1 + self.run.pick(12) {
            self.transmit();
            while let Some(frame) = self.to_farm.pop_front() {
                self.farm.handle_frame(frame, self.run.now).expect("the phone keeps to the protocol");
            }
            while self.farm.poll_event().is_some() {}
            self.farm.handle_timeout(self.run.now);
            self.to_phone.extend(self.farm.poll_transmit(self.run.now));
            if let Some(frame) = self.to_phone.pop_front() {
                let shown = written(&frame);
                self.phone.handle_frame(frame, self.run.now).expect("the farm keeps to the protocol");
                self.note(json!({ "call": "frame", "frame": shown }));
            }
        }
    }

    fn transmit(&mut self) {
        let frame = self.phone.poll_transmit(self.run.now);
        let shown = frame.as_ref().map(written);
        self.to_farm.extend(frame);
        self.note(json!({ "call": "transmit", "frame": shown }));
    }

    fn timeout(&mut self) {
        if let Some((at, _)) = self.phone.poll_timeout() {
            self.run.until(at);
        }
        self.phone.handle_timeout(self.run.now);
        self.note(json!({ "call": "timeout" }));
    }

    /// The carrier is lost with what was on it, and a new one comes up.
    fn carrier(&mut self) {
        self.to_phone.clear();
        self.to_farm.clear();
        self.phone.carrier_lost();
        self.note(json!({ "call": "carrier_lost" }));
        self.farm.carrier_lost();
        let ours = self.phone.hello();
        self.note(json!({ "call": "hello", "streams": states(&ours) }));
        let theirs = self.farm.hello();
        self.phone.resume(&theirs, self.run.now).expect("a first hello");
        self.note(json!({ "call": "resume", "streams": states(&theirs) }));
        self.farm.resume(&ours, self.run.now).expect("a first hello");
    }

    fn note(&mut self, mut call: Value) {
        let mut events = Vec::new();
        while let Some(event) = self.phone.poll_event() {
            events.push(match event {
                Event::Established { id } => json!({ "kind": "established", "id": id }),
                Event::Readable { id } => json!({ "kind": "readable", "id": id }),
                Event::Writable { id } => json!({ "kind": "writable", "id": id }),
                Event::Finished { id } => json!({ "kind": "finished", "id": id }),
                Event::Closed { id } => json!({ "kind": "closed", "id": id }),
                Event::Reset { id, reason } => json!({ "kind": "reset", "id": id, "reason": name(reason) }),
                Event::Opened { .. } => unreachable!("only farms are opened to"),
            });
        }
        call["at"] = self.run.at(self.run.now);
        if !events.is_empty() {
            call["events"] = json!(events);
        }
        call["timeout"] = json!(self.phone.poll_timeout().map(|(at, _)| self.run.at(at)));
        call["held"] =
            json!([self.phone.buffered_bytes(), self.phone.in_flight(), self.phone.stream_count()]);
        self.steps.push(call);
    }
}

fn states(states: &[StreamState]) -> Value {
    states.iter().map(|s| json!({ "s": s.stream, "r": s.received, "c": s.credit })).collect()
}

fn name(reason: ResetReason) -> Value {
    match reason {
        ResetReason::Aborted => json!("aborted"),
        ResetReason::ServiceUnavailable => json!("service_unavailable"),
        ResetReason::Restarted => json!("restarted"),
        other => unreachable!("{other:?} is not provoked here"),
    }
}

fn written(frame: &Frame) -> Value {
    match frame {
        Frame::Open { stream, target, credit } => {
            json!({ "kind": "open", "stream": stream, "target": target, "credit": credit })
        }
        Frame::Data { stream, offset, bytes } => {
            json!({ "kind": "data", "stream": stream, "offset": offset, "length": bytes.len() })
        }
        Frame::Ack { stream, received, credit } => {
            json!({ "kind": "ack", "stream": stream, "received": received, "credit": credit })
        }
        Frame::Fin { stream, offset } => json!({ "kind": "fin", "stream": stream, "offset": offset }),
        Frame::Reset { stream, reason } => {
            json!({ "kind": "reset", "stream": stream, "reason": name(*reason) })
        }
    }
}
