/**
 * The phone's side of the connection lifecycle: one session with one farm.
 * The same as `tunnel/src/session/phone.rs`.
 *
 * At most one carrier is live and at most one attempt is under way; an
 * attempt replaces the live carrier only once it works (make before break).
 * When nothing is under way there is always a time for the next attempt,
 * unless the phone is no longer paired or the session was stopped.
 *
 * A carrier that goes through a relay is as good as another until a direct one
 * works: that is tried now and then while somebody looks, beside it.
 */

import { Jitter } from './backoff';
import type { Bytes } from './bytes';
import { equal } from './bytes';
import type { GoodbyeReason } from './control';
import * as epochs from './epoch';
import { UNKNOWN_BOOT } from './id';
import { type Decision, decide, type Failure, RECHECK, type Strategy, type Ways } from './recovery';
import type { OfferRefused } from './signal';
import { type Due, type Duration, type Instant, ms, seconds } from './time';
import { Upgrade } from './upgrade';

type Epoch = epochs.Epoch;

/** How long a session without a carrier keeps its streams. */
export const PARKED_FOR = seconds(300);
/** From an accepted offer to open channels. */
export const CONNECT_DEADLINE = seconds(10);
/** From open channels to the other side's hello. */
export const HELLO_DEADLINE = seconds(3);
/** From an offer to its answer. */
export const ANSWER_DEADLINE = seconds(4);
/** How long the first offer waits to hear of the farm's run, after the link to the broker is up. */
export const PRESENCE_WITHIN = ms(500);

/** For how long a carrier is kept that nobody looks at: as long as a new one would cost. */
export const REST_AFTER = seconds(240);

/** Farm's runs that are remembered as over. */
const FORMER_BOOTS = 8;

/** What happened. */
export type Event =
  | { kind: 'start' }
  | { kind: 'stop' }
  | { kind: 'broker_link'; online: boolean }
  | { kind: 'presence'; boot: Bytes; epoch: Epoch; online: boolean }
  | { kind: 'presence_unknown' }
  | { kind: 'answered'; epoch: Epoch }
  | { kind: 'refused'; epoch: Epoch; reason: OfferRefused; farmBoot: Bytes; newest: Epoch }
  | { kind: 'undelivered' }
  | { kind: 'opened'; epoch: Epoch }
  | { kind: 'hello'; epoch: Epoch }
  | { kind: 'path'; epoch: Epoch; relayed: boolean }
  | { kind: 'lost'; epoch: Epoch }
  | { kind: 'goodbye'; epoch: Epoch; reason: GoodbyeReason }
  | { kind: 'network'; change: 'down' | 'up' | 'changed' }
  | { kind: 'superseded' }
  | { kind: 'new_slot'; epoch: Epoch }
  | { kind: 'no_slot' }
  | { kind: 'path_back' }
  | { kind: 'attention'; watched: boolean };

/** What is to be done. */
export type Action =
  | { kind: 'offer'; epoch: Epoch; farmBoot: Bytes; ways: Ways }
  | { kind: 'attach'; epoch: Epoch }
  | { kind: 'close'; epoch: Epoch; reason: GoodbyeReason }
  | { kind: 'probe'; epoch: Epoch }
  | { kind: 'take_another_slot' }
  | { kind: 'changed' }
  | { kind: 'ended' };

/** Why something is due. */
export type TimeoutReason = 'attempt' | 'upgrade' | 'answer' | 'connect' | 'hello' | 'rest';

/** Where a session stands. */
export type State = 'stopped' | 'live' | 'connecting' | 'waiting' | 'resting' | 'not_paired';

/** What is shown of a session. */
export interface Snapshot {
  state: State;
  since: Instant;
  failure: Failure | null;
  strategy: Strategy | null;
  attempt: number;
  nextAttempt: Instant | null;
  farmPresent: boolean | null;
  networkUp: boolean;
}

type Stage = 'offered' | 'connecting' | 'greeting';

const STAGE_DUE: Record<Stage, TimeoutReason> = {
  offered: 'answer',
  connecting: 'connect',
  greeting: 'hello',
};

interface Attempt {
  epoch: Epoch;
  stage: Stage;
  deadline: Instant;
  ways: Ways;
  /** Its path is known, and goes through a relay. */
  relayed: boolean;
}

/** Whether an attempt can be given up without a word: the live carrier goes on. */
const isIdleUpgrade = (attempt: Attempt | null): attempt is Attempt =>
  attempt?.ways === 'direct_only' && attempt.stage !== 'greeting';

interface FarmRun {
  boot: Bytes;
  epoch: Epoch;
  online: boolean;
}

export class Session {
  private started = false;
  private farm: FarmRun | null = null;
  private readonly formerBoots: Bytes[] = [];
  private presenceUnknown = false;
  private brokerLink = false;
  private networkUp = true;
  private watched = true;
  /** The broker gave our place to another program: the next carrier needs another one. */
  private slotLost = false;
  /** Instead of the next offer, a slot is to be taken. */
  private slotWanted = false;
  /** Nobody has looked since then. */
  private unwatchedSince: Instant | null = null;
  private resting = false;
  private liveEpoch: Epoch | null = null;
  private attempt: Attempt | null = null;
  private nextAttempt: Instant | null = null;
  private failed = 0;
  private failure: Failure | null = null;
  private decision: Decision | null = null;
  private readonly jitter: Jitter;
  private readonly upgrade: Upgrade;
  private shown: { state: State; since: Instant };
  private readonly actions: Action[] = [];

  /**
   * A stopped session. `newest` is the first epoch of this program's start;
   * `seed` spreads retries; `restsAfter` is when a carrier is given up that
   * nobody looks at (open streams count as attention), `null` for never.
   */
  constructor(
    private newest: Epoch,
    seed: bigint,
    now: Instant,
    private readonly restsAfter: Duration | null = null,
  ) {
    this.jitter = new Jitter(seed);
    this.upgrade = new Upgrade(this.jitter);
    this.shown = { state: 'stopped', since: now };
  }

  /** Takes what happened; ask {@link pollAction} afterwards until it is empty. */
  handle(event: Event, now: Instant): void {
    switch (event.kind) {
      case 'start':
        this.started = true;
        // Without the link its return starts the attempt; the recheck only looks after it.
        if (this.brokerLink) this.callTheFarm(now);
        else this.attemptAt(now + RECHECK);
        break;
      case 'stop':
        this.stop();
        break;
      case 'broker_link': {
        const back = event.online && !this.brokerLink;
        this.brokerLink = event.online;
        // Let in: the place is ours.
        if (event.online) this.slotLost = false;
        if (!back) break;
        // An offer without answer was lost with the former link.
        const lost = this.dropUnansweredOffer();
        if (lost || (!this.attempt && this.liveEpoch === null)) this.callTheFarm(now);
        break;
      }
      case 'presence':
        this.presence(event.boot, event.epoch, event.online, now);
        break;
      case 'presence_unknown':
        this.presenceUnknown = true;
        break;
      case 'answered':
        this.advanceStage(event.epoch, stage => stage === 'offered', 'connecting', now + CONNECT_DEADLINE);
        break;
      case 'refused':
        this.refused(event, now);
        break;
      case 'undelivered':
        if (this.attempt?.stage === 'offered') {
          if (this.farm) this.farm.online = false;
          this.giveUp(this.attempt.epoch, 'farm_offline', now);
        }
        break;
      case 'superseded':
        if (this.liveEpoch !== null) this.slotLost = true;
        else this.superseded(now);
        break;
      case 'new_slot':
        this.slotLost = this.slotWanted = this.brokerLink = false;
        // No carrier of this session is ever called by the name of another.
        this.newest = Math.max(this.newest, event.epoch);
        this.failed = 0;
        // The new link's coming up starts the attempt; this only looks after it.
        this.nextAttempt = null;
        this.attemptAt(now + RECHECK);
        break;
      case 'no_slot':
        this.slotLost = this.slotWanted = false;
        this.fail('no_slot_left', now);
        break;
      case 'opened':
        this.advanceStage(event.epoch, stage => stage !== 'greeting', 'greeting', now + HELLO_DEADLINE);
        break;
      case 'hello':
        this.hello(event.epoch, now);
        break;
      case 'path':
        this.path(event.epoch, event.relayed, now);
        break;
      case 'lost':
        this.lost(event.epoch, 'network_timeout', now);
        break;
      case 'goodbye':
        this.goodbye(event.epoch, event.reason, now);
        break;
      case 'network':
        this.network(event.change, now);
        break;
      case 'path_back':
        if (this.started && this.liveEpoch === null) {
          this.failed = 0;
          this.startOver(now);
        }
        break;
      case 'attention':
        this.attention(event.watched, now);
        break;
    }
    this.advance(now);
  }

  /** The next thing to do. */
  pollAction(): Action | undefined {
    return this.actions.shift();
  }

  /** When {@link handleTimeout} is due, and why. `null` while live and direct with nothing under way, and while stopped. */
  pollTimeout(): Due<TimeoutReason> | null {
    if (this.attempt) return [this.attempt.deadline, STAGE_DUE[this.attempt.stage]];
    if (this.nextAttempt !== null) return [this.nextAttempt, 'attempt'];
    // Of the next two there is one at most: somebody looks, or nobody does.
    const upgrade = this.upgradeAt();
    if (upgrade !== null) return [upgrade, 'upgrade'];
    const rest = this.restAt();
    return rest === null ? null : [rest, 'rest'];
  }

  private upgradeAt(): Instant | null {
    const farmThere = (this.farm?.online ?? false) && this.brokerLink && this.networkUp;
    const wanted = this.liveEpoch !== null && this.watched && !this.slotLost;
    return wanted && farmThere ? this.upgrade.due : null;
  }

  private restAt(): Instant | null {
    if (this.liveEpoch === null || this.unwatchedSince === null || this.restsAfter === null) return null;
    return this.unwatchedSince + this.restsAfter;
  }

  /** Takes the passing of time. */
  handleTimeout(now: Instant): void {
    if (this.attempt && this.attempt.deadline <= now) this.giveUp(this.attempt.epoch, 'carrier_failed', now);
    const [idle, rest] = [!this.attempt && this.nextAttempt === null, this.restAt()];
    if (idle && rest !== null && rest <= now && this.liveEpoch !== null) {
      this.resting = true;
      this.actions.push({ kind: 'close', epoch: this.liveEpoch, reason: 'session_ended' });
      this.liveEpoch = null;
    }
    this.advance(now);
  }

  /** How the session stands. */
  snapshot(): Snapshot {
    const live = this.liveEpoch !== null;
    return {
      ...this.shown,
      failure: live ? null : this.failure,
      strategy: live ? null : (this.decision?.strategy ?? null),
      attempt: this.failed,
      nextAttempt: this.attempt ? null : this.nextAttempt,
      farmPresent: this.presenceUnknown ? false : (this.farm?.online ?? null),
      networkUp: this.networkUp,
    };
  }

  /** The carrier that streams use. */
  get live(): Epoch | null {
    return this.liveEpoch;
  }

  /** The newest epoch that was used. */
  get epoch(): Epoch {
    return this.newest;
  }

  private advanceStage(epoch: Epoch, from: (stage: Stage) => boolean, to: Stage, deadline: Instant): void {
    if (this.attempt?.epoch !== epoch || !from(this.attempt.stage)) return;
    this.attempt.stage = to;
    this.attempt.deadline = deadline;
  }

  private attemptAt(when: Instant): void {
    if (this.started && !this.resting)
      this.nextAttempt = this.nextAttempt === null ? when : Math.min(this.nextAttempt, when);
  }

  /** The link to the broker is there: connect, at once if the farm's run is known, else when its presence comes. */
  private callTheFarm(now: Instant): void {
    this.failed = 0;
    this.nextAttempt = null;
    this.attemptAt(now + (this.farm ? 0 : PRESENCE_WITHIN));
  }

  private changed(): void {
    if (!this.actions.some(action => action.kind === 'changed')) this.actions.push({ kind: 'changed' });
  }

  /** Starts what is due and keeps what is shown up to date. */
  private advance(now: Instant): void {
    if (this.started && !this.attempt && this.nextAttempt !== null && this.nextAttempt <= now) {
      this.nextAttempt = null;
      if (this.slotWanted) {
        this.actions.push({ kind: 'take_another_slot' });
        // Answered at once; this only looks after it.
        this.attemptAt(now + RECHECK);
      } else this.offer(now);
    }
    const [idle, upgrade] = [!this.attempt && this.nextAttempt === null, this.upgradeAt()];
    if (idle && upgrade !== null && upgrade <= now) {
      this.upgrade.begun(now);
      this.sendOffer('direct_only', now);
    }
    const state = this.stateNow();
    if (state !== this.shown.state) {
      this.shown = { state, since: now };
      this.changed();
    }
  }

  private stateNow(): State {
    if (!this.started) return 'stopped';
    if (this.liveEpoch !== null) return 'live';
    if (this.attempt) return 'connecting';
    if (this.resting) return 'resting';
    return this.failure === 'refused_not_paired' ? 'not_paired' : 'waiting';
  }

  private offer(now: Instant): void {
    // Nothing can be said; the link's return starts the next attempt.
    if (!this.brokerLink) return this.fail('broker_lost', now);
    if (!this.networkUp) return this.fail('phone_offline', now);
    this.sendOffer(this.decision?.relayOnly ? 'relay_only' : 'any', now);
  }

  private sendOffer(ways: Ways, now: Instant): void {
    this.newest = epochs.next(this.newest);
    // A run that was never heard of is refused, with the present one.
    const farmBoot = this.farm?.boot ?? UNKNOWN_BOOT;
    const deadline = now + ANSWER_DEADLINE;
    this.attempt = { epoch: this.newest, stage: 'offered', deadline, ways, relayed: false };
    this.actions.push({ kind: 'offer', epoch: this.newest, farmBoot, ways });
  }

  /** Something failed: decide what to do about it, and when. */
  private fail(shown: Failure, now: Instant): void {
    let failure = shown;
    if (shown !== 'no_slot_left' && shown !== 'refused_not_paired') {
      // Whatever shows first, this is why.
      if (this.slotLost) failure = 'superseded';
      else if (!this.networkUp) failure = 'phone_offline';
    }
    const context = {
      attempt: this.failed,
      farmPresent: this.farm?.online ?? false,
      brokerLink: this.brokerLink,
      networkUp: this.networkUp,
      watched: this.watched,
    };
    this.decision = decide(failure, context, this.jitter);
    this.failed += 1;
    this.failure = failure;
    this.slotWanted = this.decision.strategy === 'take_another_slot';
    this.nextAttempt = null;
    this.attemptAt(now + this.decision.retryAfter);
    this.changed();
  }

  /** Closes the attempt; the live carrier too where its streams moved over with our hello. */
  private dropAttempt(attempt: Attempt): void {
    this.attempt = null;
    this.actions.push({ kind: 'close', epoch: attempt.epoch, reason: 'superseded' });
    if (attempt.stage === 'greeting' && this.liveEpoch !== null) {
      this.actions.push({ kind: 'close', epoch: this.liveEpoch, reason: 'superseded' });
      this.liveEpoch = null;
    }
  }

  /** Ends the attempt of this epoch, if it is the present one. */
  private giveUp(epoch: Epoch, failure: Failure, now: Instant): void {
    if (this.attempt?.epoch !== epoch) return;
    const needless = isIdleUpgrade(this.attempt) && failure !== 'refused_other_boot';
    this.dropAttempt(this.attempt);
    // Nothing is broken where a relayed carrier goes on.
    if (!needless || this.liveEpoch === null) this.fail(failure, now);
  }

  /** Forgets the attempt under way and starts another at once. */
  private startOver(now: Instant): void {
    if (this.attempt) this.dropAttempt(this.attempt);
    this.nextAttempt = null;
    this.attemptAt(now);
  }

  /** Another program has our place: whatever we had there is over. */
  private superseded(now: Instant): void {
    for (const epoch of [this.liveEpoch, this.attempt?.epoch ?? null]) {
      if (epoch !== null) this.actions.push({ kind: 'close', epoch, reason: 'superseded' });
    }
    this.liveEpoch = null;
    this.attempt = null;
    this.fail('superseded', now);
  }

  /** Gives up an attempt whose offer was not answered yet: whether there was one that is missed. */
  private dropUnansweredOffer(): boolean {
    if (this.attempt?.stage !== 'offered') return false;
    const missed = !isIdleUpgrade(this.attempt);
    this.dropAttempt(this.attempt);
    return missed;
  }

  /** Gives up an attempt that could only have come out direct. */
  private dropUpgrade(): void {
    if (isIdleUpgrade(this.attempt)) this.dropAttempt(this.attempt);
  }

  private path(epoch: Epoch, relayed: boolean, now: Instant): void {
    if (this.liveEpoch === epoch) {
      this.upgrade.path(relayed, now);
      // It found the direct way by itself.
      if (!relayed) this.dropUpgrade();
    } else if (this.attempt?.epoch === epoch) this.attempt.relayed = relayed;
  }

  private hello(epoch: Epoch, now: Instant): void {
    if (this.attempt?.epoch !== epoch) return;
    this.upgrade.begin(this.attempt.relayed, now);
    this.attempt = null;
    const former = this.liveEpoch;
    this.liveEpoch = epoch;
    this.failed = 0;
    this.nextAttempt = null;
    this.failure = null;
    this.decision = null;
    if (this.farm) this.farm.online = true;
    this.actions.push({ kind: 'attach', epoch });
    if (former !== null) this.actions.push({ kind: 'close', epoch: former, reason: 'superseded' });
    this.changed();
  }

  private lost(epoch: Epoch, failure: Failure, now: Instant): void {
    if (this.liveEpoch !== epoch) return this.giveUp(epoch, 'carrier_failed', now);
    this.liveEpoch = null;
    this.actions.push({ kind: 'close', epoch, reason: 'superseded' });
    // An attempt that is under way is the reconnect, unless it may only come out direct.
    this.dropUpgrade();
    if (!this.attempt) this.fail(failure, now);
  }

  private goodbye(epoch: Epoch, reason: GoodbyeReason, now: Instant): void {
    if (reason === 'taken_over' && this.liveEpoch === epoch) return this.superseded(now);
    let failure: Failure = 'network_timeout';
    if (reason === 'revoked') failure = 'refused_not_paired';
    else if (reason === 'stopping') {
      if (this.farm) this.farm.online = false;
      failure = 'peer_restart';
    }
    this.lost(epoch, failure, now);
  }

  private presence(boot: Bytes, epoch: Epoch, online: boolean, now: Instant): void {
    this.presenceUnknown = false;
    if (this.formerBoots.some(former => equal(former, boot))) return;
    const known = this.farm;
    const sameRun = known !== null && equal(known.boot, boot);
    if (sameRun && epoch < known.epoch) return;
    this.farm = { boot, epoch, online };
    const restarted = known !== null && !sameRun;
    if (restarted) {
      if (this.formerBoots.length === FORMER_BOOTS) this.formerBoots.shift();
      this.formerBoots.push(known.boot);
    }
    const moved = sameRun && epoch > known.epoch;
    const live = this.liveEpoch;
    if (!online) {
      // The broker's word alone ends nothing; pings must show it.
      if (live !== null) this.actions.push({ kind: 'probe', epoch: live });
      else this.changed();
    } else if (live !== null && restarted) {
      // The run that the live carrier led to is over for certain: the farm signed the new one.
      this.failure = 'peer_restart';
      this.startOver(now);
    } else if (live !== null && moved) {
      this.actions.push({ kind: 'probe', epoch: live });
      this.dropUnansweredOffer();
      this.dropUpgrade();
      if (!this.attempt) this.attemptAt(now);
    } else if (live === null && (restarted || moved || !known?.online)) {
      // An unanswered offer went to a connection that the farm no longer has.
      if (!this.attempt || this.attempt.stage === 'offered') {
        this.failed = 0;
        this.startOver(now);
      }
    }
  }

  private refused(event: Extract<Event, { kind: 'refused' }>, now: Instant): void {
    const { epoch, reason, farmBoot, newest } = event;
    if (this.attempt?.epoch !== epoch || this.attempt.stage !== 'offered') return;
    // The offer came twice, and the first was taken: its answer comes.
    if (reason === 'stale_epoch' && newest === epoch) return;
    // Signed by the farm, and for this very offer: its word on itself.
    if (this.farm && equal(this.farm.boot, farmBoot)) {
      this.farm.online = true;
    } else {
      this.farm = { boot: farmBoot, epoch: 0, online: true };
      // It is there, and now we know where: what failed was to reach another run.
      this.failed = 0;
    }
    if (epochs.follows(newest, this.newest)) this.newest = newest;
    this.giveUp(epoch, `refused_${reason}`, now);
  }

  private network(change: 'down' | 'up' | 'changed', now: Instant): void {
    this.networkUp = change !== 'down';
    if (!this.networkUp || !this.started) return;
    if (this.liveEpoch !== null) {
      this.actions.push({ kind: 'probe', epoch: this.liveEpoch });
      this.failure = 'ip_change';
    }
    // An attempt from the old address leads nowhere.
    this.failed = 0;
    this.startOver(now);
  }

  private attention(watched: boolean, now: Instant): void {
    const came = watched && !this.watched;
    this.watched = watched;
    this.unwatchedSince = watched ? null : (this.unwatchedSince ?? now);
    if (watched) this.resting = false;
    if (!came) return;
    if (this.liveEpoch !== null) this.actions.push({ kind: 'probe', epoch: this.liveEpoch });
    else if (!this.attempt) {
      this.failed = 0;
      this.attemptAt(now);
    }
  }

  private stop(): void {
    this.started = false;
    this.nextAttempt = null;
    for (const epoch of [this.liveEpoch, this.attempt?.epoch ?? null]) {
      if (epoch !== null) this.actions.push({ kind: 'close', epoch, reason: 'session_ended' });
    }
    this.liveEpoch = null;
    this.attempt = null;
    this.actions.push({ kind: 'ended' });
  }
}
