/**
 * Base 64 for URLs without padding (RFC 4648 section 5): keys and secrets in
 * the fragment of an invitation link.
 */

import type { Bytes } from './bytes';

/** Encodes without padding. */
export function encode(bytes: Uint8Array): string {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/**
 * Decodes text without padding; `null` for a foreign character, an impossible
 * length, or trailing bits that are not zero.
 */
export function decode(text: string): Bytes | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) return null;
  const raw = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  const bytes = Uint8Array.from(raw, character => character.charCodeAt(0));
  return encode(bytes) === text ? bytes : null;
}
