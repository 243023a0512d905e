/** Messages between a device and the broker, over one WebSocket. */

import type { Bytes } from './bytes';
import { concat, uint64, utf8 } from './bytes';
import { type Epoch, epoch } from './epoch';
import { bootId, farmId, invitationId, phoneId, sessionId, slot } from './id';
import { type DeviceKey, nonce, publicKey, signature, verify } from './keys';
import {
  bool,
  bytes,
  exact,
  extensible,
  list,
  oneOf,
  type Read,
  type Reader,
  reason,
  safe,
  text,
  u16,
  u32,
  word,
} from './schema';

/** Path of the WebSocket at the broker. */
export const CONNECT_PATH = '/v1/connect';

/** Subprotocol of the WebSocket. */
export const SUBPROTOCOL = 'farm-tunnel.v1';

/** Most farms that one phone watches. */
export const MAX_WATCHED = 256;

/** Largest payload of a signal, in bytes. */
export const MAX_SIGNAL = 24 * 1024;

/** Longest name of the broker, enrollment token or name, in bytes. */
export const MAX_TEXT = 256;

/** Longest host of a relay, in bytes. */
const MAX_HOST = 253;

/** Longest user name and credential for a relay, in bytes. */
const MAX_CREDENTIAL = 128;

export const role = word('farm', 'phone');
export type Role = Read<typeof role>;

/** Where a signal goes or comes from. */
export const address = oneOf({ farm: farmId, phone: sessionId, invitation: invitationId });
export type Address = Read<typeof address>;

const authenticate = exact(
  {
    role,
    key: publicKey,
    slot,
    boot: bootId,
    epoch,
    broker: text(0, MAX_TEXT),
    signature,
  },
  { presence: signature, enrollment_token: text(0, MAX_TEXT), name: text(0, MAX_TEXT) },
);
export type Authenticate = Read<typeof authenticate>;

const signal = extensible({ peer: address, payload: bytes(0, MAX_SIGNAL) });
const goodbye: Reader<'goodbye'> = word('goodbye');

const toBrokerMap = oneOf({
  authenticate,
  access: extensible(
    { phones: list(phoneId, 256), invitations: list(invitationId, 8) },
    { former: list(phoneId, 32) },
  ),
  heartbeat: extensible({ n: u32, e: epoch }, { p: signature }),
  signal,
  watch: extensible({ farms: list(farmId, MAX_WATCHED) }),
});

/** From a device to the broker. */
export const toBroker: Reader<Read<typeof toBrokerMap> | 'goodbye'> = value =>
  typeof value === 'string' ? goodbye(value) : toBrokerMap(value);
export type ToBroker = Read<typeof toBroker>;

/**
 * Where packets may be relayed (TURN), and as whom. `host` absent: the one by
 * which the broker was called; it is the broker's word, see {@link isHost}.
 */
const relay = extensible(
  { username: text(1, MAX_CREDENTIAL), credential: text(1, MAX_CREDENTIAL), seconds: u32 },
  { host: text(1, MAX_HOST), udp: u16, tcp: u16, tls: u16 },
);
export type Relay = Read<typeof relay>;

/** Whether a relay's host is nothing but a name or an IP address: nothing in it can end the host's part of a URL. */
export function isHost(host: string): boolean {
  return host.length <= MAX_HOST && /^[A-Za-z0-9._:-]+$/.test(host);
}

const welcome = extensible(
  { observed: text(0, 1024), heartbeat_seconds: u16, time: safe },
  { stun_port: u16, relay },
);
export type Welcome = Read<typeof welcome>;

const refusedReason = reason(
  'not_enrolled',
  'bad_token',
  'bad_signature',
  'wrong_broker_name',
  'stale_epoch',
  'superseded',
  'protocol_error',
  'limit',
  'revoked',
);
export type RefusedReason = Read<typeof refusedReason>;

/** Whether trying the same again soon can help without anybody's doing. A stale epoch needs another one first. */
export function isTemporary(why: RefusedReason): boolean {
  return why === 'limit';
}

const presenceState = extensible({
  online: bool,
  boot: bootId,
  epoch,
  proof: signature,
  since_seconds: safe,
});
export type PresenceState = Read<typeof presenceState>;

/** From the broker to a device. */
export const fromBroker = oneOf({
  challenge: extensible({ nonce }),
  welcome,
  refused: extensible({ reason: refusedReason }, { newest: epoch }),
  heartbeat_answer: extensible({ n: u32 }, { relay }),
  presence: extensible({ farm: farmId }, { state: presenceState }),
  signal,
  undelivered: extensible({ peer: address, reason: reason('offline', 'limit') }),
  retry_after: extensible({ milliseconds: u32 }),
});
export type FromBroker = Read<typeof fromBroker>;

/** What a device says of itself when it authenticates. */
export interface Claim {
  role: Role;
  slot: number;
  boot: Bytes;
  epoch: Epoch;
  broker: string;
}

/** What an authentication's signature is over. */
export function transcript(challenge: Bytes, key: Bytes, claim: Claim): Bytes {
  const marks = Uint8Array.of(claim.role === 'farm' ? 0 : 1, claim.slot);
  return concat(challenge, key, marks, claim.boot, uint64(claim.epoch), utf8(claim.broker));
}

/** Signs a claim for one challenge. */
export async function signClaim(key: DeviceKey, challenge: Bytes, claim: Claim): Promise<Authenticate> {
  const made = await key.sign('authenticate', transcript(challenge, key.public, claim));
  return { ...claim, key: key.public, signature: made };
}

/** What a farm's signature over its run and epoch is over. */
export function presenceContent(farm: Bytes, boot: Bytes, known: Epoch): Bytes {
  return concat(farm, boot, uint64(known));
}

/** Checks the farm's own signature; whether it is online stays the broker's word. */
export function verifyPresence(state: PresenceState, farm: Bytes, key: Bytes): Promise<boolean> {
  return verify(key, 'presence', presenceContent(farm, state.boot, state.epoch), state.proof);
}
