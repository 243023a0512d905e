/** The servers that help to find a path: what tells our public address, and the relay that the broker named last. */

import { isHost, type Relay, type Welcome } from '../core/broker';

/** Credentials are not used for the last of their time: the request takes a while. */
const SPENT_EARLY_MS = 10_000;

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** A relay, for as long as its credentials are good: also while the broker is away. */
export class HeldRelay {
  private held: { relay: Relay; host: string; until: number } | null = null;

  /** Takes what the broker at `host` says of it. It replaces the one before. */
  hold(relay: Relay, host: string, at: number): void {
    const usable = relay.host === undefined || isHost(relay.host);
    this.held = usable
      ? { relay, host: relay.host ?? host, until: at + relay.seconds * 1000 - SPENT_EARLY_MS }
      : null;
  }

  /** The relay as the browser wants it. */
  servers(at: number): RTCIceServer[] {
    if (!this.held || at >= this.held.until) return [];
    const { relay, host } = this.held;
    const where = bracketed(host);
    const urls: string[] = [];
    if (relay.udp !== undefined) urls.push(`turn:${where}:${relay.udp}?transport=udp`);
    // Where it speaks both, nobody needs to see who meets whom.
    if (relay.tls !== undefined) urls.push(`turns:${where}:${relay.tls}?transport=tcp`);
    else if (relay.tcp !== undefined) urls.push(`turn:${where}:${relay.tcp}?transport=tcp`);
    const { username, credential } = relay;
    return urls.length > 0 ? [{ urls, username, credential }] : [];
  }
}

/** What tells our public address. */
export function stunServers(host: string, welcome: Welcome | null): RTCIceServer[] {
  if (welcome?.stun_port === undefined) return [];
  return [{ urls: `stun:${bracketed(host)}:${welcome.stun_port}` }];
}
