/**
 * Crockford's base 32 in lower case: what people read aloud and what fits a
 * host name. No padding; `i`, `l`, `o` are read as 1, 1, 0.
 */

import type { Bytes } from './bytes';

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** Encodes, most significant bit first; the last character is padded with zero bits. */
export function encode(bytes: Uint8Array): string {
  let out = '';
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += ALPHABET[(held >> bits) & 31];
    }
    held &= (1 << bits) - 1;
  }
  return bits > 0 ? out + ALPHABET[(held << (5 - bits)) & 31] : out;
}

/**
 * Decodes; case, hyphens and blanks are ignored. `null` for any other
 * character, an impossible length, or padding bits that are not zero.
 */
export function decode(text: string): Bytes | null {
  const out: number[] = [];
  let bits = 0;
  let held = 0;
  for (const character of text.toLowerCase()) {
    if (character === '-' || character === ' ') continue;
    // Lower case of a foreign letter may be a known one ("K" for Kelvin).
    const known = character === 'i' || character === 'l' ? '1' : character === 'o' ? '0' : character;
    const value = ALPHABET.indexOf(known);
    if (value < 0) return null;
    held = (held << 5) | value;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      out.push((held >> bits) & 255);
      held &= (1 << bits) - 1;
    }
  }
  if (bits >= 5 || held !== 0 || /[^\x20-\x7e]/.test(text)) return null;
  return Uint8Array.from(out);
}
