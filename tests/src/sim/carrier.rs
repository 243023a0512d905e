//! One end of a carrier: what `farm_tunnel::carrier`'s worker does, on the
//! virtual network.

use std::time::{Duration, Instant};

use farm_protocol::control::{Control, Goodbye, GoodbyeReason, Hello};
use farm_protocol::frame::{Frame, StreamState};
use farm_protocol::id::BootId;
use farm_protocol::ping::Ping;
use farm_tunnel::carrier::conduct::{Action, Data, Greeting, Supervision};
use farm_tunnel::carrier::{CarrierId, Note};
use farm_tunnel::health;
use farm_tunnel::session::streams::Outgoing;

use super::ctx::{Ctx, Event};
use super::mutation::Mutation;
pub use super::peer::{Peer, PeerId};
use super::pipe::Parcel;
use super::traffic::SessionEnd;

/// Between a goodbye and the close.
const GOODBYE: Duration = Duration::from_millis(20);

/// An open carrier.
#[derive(Debug)]
struct Open {
    supervision: Supervision,
    greeting: Greeting,
    hello: Hello,
    attached: bool,
    heard: u64,
    /// When the streams have something to do without anybody's doing.
    work_at: Option<Instant>,
    pings: u32,
}

#[derive(Debug)]
enum Stage {
    Opening,
    Open(Box<Open>),
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct CarrierEnd {
    /// Which one it is.
    pub id: CarrierId,
    /// Its engine.
    pub peer: PeerId,
    boot: BootId,
    watched: bool,
    stage: Stage,
    notes: Vec<Note>,
}

impl CarrierEnd {
    /// Takes over a connection that is being opened.
    pub fn new(id: CarrierId, peer: PeerId, boot: BootId, watched: bool) -> Self {
        Self { id, peer, boot, watched, stage: Stage::Opening, notes: Vec::new() }
    }

    /// What it reports.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether it pings.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Open(open) => open.supervision.poll_timeout().into_iter().chain(open.work_at).min(),
            _ => None,
        }
    }

    /// The channels are open.
    pub fn opened(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        if !matches!(self.stage, Stage::Opening) {
            return;
        }
        let Some(streams) = end.streams.greet(self.id.epoch) else {
            // Ends without a note, as the worker does.
            self.stage = Stage::Over;
            return ctx.close_peer(self.peer);
        };
        end.run(ctx);
        let hello = Hello {
            session: self.id.session,
            epoch: self.id.epoch,
            boot: self.boot,
            streams,
            watched: self.watched,
            burst: None,
        };
        self.stage = Stage::Open(Box::new(Open {
            supervision: Supervision::new(self.watched, ctx.now),
            greeting: Greeting::default(),
            hello: hello.clone(),
            attached: false,
            heard: 0,
            work_at: None,
            pings: 0,
        }));
        self.say(Control::Hello(hello), ctx);
        self.notes.push(Note::Opened);
        self.notes.push(Note::Path(ctx.peer_path(self.peer)));
        self.obey(end, ctx);
    }

    /// Something on the control channel.
    pub fn control(&mut self, control: Control, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        let (again, note) = open.greeting.take(control);
        if again {
            let hello = open.hello.clone();
            self.say(Control::Hello(hello), ctx);
        }
        self.notes.extend(note);
        self.trust(end, ctx);
    }

    /// A frame.
    pub fn frame(&mut self, frame: Frame, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        open.heard += 1;
        if ctx.is_mutated(Mutation::LostAck) && matches!(frame, Frame::Ack { .. }) && ctx.rng.chance(0.5) {
            return;
        }
        if let Err(violation) = end.streams.frame(self.id.epoch, frame, ctx.now) {
            return self.lost(violation.to_string(), end, ctx);
        }
        end.run(ctx);
        self.trust(end, ctx);
    }

    /// A ping or an answer.
    pub fn ping(&mut self, ping: Ping, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        match ping {
            Ping::Ping(number) => {
                ctx.peer_ping(self.peer, Ping::Pong(number));
                open.supervision.handle(health::Event::PingReceived, ctx.now);
            }
            Ping::Pong(number) => {
                open.supervision.handle(health::Event::PingAnswered(number), ctx.now);
                if let Some(rtt) = open.supervision.state(ctx.now).rtt {
                    end.streams.mux_mut().set_round_trip_time(rtt);
                }
            }
        }
        self.obey(end, ctx);
        self.trust(end, ctx);
    }

    /// The defect of a monitor that takes whatever is heard for an answer.
    fn trust(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        if ctx.is_mutated(Mutation::TrustTraffic)
            && let Stage::Open(open) = &mut self.stage
        {
            let last = open.pings.wrapping_sub(1);
            open.supervision.handle(health::Event::PingAnswered(last), ctx.now);
            self.obey(end, ctx);
        }
    }

    /// The lifecycle made this the session's carrier.
    pub fn attach(&mut self, mut streams: Vec<StreamState>, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        if std::mem::replace(&mut open.attached, true) {
            return;
        }
        if ctx.is_mutated(Mutation::NoRewind) {
            end.pretend_received(&mut streams);
        }
        if let Err(violation) = end.streams.resume(self.id.epoch, &streams, ctx.now) {
            return self.lost(violation.to_string(), end, ctx);
        }
        end.run(ctx);
        self.pump(end, ctx);
    }

    /// Sends what the streams have, while there is room.
    pub fn pump(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        open.work_at = None;
        if !open.attached {
            return;
        }
        while ctx.peer_has_room(self.peer) {
            match end.streams.next_frame(self.id.epoch, ctx.now) {
                Outgoing::Frame(frame) => {
                    end.sent(&frame);
                    open.supervision.sent(open.heard, ctx.now);
                    ctx.peer_push(self.peer, Parcel::Frame(frame));
                }
                Outgoing::Idle(until) => {
                    open.work_at = until;
                    break;
                }
                Outgoing::Superseded => break,
            }
        }
        end.run(ctx);
    }

    /// Says something on the control channel.
    pub fn say(&mut self, control: Control, ctx: &mut Ctx) {
        if self.is_open() {
            ctx.peer_push(self.peer, Parcel::Control(control));
        }
    }

    /// Whether somebody looks.
    pub fn set_watched(&mut self, watched: bool, end: &mut SessionEnd, ctx: &mut Ctx) {
        self.watched = watched;
        self.tell(health::Event::Attention { watched }, end, ctx);
    }

    /// Pings must show at once whether this still works.
    pub fn suspect(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        self.tell(health::Event::NetworkChanged, end, ctx);
    }

    fn tell(&mut self, event: health::Event, end: &mut SessionEnd, ctx: &mut Ctx) {
        if let Stage::Open(open) = &mut self.stage {
            open.supervision.handle(event, ctx.now);
            self.obey(end, ctx);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        let Stage::Open(open) = &mut self.stage else { return };
        if open.supervision.poll_timeout().is_some_and(|at| at <= ctx.now) {
            let owed = end.streams.mux().in_flight() > 0;
            open.supervision.handle_timeout(Data { heard: open.heard, owed }, ctx.now);
            if let Some(at) = open.supervision.poll_timeout().filter(|at| *at <= ctx.now) {
                let late = ctx.now - at;
                ctx.violate("deadlines", format!("the supervision is still due, {late:?} late"));
            }
        }
        let work = open.work_at.is_some_and(|at| at <= ctx.now);
        self.obey(end, ctx);
        if work {
            self.pump(end, ctx);
        }
    }

    /// The engine lost it, or the other side broke the rules.
    pub fn lost(&mut self, why: String, end: &mut SessionEnd, ctx: &mut Ctx) {
        if !matches!(self.stage, Stage::Over) {
            self.over(end, ctx);
            ctx.close_peer(self.peer);
            self.notes.push(Note::Lost(why));
        }
    }

    /// Its owner closes it.
    pub fn close(&mut self, reason: GoodbyeReason, mut end: Option<&mut SessionEnd>, ctx: &mut Ctx) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        if let Some(end) = end.as_deref_mut() {
            self.tell_resets(reason, end, ctx);
        }
        self.say(Control::Goodbye(Goodbye { reason }), ctx);
        match end {
            Some(end) => self.over(end, ctx),
            None => self.stage = Stage::Over,
        }
        ctx.schedule(ctx.now + GOODBYE, Event::ClosePeer(self.peer));
    }

    /// The streams of an ended session were reset, and this carrier is the
    /// last that can say so.
    pub fn tell_resets(&mut self, reason: GoodbyeReason, end: &mut SessionEnd, ctx: &mut Ctx) {
        use GoodbyeReason::{Revoked, SessionEnded, Stopping, TakenOver};
        if !matches!(reason, Revoked | SessionEnded | Stopping | TakenOver) || !self.is_open() {
            return;
        }
        while let Outgoing::Frame(frame) = end.streams.next_frame(self.id.epoch, ctx.now) {
            if let Frame::Reset { .. } = frame {
                ctx.peer_push(self.peer, Parcel::Frame(frame));
            }
        }
    }

    fn over(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        self.stage = Stage::Over;
        end.streams.lost(self.id.epoch);
        end.run(ctx);
    }

    fn obey(&mut self, end: &mut SessionEnd, ctx: &mut Ctx) {
        while let Stage::Open(open) = &mut self.stage
            && let Some(action) = open.supervision.poll_action()
        {
            match action {
                Action::Send(ping) => {
                    open.pings = open.pings.wrapping_add(1);
                    ctx.peer_ping(self.peer, ping);
                    if ctx.is_mutated(Mutation::TrustTraffic) {
                        let last = open.pings.wrapping_sub(1);
                        open.supervision.handle(health::Event::PingAnswered(last), ctx.now);
                    }
                }
                Action::Dead(why) => return self.lost(why, end, ctx),
                Action::Grade(_) => {}
            }
        }
    }
}
