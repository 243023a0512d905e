//! The world of one seed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::super::*;
use super::parts::{Plan, Program, Rng, Side, Tally};
use crate::mux::*;
use farm_protocol::frame::ResetReason;

static PATTERN: LazyLock<Pattern> = LazyLock::new(Pattern::new);

const PHONE: usize = 0;
const FARM: usize = 1;

/// Frames that a carrier holds at most, each way.
const CARRIER_ROOM: usize = 40;

/// Rounds in which everything must end once the carrier holds.
const HEALING_ROUNDS: usize = 5000;

/// Both ends and what is between them.
pub(super) struct World {
    rng: Rng,
    plan: Plan,
    config: Config,
    now: Instant,
    sides: [Side; 2],
    carrier: u64,
    /// Streams that a program reset, or whose farm restarted.
    disturbed: BTreeSet<StreamId>,
    max_streams: u64,
    max_write: u64,
    tally: Tally,
}

type Outcome = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng(seed);
        let heavy = rng.one_in(25);
        let max_payload = if heavy { 16_384 } else { 256 << rng.below(5) };
        let in_flight_limit = max_payload * (2 + rng.below(60) as usize);
        let config = Config { max_payload, in_flight_limit };
        let many = rng.one_in(10);
        let max_streams = 1 + rng.below(if many { 60 } else { 6 });
        let max_write = if heavy { 190_000 } else { 1 << (3 + rng.below(11)) };
        let sides = [Side::new(Role::Phone, config, 0), Side::new(Role::Farm, config, 0)];
        let mut world = Self {
            rng,
            plan,
            config,
            now: Instant::now(),
            sides,
            carrier: 1,
            disturbed: BTreeSet::new(),
            max_streams,
            max_write,
            tally: Tally::default(),
        };
        world.sides.iter_mut().for_each(|side| side.mux.forget_to_rewind = plan.forget_to_rewind);
        world
    }

    pub(super) fn run(mut self) -> Result<Tally, String> {
        for step in 0..400 {
            self.step().map_err(|what| format!("step {step}: {what}"))?;
        }
        for round in 0..HEALING_ROUNDS {
            self.heal().map_err(|what| format!("healing, round {round}: {what}"))?;
            if self.sides.iter().all(|side| side.streams.is_empty() && side.mux.stream_count() == 0) {
                return self.finally();
            }
        }
        let left: Vec<_> = self.sides.iter().map(|side| &side.streams).collect();
        Err(format!("hangs: {left:?}"))
    }

    fn finally(mut self) -> Result<Tally, String> {
        for side in &mut self.sides {
            must(side.mux.usage == Usage::default(), || format!("leaks {:?}", side.mux.usage))?;
            must(side.mux.deadlines.is_empty(), || "a deadline is left".to_owned())?;
        }
        Ok(self.tally)
    }

    fn step(&mut self) -> Outcome {
        let at = self.rng.below(2) as usize;
        match self.rng.below(100) {
            0..2 => self.cut(),
            2..8 => self.join(at),
            8..12 => self.open()?,
            12..30 => self.write(at)?,
            30..46 => self.read_some(at)?,
            46..48 => self.finish_one(at),
            48 if self.rng.one_in(3) => self.reset_one(at),
            49 if self.plan.farm_restarts && self.rng.one_in(4) => self.restart_farm(),
            50..54 => self.pass(),
            54..76 => self.transmit(at)?,
            _ => self.deliver(at)?,
        }
        self.hear(at)?;
        super::super::hostile::check(&self.sides[at].mux);
        Ok(())
    }

    /// Everything is lost; each end will notice in its own time.
    fn cut(&mut self) {
        self.carrier += 1;
        self.tally.cuts += 1;
        for side in &mut self.sides {
            self.tally.lost_frames += side.frames.len() as u64;
            side.frames.clear();
            side.hellos.clear();
        }
    }

    /// Notices that the carrier is gone, and says hello on the present one.
    fn join(&mut self, at: usize) {
        let side = &mut self.sides[at];
        if side.carrier == self.carrier {
            return;
        }
        side.mux.carrier_lost();
        if self.rng.one_in(5) {
            // An attempt that failed before it carried anything.
            side.mux.hello();
            side.mux.carrier_lost();
        }
        side.carrier = self.carrier;
        let hello = side.mux.hello();
        for state in &hello {
            let given = side.given.entry(state.stream).or_default();
            *given = state.credit.max(*given);
        }
        self.sides[1 - at].hellos.push_back(hello);
    }

    fn restart_farm(&mut self) {
        self.cut();
        self.tally.restarts += 1;
        self.disturbed.extend(self.sides[PHONE].streams.keys());
        self.disturbed.extend(self.sides[FARM].streams.keys());
        self.sides[FARM] = Side::new(Role::Farm, self.config, 0);
        self.sides[FARM].mux.forget_to_rewind = self.plan.forget_to_rewind;
    }

    fn open(&mut self) -> Outcome {
        let side = &mut self.sides[PHONE];
        if (side.streams.len() as u64) < self.max_streams {
            let id = side.mux.open("greenhouse").map_err(|error| error.to_string())?;
            side.streams.insert(id, Program::default());
        }
        Ok(())
    }

    fn pick(&mut self, at: usize) -> Option<StreamId> {
        let streams = &self.sides[at].streams;
        let nth = self.rng.below(streams.len().max(1) as u64) as usize;
        streams.keys().nth(nth).copied()
    }

    fn write(&mut self, at: usize) -> Outcome {
        let Some(id) = self.pick(at) else { return Ok(()) };
        let len = 1 + self.rng.below(self.max_write) as usize;
        let side = &mut self.sides[at];
        let Some(program) = side.streams.get_mut(&id).filter(|program| program.may_write()) else {
            return Ok(());
        };
        let bytes = PATTERN.slice(id, at == PHONE, program.written, len);
        let mut bytes = Bytes::copy_from_slice(bytes);
        let taken = side.mux.write(id, &mut bytes).map_err(|error| format!("write {id}: {error}"))?;
        must(taken + bytes.len() == len, || "write lost count".to_owned())?;
        program.written += taken as u64;
        program.waits_for_room = taken < len;
        Ok(())
    }

    fn read_some(&mut self, at: usize) -> Outcome {
        let Some(id) = self.pick(at) else { return Ok(()) };
        let max = 1 + self.rng.below(2 * self.max_write) as usize;
        self.read(at, id, max).map(drop)
    }

    fn read(&mut self, at: usize, id: StreamId, max: usize) -> Result<bool, String> {
        let side = &mut self.sides[at];
        let Some(program) = side.streams.get_mut(&id).filter(|program| program.readable) else {
            return Ok(false);
        };
        let Some(bytes) = side.mux.read(id, max, self.now) else {
            program.readable = false;
            return Ok(false);
        };
        let due = PATTERN.slice(id, at == FARM, program.read, bytes.len());
        must(bytes == due && bytes.len() <= max, || format!("stream {id}: wrong bytes at {}", program.read))?;
        program.read += bytes.len() as u64;
        self.tally.bytes += bytes.len() as u64;
        Ok(true)
    }

    fn finish_one(&mut self, at: usize) {
        if let Some(id) = self.pick(at) {
            self.finish(at, id);
        }
    }

    fn finish(&mut self, at: usize, id: StreamId) {
        let side = &mut self.sides[at];
        let program = side.streams.get_mut(&id).expect("picked");
        program.finished = true;
        side.mux.finish(id).expect("live");
    }

    fn reset_one(&mut self, at: usize) {
        if let Some(id) = self.pick(at) {
            self.sides[at].mux.reset(id, ResetReason::Aborted);
            self.sides[at].streams.remove(&id);
            self.disturbed.insert(id);
        }
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(self.rng.below(30));
        for side in &mut self.sides {
            side.mux.handle_timeout(self.now);
        }
    }

    fn transmit(&mut self, at: usize) -> Outcome {
        for _ in 0..=self.rng.below(CARRIER_ROOM as u64) {
            let lost = self.sides[at].carrier != self.carrier;
            if !lost && self.sides[1 - at].frames.len() >= CARRIER_ROOM {
                break;
            }
            let Some(frame) = self.sides[at].mux.poll_transmit(self.now) else { break };
            self.check_sent(at, &frame)?;
            if lost {
                self.tally.lost_frames += 1;
            } else {
                self.sides[1 - at].frames.push_back(frame);
            }
        }
        Ok(())
    }

    /// No side promises, acknowledges or sends what it may not.
    fn check_sent(&mut self, at: usize, frame: &Frame) -> Outcome {
        let [from, to] = if at == PHONE { [PHONE, FARM] } else { [FARM, PHONE] };
        let id = frame.stream();
        match frame {
            Frame::Open { credit, .. } => drop(self.sides[from].given.insert(id, *credit)),
            Frame::Ack { received, credit, .. } => {
                let given = self.sides[from].given.entry(id).or_default();
                must(*credit >= *given, || format!("stream {id}: credit shrinks"))?;
                *given = *credit;
                let sent = self.sides[to].sent.get(&id).copied().unwrap_or(0);
                must(*received <= sent || self.tally.restarts > 0, || {
                    format!("stream {id}: ack of {received}, sent was {sent}")
                })?;
            }
            Frame::Data { offset, bytes, .. } => {
                let end = offset + bytes.len() as u64;
                let given = self.sides[to].given.get(&id).copied().unwrap_or(0).max(MIN_WINDOW);
                must(end <= given || self.tally.restarts > 0, || {
                    format!("stream {id}: sent to {end}, credit is {given}")
                })?;
                must(bytes.len() <= self.config.max_payload, || "a long payload".to_owned())?;
                let sent = self.sides[from].sent.entry(id).or_default();
                self.tally.replayed_bytes += sent.saturating_sub(*offset);
                *sent = end.max(*sent);
            }
            Frame::Fin { offset, .. } => drop(self.sides[from].sent.insert(id, offset + 1)),
            Frame::Reset { .. } => {}
        }
        Ok(())
    }

    /// Delivers some of what is on its way to `at`, hello and frames in
    /// any order of the two.
    fn deliver(&mut self, at: usize) -> Outcome {
        for _ in 0..=self.rng.below(20) {
            let hello_first = self.rng.one_in(4);
            let side = &mut self.sides[at];
            if side.carrier != self.carrier {
                return Ok(());
            }
            if hello_first && let Some(hello) = side.hellos.pop_front() {
                side.mux.resume(&hello, self.now).map_err(|violation| violation.to_string())?;
            } else if let Some(frame) = side.frames.pop_front() {
                self.tally.early_frames += u64::from(!side.mux.is_resumed());
                side.mux.handle_frame(frame, self.now).map_err(|violation| violation.to_string())?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) -> Outcome {
        while let Some(event) = self.sides[at].mux.poll_event() {
            let id = event.stream();
            if let Event::Opened { .. } = event {
                let twice = self.sides[at].streams.insert(id, Program::default()).is_some();
                must(at == FARM && !twice, || format!("stream {id} was opened twice"))?;
                continue;
            }
            let other = self.sides[1 - at].streams.get(&id);
            let (other_finished, other_wrote) = other.map_or((true, None), |p| (p.finished, Some(p.written)));
            let program = self.sides[at].streams.get_mut(&id).ok_or(format!("{event:?} of no stream"))?;
            match event {
                Event::Finished { .. } => {
                    let all = other_wrote.is_none_or(|written| written == program.read);
                    must(all && (other_finished || self.disturbed.contains(&id)), || {
                        format!("{event:?} too early")
                    })?;
                    program.heard_end = true;
                }
                Event::Closed { .. } => {
                    must(program.finished && program.heard_end, || format!("{event:?} too early"))?;
                    self.sides[at].streams.remove(&id);
                    self.tally.completed += 1;
                }
                Event::Reset { reason, .. } => {
                    let expected = match reason {
                        ResetReason::Aborted => self.disturbed.contains(&id),
                        ResetReason::Restarted => self.tally.restarts > 0,
                        _ => false,
                    };
                    must(expected, || format!("{event:?} for no reason"))?;
                    self.sides[at].streams.remove(&id);
                    self.tally.reset += 1;
                }
                Event::Writable { .. } => program.waits_for_room = false,
                Event::Readable { .. } => program.readable = true,
                Event::Opened { .. } | Event::Established { .. } => {}
            }
        }
        Ok(())
    }

    /// The carrier holds, every program ends what it has begun.
    fn heal(&mut self) -> Outcome {
        for at in [PHONE, FARM] {
            self.join(at);
            let ids: Vec<StreamId> = self.sides[at].streams.keys().copied().collect();
            for id in ids {
                while self.read(at, id, 100_000)? {}
                if self.sides[at].streams.get(&id).is_some_and(Program::may_write) {
                    self.finish(at, id);
                }
            }
            self.transmit(at)?;
            self.deliver(at)?;
            self.hear(at)?;
            super::super::hostile::check(&self.sides[at].mux);
        }
        self.pass();
        Ok(())
    }
}
