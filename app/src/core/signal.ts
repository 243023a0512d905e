/**
 * What phone and farm say to each other through the broker: signed offers,
 * answers and candidates. The broker can drop or delay them, nothing more.
 */

import { type Role, role } from './broker';
import type { Bytes } from './bytes';
import { equal, utf8 } from './bytes';
import { CodecError, decode, encode, MAX_MESSAGE } from './codec';
import { epoch } from './epoch';
import { bootId, farmId, type SessionId, sameSession, sessionId } from './id';
import { type DeviceKey, nonce, signature, verify } from './keys';
import { pairAnswer, pairRequest } from './pairing';
import { bytes, exact, oneOf, type Read, reason, text } from './schema';

/** Largest session description, in bytes. */
export const MAX_SDP = 16 * 1024;

/** Longest candidate line, in bytes. */
export const MAX_CANDIDATE = 512;

/** A signal's exact bytes and the sender's signature over them. */
export const signed = exact({ body: bytes(0, MAX_MESSAGE), signature });
export type Signed = Read<typeof signed>;

/** What a broker's signal holds. */
export const payload = oneOf({ signed, pair_request: pairRequest, pair_answer: pairAnswer });
export type Payload = Read<typeof payload>;

/** Why a farm refuses an offer. */
export const offerRefused = reason('other_boot', 'stale_epoch', 'not_paired', 'limit', 'bad_description');
export type OfferRefused = Read<typeof offerRefused>;

/** What a peer signal says. Its sizes are looked at when it is opened. */
export const content = oneOf({
  offer: exact({ nonce, phone_boot: bootId, farm_boot: bootId, sdp: text(0, MAX_MESSAGE) }),
  answer: exact({ nonce, sdp: text(0, MAX_MESSAGE) }),
  candidate: exact({ candidate: text(0, MAX_MESSAGE) }),
  refused: exact({ nonce, reason: offerRefused, farm_boot: bootId, newest: epoch }),
  goodbye: exact({}),
});
export type Content = Read<typeof content>;

/** One signal between a phone and its farm. */
export const peerSignal = exact({ from: role, farm: farmId, session: sessionId, epoch, content });
export type PeerSignal = Read<typeof peerSignal>;

/** Why a signal is not to be believed. */
export type SignalFailure = 'bad_signature' | 'malformed' | 'misdirected' | 'too_large';

/** A signal that is not to be believed. */
export class SignalError extends Error {
  constructor(
    readonly kind: SignalFailure,
    message: string,
  ) {
    super(message);
  }
}

/** What a signal must be about to be let in. */
export interface Expected {
  key: Bytes;
  from: Role;
  farm: Bytes;
  session: SessionId;
}

/** Encodes and signs. */
export async function sign(signal: PeerSignal, key: DeviceKey): Promise<Signed> {
  const body = encode(signal);
  return { body, signature: await key.sign('signal', body) };
}

/**
 * Verifies, decodes, and checks that the signal is meant for us. In that
 * order: nothing of a stranger's is even parsed. Throws {@link SignalError}.
 */
export async function open(received: Signed, expected: Expected): Promise<PeerSignal> {
  if (!(await verify(expected.key, 'signal', received.body, received.signature))) {
    throw new SignalError('bad_signature', 'the signal is not signed by the peer');
  }
  const signal = read(received.body);
  const { from } = signal;
  const misdirected = (what: string) => new SignalError('misdirected', `the signal is for another ${what}`);
  if (from !== expected.from) throw misdirected('direction');
  if (!equal(signal.farm, expected.farm)) throw misdirected('farm');
  if (!sameSession(signal.session, expected.session)) throw misdirected('session');
  const { offer, answer, candidate } = signal.content;
  const sdp = (offer ?? answer)?.sdp ?? '';
  if (utf8(sdp).length > MAX_SDP) throw new SignalError('too_large', 'the session description is too large');
  if (utf8(candidate?.candidate ?? '').length > MAX_CANDIDATE) {
    throw new SignalError('too_large', 'the candidate is too large');
  }
  const phonesOnly = offer !== undefined;
  const farmsOnly = answer !== undefined || signal.content.refused !== undefined;
  if ((phonesOnly && from !== 'phone') || (farmsOnly && from !== 'farm')) throw misdirected('direction');
  return signal;
}

function read(body: Bytes): PeerSignal {
  try {
    return decode(peerSignal, body);
  } catch (error) {
    if (error instanceof CodecError) throw new SignalError('malformed', error.message);
    throw error;
  }
}
