/** Identifiers of farms, phones, runs and sessions. */

import * as base32 from './base32';
import type { Bytes } from './bytes';
import { concat, equal, utf8 } from './bytes';
import { bytes, exact, integer, type Read } from './schema';

/** Length of a farm's or phone's id, in bytes: 32 characters, so that `SERVICE--FARM` fits a label. */
export const ID_LEN = 20;

/** Length of a boot id and of an invitation's id, in bytes. */
export const BOOT_LEN = 16;

/** Programs at once with one key. */
export const SLOT_COUNT = 8;

export const farmId = bytes(ID_LEN);
export const phoneId = bytes(ID_LEN);
export const bootId = bytes(BOOT_LEN);
export const invitationId = bytes(16);
export const slot = integer(SLOT_COUNT - 1);

/** A session at a farm: which phone, and which of its programs. Signed, so nothing unknown is read past. */
export const sessionId = exact({ phone: phoneId, slot });
export type SessionId = Read<typeof sessionId>;

/** The run of a farm that was never heard of. */
export const UNKNOWN_BOOT: Bytes = new Uint8Array(BOOT_LEN);

async function derive(context: string, key: Bytes): Promise<Bytes> {
  const hash = await crypto.subtle.digest('SHA-256', concat(utf8(context), key));
  return new Uint8Array(hash, 0, ID_LEN).slice();
}

/** The id that belongs to a farm's public key. */
export function farmIdOf(key: Bytes): Promise<Bytes> {
  return derive('farm-tunnel.v1 farm id\0', key);
}

/** The id that belongs to a phone's public key. */
export function phoneIdOf(key: Bytes): Promise<Bytes> {
  return derive('farm-tunnel.v1 phone id\0', key);
}

/** Reads an id as people write it; `null` for anything else. */
export function parseId(text: string): Bytes | null {
  if (text.length > 4 * ID_LEN) return null;
  const id = base32.decode(text);
  return id?.length === ID_LEN ? id : null;
}

/** Whether two sessions are the same. */
export function sameSession(a: SessionId, b: SessionId): boolean {
  return a.slot === b.slot && equal(a.phone, b.phone);
}

/** A fresh boot id or nonce. */
export function random(length: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(length));
}
