/** Ed25519 (RFC 8032) keys and signatures, each signature bound to a purpose. */

import type { Bytes } from './bytes';
import { concat, utf8 } from './bytes';
import { bytes } from './schema';

export const publicKey = bytes(32);
export const signature = bytes(64);
export const nonce = bytes(16);
export const mac = bytes(32);

/** Length of a nonce, in bytes. */
export const NONCE_LEN = 16;

/** What a signature is for. One made for one purpose is worthless for every other. */
export type Purpose = 'authenticate' | 'signal' | 'pairing' | 'presence';

/** The bytes put before what is signed. */
export function context(purpose: Purpose): Bytes {
  return utf8(`farm-tunnel.v1 ${purpose}\0`);
}

/** A device's key pair. The private half can be used, never read. */
export interface DeviceKey {
  readonly public: Bytes;
  sign(purpose: Purpose, content: Bytes): Promise<Bytes>;
}

/** A key pair of the platform's as a device's key. */
export async function deviceKey(pair: CryptoKeyPair): Promise<DeviceKey> {
  const raw = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey));
  return {
    public: raw,
    async sign(purpose, content) {
      const signed = concat(context(purpose), content);
      return new Uint8Array(await crypto.subtle.sign('Ed25519', pair.privateKey, signed));
    },
  };
}

/** A new pair whose private half never leaves the platform. */
export async function generatePair(): Promise<CryptoKeyPair> {
  return (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as CryptoKeyPair;
}

/** Whether `key` made `signature` over `content` for `purpose`. */
export async function verify(key: Bytes, purpose: Purpose, content: Bytes, made: Bytes): Promise<boolean> {
  try {
    const imported = await crypto.subtle.importKey('raw', key, 'Ed25519', false, ['verify']);
    return await crypto.subtle.verify('Ed25519', imported, made, concat(context(purpose), content));
  } catch {
    // Not a point on the curve: no signature of it can hold.
    return false;
  }
}
