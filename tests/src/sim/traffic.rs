//! The programs at both ends of a session's streams: what they write, and
//! that what they read is exactly what the other one wrote.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::frame::{Frame, ResetReason, StreamId, StreamState};
use farm_tunnel::mux::{self, Role};
use farm_tunnel::session::streams::SessionStreams;

use super::ctx::Ctx;

/// What a reader takes at once.
const READ_AT_ONCE: usize = 256 * 1024;

/// A prime, so that no frame size divides it.
const PERIOD: u64 = 65_521;

/// What programs write: from a place that depends on the stream, in circles.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = super::rng::Rng::new(7);
    let circle: Vec<u8> = (0..PERIOD).map(|_| rng.draw() as u8).collect();
    let thrice: Vec<u8> = circle.iter().cycle().take(3 * PERIOD as usize).copied().collect();
    Bytes::from(thrice)
});

fn pattern(plan: usize, from: Side, offset: u64, length: usize) -> Bytes {
    let start = (plan as u64 * 7919 + from as u64 * 31_337 + offset) % PERIOD;
    let start = start as usize;
    PATTERN.slice(start..start + length.min(PERIOD as usize))
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The phone's.
    Phone = 0,
    /// The farm's.
    Farm = 1,
}

impl Side {
    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::Phone => Self::Farm,
            Self::Farm => Self::Phone,
        }
    }
}

/// How a program at one end behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Bytes that it writes.
    pub writes: u64,
    /// At most so many at once, with this pause.
    pub drip: Option<(usize, Duration)>,
    /// Reads at most so many at once, with this pause.
    pub sips: Option<(usize, Duration)>,
    /// Resets the stream after it has read so much.
    pub aborts: Option<u64>,
}

/// How a stream ended at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both directions, in good order.
    Well,
    /// The program reset it.
    Aborted,
    /// It was reset.
    Reset(ResetReason),
    /// The process died.
    Died,
}

/// One stream: what both programs do with it, and what became of it.
#[derive(Debug)]
pub struct Plan {
    /// Which phone opened it.
    pub phone: usize,
    /// To which farm.
    pub farm: usize,
    /// Both ends, by [`Side`].
    pub manners: [Manner; 2],
    /// What each wrote.
    pub written: [u64; 2],
    /// Which declared their end.
    pub finished: [bool; 2],
    /// How it ended at each.
    pub ended: [Option<Ended>; 2],
    /// A process at one of the ends died, or the farm ended the session.
    pub bereaved: bool,
    /// The farm gave the session up after its time.
    pub expired: bool,
    /// Its session was ended on purpose, or belongs to a hostile phone.
    pub excused: bool,
    /// A program at the farm had it before; it may begin again only in another run.
    pub farm_runs: u64,
}

#[derive(Debug)]
struct Program {
    plan: usize,
    wrote: u64,
    read: u64,
    finished: bool,
    blocked: bool,
    readable: bool,
    write_at: Instant,
    read_at: Instant,
}

/// One end of a session's streams with its programs.
#[derive(Debug)]
pub struct SessionEnd {
    /// The streams.
    pub streams: SessionStreams,
    side: Side,
    programs: BTreeMap<StreamId, Program>,
    /// Up to where each stream was ever sent; for a defect that believes in it.
    sent: BTreeMap<StreamId, u64>,
}

impl SessionEnd {
    /// Without streams.
    pub fn new(side: Side) -> Self {
        let role = match side {
            Side::Phone => Role::Phone,
            Side::Farm => Role::Farm,
        };
        Self { streams: SessionStreams::new(role), side, programs: BTreeMap::new(), sent: BTreeMap::new() }
    }

    /// A program opens a stream; `false` where that is not possible now.
    pub fn open(&mut self, plan: usize, ctx: &Ctx) -> bool {
        let Ok(id) = self.streams.open(&format!("service-{plan}")) else { return false };
        self.programs.insert(id, Program::new(plan, ctx.now));
        true
    }

    /// A frame leaves.
    pub fn sent(&mut self, frame: &Frame) {
        if let Frame::Data { stream, offset, bytes } = frame {
            let sent = self.sent.entry(*stream).or_default();
            *sent = (*sent).max(offset + bytes.len() as u64);
        }
    }

    /// The defect of a sender that does not go back to where the receiver is.
    pub fn pretend_received(&self, peer: &mut [StreamState]) {
        for state in peer {
            state.received = state.received.max(self.sent.get(&state.stream).copied().unwrap_or(0));
        }
    }

    /// How many streams are open.
    pub fn count(&self) -> usize {
        self.streams.mux().stream_count()
    }

    /// When a program wants to go on.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.programs
            .values()
            .flat_map(|p| {
                let write = (!p.blocked && !p.finished).then_some(p.write_at);
                let read = p.readable.then_some(p.read_at);
                [write, read]
            })
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// The process dies, and its programs with it.
    pub fn died(&mut self, ctx: &mut Ctx) {
        for program in self.programs.values() {
            let plan = &mut ctx.plans[program.plan];
            plan.bereaved = true;
            plan.ended[self.side as usize].get_or_insert(Ended::Died);
        }
        self.programs.clear();
    }

    /// Lets the programs do what they can.
    pub fn run(&mut self, ctx: &mut Ctx) {
        self.hear(ctx);
        let ids: Vec<StreamId> = self.programs.keys().copied().collect();
        for id in ids {
            self.read(id, ctx);
            self.write(id, ctx);
        }
        self.hear(ctx);
        let (held, most) = (self.streams.mux().buffered_bytes(), mux::MAX_BUFFERED);
        if held > most {
            ctx.violate("bounded", format!("a session holds {held} bytes of at most {most}"));
        }
    }

    fn hear(&mut self, ctx: &mut Ctx) {
        while let Some(event) = self.streams.mux_mut().poll_event() {
            let id = event.stream();
            match event {
                mux::Event::Opened { target, .. } => self.opened(id, &target, ctx),
                mux::Event::Readable { .. } => self.program(id, |p| p.readable = true),
                mux::Event::Writable { .. } => self.program(id, |p| p.blocked = false),
                mux::Event::Established { .. } => {}
                mux::Event::Finished { .. } => self.heard_end(id, ctx),
                mux::Event::Closed { .. } => self.ended(id, Ended::Well, ctx),
                mux::Event::Reset { reason, .. } => self.ended(id, Ended::Reset(reason), ctx),
            }
        }
    }

    fn program(&mut self, id: StreamId, change: impl FnOnce(&mut Program)) {
        if let Some(program) = self.programs.get_mut(&id) {
            change(program);
        }
    }

    fn opened(&mut self, id: StreamId, target: &str, ctx: &mut Ctx) {
        let plan = target.strip_prefix("service-").and_then(|n| n.parse::<usize>().ok());
        let Some(plan) = plan.filter(|plan| *plan < ctx.plans.len()) else {
            return self.streams.mux_mut().reset(id, ResetReason::UnknownService);
        };
        let known = &mut ctx.plans[plan];
        known.farm_runs += 1;
        let twice = known.farm_runs > 1 && !known.bereaved && !known.expired && !known.excused;
        known.written[Side::Farm as usize] = 0;
        known.ended[Side::Farm as usize] = None;
        known.finished[Side::Farm as usize] = false;
        if twice {
            ctx.violate("streams", format!("stream {id} (plan {plan}) was opened twice at the farm"));
        }
        self.programs.insert(id, Program::new(plan, ctx.now));
    }

    fn heard_end(&mut self, id: StreamId, ctx: &mut Ctx) {
        let Some(program) = self.programs.get(&id) else { return };
        let other = self.side.other() as usize;
        let plan = &ctx.plans[program.plan];
        if !plan.excused && (program.read != plan.written[other] || !plan.finished[other]) {
            let what = format!(
                "stream {id} (plan {}): the end after {} bytes, {} were written",
                program.plan, program.read, plan.written[other]
            );
            ctx.violate("streams", what);
        }
    }

    fn ended(&mut self, id: StreamId, how: Ended, ctx: &mut Ctx) {
        let Some(program) = self.programs.remove(&id) else { return };
        let plan = &mut ctx.plans[program.plan];
        plan.ended[self.side as usize] = Some(how);
        let other = plan.ended[self.side.other() as usize];
        let stated = match how {
            Ended::Well => {
                let both = program.finished && plan.finished[self.side.other() as usize];
                ctx.stats.streams += u64::from(self.side == Side::Phone);
                both
            }
            Ended::Reset(ResetReason::Aborted) => other == Some(Ended::Aborted),
            Ended::Reset(ResetReason::Restarted) => plan.bereaved || plan.expired,
            Ended::Reset(ResetReason::Expired) => plan.expired,
            Ended::Reset(_) | Ended::Aborted | Ended::Died => false,
        };
        ctx.stats.resets += u64::from(how != Ended::Well);
        if !stated && !plan.excused {
            let what = format!("stream {id} (plan {}) at the {:?} ended: {how:?}", program.plan, self.side);
            ctx.violate("streams", what);
        }
    }

    fn read(&mut self, id: StreamId, ctx: &mut Ctx) {
        loop {
            let Some(program) = self.programs.get_mut(&id) else { return };
            if !program.readable || program.read_at > ctx.now {
                return;
            }
            let manner = ctx.plans[program.plan].manners[self.side as usize];
            let most = manner.sips.map_or(READ_AT_ONCE, |(most, _)| most);
            let Some(bytes) = self.streams.mux_mut().read(id, most, ctx.now) else {
                program.readable = false;
                return;
            };
            let (plan, at) = (program.plan, program.read);
            program.read += bytes.len() as u64;
            if let Some((_, pause)) = manner.sips {
                program.read_at = ctx.now + pause;
            }
            let aborts = manner.aborts.is_some_and(|after| program.read >= after);
            ctx.stats.bytes += bytes.len() as u64;
            if !ctx.plans[plan].excused && !matches_pattern(&bytes, plan, self.side.other(), at) {
                ctx.violate("streams", format!("stream {id} (plan {plan}): wrong bytes after {at}"));
            }
            if aborts {
                self.streams.mux_mut().reset(id, ResetReason::Aborted);
                self.programs.remove(&id);
                ctx.plans[plan].ended[self.side as usize] = Some(Ended::Aborted);
                return;
            }
        }
    }

    fn write(&mut self, id: StreamId, ctx: &mut Ctx) {
        loop {
            let Some(program) = self.programs.get_mut(&id) else { return };
            if program.finished || program.blocked || program.write_at > ctx.now {
                return;
            }
            let plan = &mut ctx.plans[program.plan];
            let manner = plan.manners[self.side as usize];
            let left = manner.writes - program.wrote;
            if left == 0 {
                program.finished = true;
                plan.finished[self.side as usize] = true;
                // A stream that was reset meanwhile says so by an event.
                let _ = self.streams.mux_mut().finish(id);
                return;
            }
            let most = manner.drip.map_or(60 * 1024, |(most, _)| most);
            let length = usize::try_from(left).unwrap_or(most).min(most);
            let mut bytes = pattern(program.plan, self.side, program.wrote, length);
            let Ok(taken) = self.streams.mux_mut().write(id, &mut bytes) else { return };
            program.wrote += taken as u64;
            plan.written[self.side as usize] = program.wrote;
            program.blocked = !bytes.is_empty();
            if let Some((_, pause)) = manner.drip {
                program.write_at = ctx.now + pause;
            }
        }
    }
}

impl Program {
    fn new(plan: usize, now: Instant) -> Self {
        Self {
            plan,
            wrote: 0,
            read: 0,
            finished: false,
            blocked: false,
            readable: false,
            write_at: now,
            read_at: now,
        }
    }
}

fn matches_pattern(bytes: &[u8], plan: usize, from: Side, mut offset: u64) -> bool {
    bytes.chunks(PERIOD as usize).all(|chunk| {
        let same = pattern(plan, from, offset, chunk.len()) == chunk;
        offset += chunk.len() as u64;
        same
    })
}
