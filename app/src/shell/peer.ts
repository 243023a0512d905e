/** WebRTC: one `RTCPeerConnection` with the three agreed channels. The shell of `tunnel/src/peer`. */

import type { Bytes } from '../core/bytes';
import type { Ways } from '../core/recovery';
import { MAX_CANDIDATE } from '../core/signal';
import { room } from './networks';

/** Candidates of one carrier that are sent or taken; a flood beyond is dropped. */
export const MAX_CANDIDATES = 64;

/** Bytes of data that may wait in the browser: enough to keep a fast path busy, little enough that a new carrier need not replay much. */
const DATA_WAITING = 256 * 1024;

/** Bytes of pings that may wait: beyond, one more would only add to it. */
const PING_WAITING = 4 * 1024;

/** The channels of a connection: agreed beforehand, open as long as it is. */
export type Channel = 'control' | 'ping' | 'data';

const CHANNELS: Record<Channel, RTCDataChannelInit> = {
  control: { negotiated: true, id: 0, ordered: true },
  ping: { negotiated: true, id: 1, ordered: false, maxRetransmits: 0 },
  data: { negotiated: true, id: 2, ordered: true },
};

/** The path a connection has chosen. */
export type Path = 'direct' | 'relayed';

/** What the owner hears. */
export interface Listener {
  candidate(line: string): void;
  opened(): void;
  message(channel: Channel, message: Uint8Array): void;
  /** There is room for data again. */
  writable(): void;
  lost(why: string): void;
}

export class Peer {
  private readonly room = room();
  private readonly connection: RTCPeerConnection;
  private readonly channels = new Map<Channel, RTCDataChannel>();
  private sent = 0;
  private taken = 0;
  private waiting: string[] = [];
  private answered = false;
  private over = false;

  constructor(
    iceServers: RTCIceServer[],
    private readonly ways: Ways,
    private readonly listener: Listener,
  ) {
    const iceTransportPolicy = ways === 'relay_only' ? 'relay' : 'all';
    this.connection = new this.room.connection({ iceServers, iceTransportPolicy });
    for (const [name, init] of Object.entries(CHANNELS) as [Channel, RTCDataChannelInit][])
      this.channel(name, init);
    this.connection.onicecandidate = ({ candidate }) => {
      const line = candidate?.candidate;
      if (!line || line.length > MAX_CANDIDATE || this.sent >= MAX_CANDIDATES) return;
      this.sent += 1;
      listener.candidate(line);
    };
    this.connection.onconnectionstatechange = () => {
      const { connectionState } = this.connection;
      // `disconnected` is a guess of ICE's; pings decide that.
      if (connectionState === 'failed' || connectionState === 'closed')
        this.lose(`connection ${connectionState}`);
    };
  }

  private channel(name: Channel, init: RTCDataChannelInit): void {
    const channel = this.connection.createDataChannel(name, init);
    channel.binaryType = 'arraybuffer';
    channel.onopen = () => {
      if ([...this.channels.values()].every(one => one.readyState === 'open')) this.listener.opened();
    };
    channel.onclose = () => this.lose('closed by the other side');
    channel.onmessage = event => {
      // Of the room's kind of buffer, which is not this window's.
      if (typeof event.data === 'string') this.lose('the other side sent text');
      else this.listener.message(name, new Uint8Array(event.data as ArrayBuffer));
    };
    if (name === 'data') {
      channel.bufferedAmountLowThreshold = DATA_WAITING / 2;
      channel.onbufferedamountlow = () => this.listener.writable();
    }
    this.channels.set(name, channel);
  }

  /** The session description to offer; candidates follow. */
  async offer(): Promise<string> {
    const offer = await this.connection.createOffer();
    await this.connection.setLocalDescription(offer);
    const sdp = offer.sdp ?? '';
    // Asks the farm to leave its relay out, too (`tunnel/src/peer/sdp.rs`).
    return this.ways === 'direct_only' ? sdp.replace(/^m=/m, 'a=farm-tunnel-direct\r\nm=') : sdp;
  }

  /** Takes the farm's answer. */
  async accept(sdp: string): Promise<void> {
    await this.connection.setRemoteDescription({ type: 'answer', sdp });
    this.answered = true;
    for (const line of this.waiting.splice(0)) await this.addCandidate(line);
  }

  /** Takes one more way to reach the farm. */
  async addCandidate(line: string): Promise<void> {
    if (!this.answered) {
      if (this.waiting.length < MAX_CANDIDATES) this.waiting.push(line);
      return;
    }
    if (this.over || (this.taken += 1) > MAX_CANDIDATES) return;
    // One that is of no use is no reason to stop.
    await this.connection
      .addIceCandidate({ candidate: line, sdpMid: '0', sdpMLineIndex: 0 })
      .catch(() => undefined);
  }

  /** Whether data may be sent now. */
  get hasRoom(): boolean {
    return (this.channels.get('data')?.bufferedAmount ?? 0) < DATA_WAITING;
  }

  /** Sends a message; a ping without room is lost, as pings may be. */
  send(name: Channel, message: Bytes): void {
    const channel = this.channels.get(name);
    if (channel?.readyState !== 'open') return;
    if (name === 'ping' && channel.bufferedAmount > PING_WAITING) return;
    try {
      channel.send(message);
    } catch (error) {
      this.lose(`sending: ${error}`);
    }
  }

  /** The path in use, `null` while there is none. */
  async path(): Promise<Path | null> {
    if (this.over) return null;
    const stats = await this.connection.getStats();
    let selected: string | undefined;
    for (const entry of stats.values())
      if (entry.type === 'transport') selected = entry.selectedCandidatePairId;
    const pair = selected === undefined ? undefined : stats.get(selected);
    if (!pair) return null;
    const ends = [stats.get(pair.localCandidateId), stats.get(pair.remoteCandidateId)];
    return ends.some(end => end?.candidateType === 'relay') ? 'relayed' : 'direct';
  }

  /** Closes without a report. */
  close(): void {
    this.over = true;
    for (const channel of this.channels.values()) {
      channel.onopen = channel.onclose = channel.onmessage = channel.onbufferedamountlow = null;
    }
    this.connection.onicecandidate = this.connection.onconnectionstatechange = null;
    this.connection.close();
    this.room.close();
  }

  private lose(why: string): void {
    if (this.over) return;
    this.over = true;
    this.listener.lost(why);
  }
}
