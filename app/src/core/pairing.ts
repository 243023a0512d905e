/**
 * Pairing, the phone's side: both sides prove that they know the invitation's
 * secret, the farm also signs. The broker between the two learns nothing and
 * can alter nothing.
 */

import type { Bytes } from './bytes';
import { concat, equal, utf8 } from './bytes';
import { MAX_MESSAGE } from './codec';
import { invitationId, slot } from './id';
import { idOfSecret } from './invitation';
import { mac, nonce, publicKey, signature, verify } from './keys';
import { exact, oneOf, type Read, reason, text } from './schema';

/** Longest name of a phone or farm, in bytes. */
export const MAX_NAME = 64;

/** A phone asks to be let in. */
export const pairRequest = exact({
  invitation: invitationId,
  phone: publicKey,
  slot,
  nonce,
  name: text(0, MAX_MESSAGE),
  mac,
});
export type PairRequest = Read<typeof pairRequest>;

/** Why a farm does not pair. */
export const pairRefused = reason(
  'unknown_invitation',
  'expired',
  'used',
  'wrong_proof',
  'too_many_tries',
  'too_many_phones',
  'malformed',
);
export type PairRefused = Read<typeof pairRefused>;

/** The farm's answer. */
export const pairAnswer = oneOf({
  accepted: exact({ farm: publicKey, farm_nonce: nonce, nonce, name: text(0, MAX_MESSAGE), mac, signature }),
  refused: exact({ nonce, reason: pairRefused }),
});
export type PairAnswer = Read<typeof pairAnswer>;

/** An answer that is not to be believed, or a refusal. */
export class PairError extends Error {
  constructor(
    readonly kind: 'refused' | 'forged' | 'other_request',
    readonly reason?: PairRefused,
  ) {
    super(reason ?? kind);
  }
}

/** What a request's MAC is over. */
export function requestContent(request: Omit<PairRequest, 'mac'>): Bytes {
  return concat(
    utf8('farm-tunnel.v1 pair request\0'),
    request.invitation,
    request.phone,
    Uint8Array.of(request.slot),
    request.nonce,
    utf8(request.name),
  );
}

/** What an answer's MAC and signature are over. */
export function answerContent(request: PairRequest, farm: Bytes, farmNonce: Bytes, name: string): Bytes {
  return concat(
    utf8('farm-tunnel.v1 pair answer\0'),
    request.invitation,
    farm,
    request.phone,
    request.nonce,
    farmNonce,
    utf8(name),
  );
}

/** HMAC-SHA256 (RFC 2104) with the invitation's secret. */
export async function macOf(secret: Bytes, content: Bytes): Promise<Bytes> {
  const key = await crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: 'SHA-256' }, false, [
    'sign',
  ]);
  return new Uint8Array(await crypto.subtle.sign('HMAC', key, content));
}

/** The phone's request. */
export async function request(
  secret: Bytes,
  phone: Bytes,
  ourSlot: number,
  fresh: Bytes,
  name: string,
): Promise<PairRequest> {
  const open = { invitation: await idOfSecret(secret), phone, slot: ourSlot, nonce: fresh, name };
  return { ...open, mac: await macOf(secret, requestContent(open)) };
}

/**
 * Checks the farm's answer: the farm's key and name. `pinned` is the key from
 * the link, if there was one. Throws {@link PairError}.
 */
export async function checkAnswer(
  secret: Bytes,
  asked: PairRequest,
  pinned: Bytes | null,
  answer: PairAnswer,
): Promise<{ farm: Bytes; name: string }> {
  const repeated = (answer.accepted ?? answer.refused).nonce;
  if (!equal(repeated, asked.nonce)) throw new PairError('other_request');
  if (answer.refused) throw new PairError('refused', answer.refused.reason);
  const { farm, farm_nonce, name, mac: proof, signature: made } = answer.accepted;
  const content = answerContent(asked, farm, farm_nonce, name);
  const genuine =
    equal(await macOf(secret, content), proof) &&
    (await verify(farm, 'pairing', content, made)) &&
    (pinned === null || equal(pinned, farm)) &&
    utf8(name).length <= MAX_NAME;
  if (!genuine) throw new PairError('forged');
  return { farm, name };
}
