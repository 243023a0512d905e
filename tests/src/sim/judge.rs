//! The invariants that are looked at from outside: at every step where cheap,
//! and after the healing.

use std::time::Duration;

use farm_tunnel::health::{UNWATCHED_INTERVAL, WATCHED_INTERVAL};

use farm_tunnel::session::{CONNECT_DEADLINE, HELLO_DEADLINE, PARKED_FOR};

use super::ctx::NodeId;
use super::world::World;
use super::{farm, phone};

/// From the healing until a watched session is live again. What the longest
/// chain of waits adds up to is derived in docs/simulation.md.
pub const WATCHED_BOUND: Duration = Duration::from_secs(90);

/// The same for a session at which nobody looks.
pub const UNWATCHED_BOUND: Duration = Duration::from_secs(400);

/// From live to the end of every stream: the slowest programs of a run write
/// and read for less than this.
pub const STREAMS_BOUND: Duration = Duration::from_secs(150);

/// From the end of a path to the verdict: the next ping, a look of ours, the
/// time to doubt it, the quick pings, and the longest that the last may be
/// overdue (`health::timing`).
pub const WATCHED_DEATH: Duration =
    Duration::from_millis(WATCHED_INTERVAL.as_millis() as u64 + 1_000 + 1_000 + 600 + 5_000);

/// The same where the round trip is below [`SHORT_TRIP`] and next to nothing is
/// lost: `WATCHED_LIMIT` after the last answer, which may be a round trip
/// younger than the fault.
pub const SHORT_DEATH: Duration = Duration::from_millis(3_000 + 300 + 300);

/// See [`SHORT_DEATH`].
pub const SHORT_TRIP: Duration = Duration::from_millis(300);

/// The same while nobody looks.
pub const UNWATCHED_DEATH: Duration =
    Duration::from_millis(UNWATCHED_INTERVAL.as_millis() as u64 + 20_000 + 1_000 + 3_750 + 5_000);

/// Devices are looked at once in a few events: an idle farm's heartbeats are a
/// minute apart.
const STEP: Duration = Duration::from_secs(60);

impl World {
    /// What must hold at every step, of one device.
    pub fn check(&mut self, node: NodeId) {
        let wrong = match node {
            NodeId::Farm(place) => self.farms[place].process.as_ref().and_then(|p| check_farm(p, place)),
            NodeId::Phone(place) => self.phones[place].process.as_ref().and_then(|p| check_phone(p, place)),
        };
        if let Some((invariant, what)) = wrong {
            self.ctx.violate(invariant, what);
        }
        match node {
            NodeId::Phone(place) => self.check_path(place),
            NodeId::Farm(place) => self.check_waiting(place),
        }
    }

    /// No session waits for a carrier for longer than it may.
    fn check_waiting(&mut self, place: usize) {
        let node = &mut self.farms[place];
        let Some(process) = node.process.as_ref() else { return node.waiting.clear() };
        let sessions = process.lifecycle.snapshot();
        node.waiting.retain(|id, _| sessions.iter().any(|s| s.session == *id && s.live.is_none()));
        for session in sessions.iter().filter(|s| s.live.is_none()) {
            let now = (session.connecting, self.ctx.now);
            let known = node.waiting.entry(session.session).or_insert(now);
            if known.0 != session.connecting {
                // Parked again: the time since the loss of the live one counts on.
                known.0 = session.connecting;
            }
            if self.ctx.now - known.1 > PARKED_FOR + CONNECT_DEADLINE + HELLO_DEADLINE + STEP {
                let what = format!("farm {place} keeps {} without a carrier", session.session);
                return self.ctx.violate("nothing stale", what);
            }
        }
    }

    /// The network got better: devices are looked at only now and then, and a
    /// path that was whole in between has not been gone all the time.
    pub fn look_at_paths(&mut self) {
        (0..self.phones.len()).for_each(|place| self.check_path(place));
    }

    /// A carrier whose path is gone does not count as live for long.
    fn check_path(&mut self, place: usize) {
        let node = &mut self.phones[place];
        let live = node.process.as_ref().filter(|_| node.asleep.is_none()).and_then(|p| {
            let slot = p.carriers.get(&p.session.live()?)?;
            let phone::Held::Running(carrier, _) = slot else { return None };
            (!self.ctx.peer_path_works(carrier.peer)).then_some((carrier.id.epoch, p.is_watched()))
        });
        let now = self.ctx.now;
        let Some((epoch, watched)) = live else {
            node.dead_since = None;
            return;
        };
        let since = match node.dead_since {
            // Whoever begins to look at a path that has been gone for a while
            // finds out from then on.
            Some((known, since, looked)) if known == epoch && (looked || !watched) => since,
            _ => now,
        };
        node.dead_since = Some((epoch, since, watched));
        let farm = &self.ctx.net.hosts[1 + node.farm.0];
        let phone = &self.ctx.net.hosts[node.identity.host];
        let trip = (farm.latency + farm.jitter + phone.latency + phone.jitter) * 2;
        let good = trip < SHORT_TRIP && farm.loss.max(phone.loss) <= 0.01;
        // What was measured on a slower path would still hold the verdict back.
        let steady = self.single.is_some();
        let bound = match watched {
            true if good && steady && !node.slept => SHORT_DEATH,
            true => WATCHED_DEATH,
            false => UNWATCHED_DEATH,
        };
        if now - since > bound {
            self.ctx.violate(
                "detection",
                format!("phone {place} holds carrier {epoch} for live, whose path is gone"),
            );
        }
    }

    /// What must hold a while after the healing.
    pub fn judge(&mut self) {
        let Some(healed) = self.ctx.healed else { return };
        let elapsed = self.ctx.now - healed;
        let last = self.judge_at.iter().max() <= Some(&self.ctx.elapsed());
        for place in 0..self.phones.len() {
            let node = &self.phones[place];
            let Some(process) = node.process.as_ref() else { continue };
            let watched_due = self.single.is_some() || elapsed >= WATCHED_BOUND;
            let due = (process.is_watched() && watched_due) || elapsed >= UNWATCHED_BOUND;
            match process.session.live() {
                None if due => {
                    let shown = process.session.snapshot();
                    let link = process.link.link.state();
                    let farm = self.farms[node.farm.0].process.as_ref();
                    let farm = farm.map(|p| p.link.link.state().state);
                    let what = format!(
                        "phone {place} is not live {elapsed:?} after the healing: {shown:?}, link {:?}, farm's link {farm:?}",
                        link.state
                    );
                    self.ctx.violate("live again", what);
                }
                Some(_) if process.since > healed => {
                    let took = process.since - healed;
                    self.ctx.stats.slowest = self.ctx.stats.slowest.max(took);
                    if let Some(single) = &self.single
                        && took > single.bound
                    {
                        let (what, bound) = (single.name, single.bound);
                        let what = format!("{what}: live again after {took:?}, the bound is {bound:?}");
                        self.ctx.violate("bound of a fault", what);
                    }
                }
                _ => {}
            }
        }
        if last {
            self.finally();
        }
    }

    fn finally(&mut self) {
        for place in 0..self.phones.len() {
            self.check_agreement(place);
        }
        for at in 0..self.ctx.plans.len() {
            let plan = &self.ctx.plans[at];
            if plan.excused || self.phones[plan.phone].process.is_none() {
                continue;
            }
            let farm_open = plan.farm_runs > 0 && plan.ended[1].is_none();
            if plan.ended[0].is_none() || farm_open {
                let what = format!("plan {at} never ended: {plan:?}");
                self.ctx.violate("streams", what);
            }
        }
        let devices = self.farms.len() + self.phones.len() - usize::from(self.retired.is_some());
        for (place, farm) in self.farms.iter().enumerate() {
            let sessions = farm.process.as_ref().map_or(0, |p| p.sessions.len());
            let phones = self.phones.iter().filter(|p| p.farm.0 == place && p.process.is_some()).count();
            if sessions != phones {
                let what = format!("farm {place} holds {sessions} sessions of {phones} phones");
                self.ctx.violate("nothing stale", what);
            }
        }
        let connections = self.broker.core.as_ref().map_or(0, |core| core.connections());
        if connections != devices {
            let what = format!("the broker holds {connections} connections of {devices} devices");
            self.ctx.violate("nothing stale", what);
        }
    }

    /// Both ends agree on the session and its carrier, and the broker's word
    /// on the farm is true.
    fn check_agreement(&mut self, place: usize) {
        let node = &self.phones[place];
        let Some(phone) = node.process.as_ref() else { return };
        let Some(farm) = self.farms[node.farm.0].process.as_ref() else { return };
        let seen = farm.lifecycle.snapshot().into_iter().find(|s| s.session == phone.session_id);
        // A direct carrier may be tried beside a relayed one.
        let (live, tried) = (phone.session.live(), phone.session.attempting());
        let theirs = seen.and_then(|s| s.live);
        let wrong = if live != theirs {
            Some(("agreement", format!("phone {place} is live with {live:?}, its farm with {theirs:?}")))
        } else if !phone.carriers.keys().all(|held| [live, tried].contains(&Some(*held))) {
            let held: Vec<_> = phone.carriers.keys().collect();
            Some(("one carrier", format!("phone {place} holds {held:?}")))
        } else if !self.broker.lied && phone.presence != Some((farm.boot, farm.epoch, true)) {
            let told = phone.presence;
            let truth = (farm.boot, farm.epoch);
            Some(("nothing stale", format!("phone {place} was told {told:?}, the truth is {truth:?}")))
        } else {
            None
        };
        if let Some((invariant, what)) = wrong {
            self.ctx.violate(invariant, what);
        }
    }
}

fn check_phone(p: &phone::Process, place: usize) -> Option<(&'static str, String)> {
    let open = |slot: &phone::Held| matches!(slot, phone::Held::Running(c, _) if c.is_open());
    match p.session.live() {
        Some(live) if !p.carriers.get(&live).is_some_and(open) => {
            return Some((
                "deadlines",
                format!("phone {place} is live with carrier {live}, which is not open"),
            ));
        }
        Some(live) => {
            if let Some((older, _)) = p.carriers.iter().next().filter(|(epoch, _)| **epoch < live) {
                return Some(("one carrier", format!("phone {place} keeps carrier {older} beside {live}")));
            }
        }
        None if p.session.poll_timeout().is_none() => {
            return Some(("deadlines", format!("phone {place} is not live and waits for nothing")));
        }
        None => {}
    }
    if p.link.link.poll_timeout().is_none() {
        return Some(("deadlines", format!("the link of phone {place} has no deadline")));
    }
    (p.carriers.len() > 2)
        .then(|| ("one carrier", format!("phone {place} has {} carriers", p.carriers.len())))
}

fn check_farm(p: &farm::Process, place: usize) -> Option<(&'static str, String)> {
    if p.link.link.poll_timeout().is_none() {
        return Some(("deadlines", format!("the link of farm {place} has no deadline")));
    }
    let sessions = p.lifecycle.snapshot();
    if sessions.len() != p.sessions.len() {
        return Some(("nothing stale", format!("farm {place} keeps streams of no session")));
    }
    for session in sessions {
        let runtime = p.sessions.get(&session.session)?;
        let open = |slot: &farm::Slot| matches!(slot, farm::Slot::Running(c) if c.is_open());
        if let Some(live) = session.live
            && !runtime.carriers.get(&live).is_some_and(open)
        {
            let what =
                format!("farm {place} is live with carrier {live} of {}, which is not open", session.session);
            return Some(("deadlines", what));
        }
        let most = usize::from(session.live.is_some()) + usize::from(session.connecting);
        if runtime.carriers.len() > most {
            let held: Vec<_> = runtime.carriers.keys().collect();
            return Some(("one carrier", format!("farm {place} holds {held:?} of {}", session.session)));
        }
        if session.live.is_none() && p.lifecycle.poll_timeout().is_none() {
            return Some(("deadlines", format!("farm {place} keeps {} for ever", session.session)));
        }
    }
    None
}
