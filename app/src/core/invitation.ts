/** Invitations: a one-time secret that lets one phone in, as a link, a QR code, or sixteen characters to type. */

import * as base32 from './base32';
import * as base64url from './base64url';
import type { Bytes } from './bytes';
import { concat, fromHex, utf8 } from './bytes';

/** How long an invitation is good for, in seconds. */
export const VALID_SECONDS = 600;

/** Bytes of a link's secret. */
const LINK_SECRET = 16;

/** Bytes of a typed code. */
const CODE_SECRET = 10;

/** Longest invitation text that is looked at, in bytes. */
const MAX_LINK = 1024;

/** What a phone is handed. */
export type Invitation =
  | { kind: 'link'; app: string; broker: string; farm: Bytes; secret: Bytes }
  | { kind: 'code'; secret: Bytes };

/** Text that is no invitation. */
export class InvitationError extends Error {
  constructor(
    readonly kind: 'not_an_invitation' | 'version' | 'part',
    readonly part?: string,
  ) {
    super(part === undefined ? kind : `${kind} ${part}`);
  }
}

/** What the broker and the wire see of a secret. */
export async function idOfSecret(secret: Bytes): Promise<Bytes> {
  const hash = await crypto.subtle.digest('SHA-256', concat(utf8('farm-tunnel.v1 invitation id\0'), secret));
  return new Uint8Array(hash, 0, 16).slice();
}

/** A code's secret as sixteen characters in groups of four. */
export function codeOf(secret: Bytes): string | null {
  if (secret.length !== CODE_SECRET) return null;
  return (base32.encode(secret).toUpperCase().match(/..../g) ?? []).join('-');
}

/** Reads a link or a code; throws {@link InvitationError}. */
export function parse(given: string): Invitation {
  const text = given.trim();
  if (utf8(text).length > MAX_LINK) throw new InvitationError('not_an_invitation');
  const hash = text.indexOf('#');
  if (hash < 0) {
    const secret = base32.decode(text);
    if (secret?.length !== CODE_SECRET) throw new InvitationError('not_an_invitation');
    return { kind: 'code', secret };
  }
  const parts = text.slice(hash + 1).split('&');
  const part = (name: string) => parts.find(p => p.startsWith(`${name}=`))?.slice(name.length + 1);
  const version = part('v');
  if (version === undefined) throw new InvitationError('not_an_invitation');
  if (version !== '1') throw new InvitationError('version', version.slice(0, 16));
  const broker = unescapePart(part('b') ?? '');
  if (!broker) throw new InvitationError('part', 'b');
  const farm = base64url.decode(part('k') ?? '');
  if (farm?.length !== 32) throw new InvitationError('part', 'k');
  const secret = base64url.decode(part('s') ?? '');
  if (secret?.length !== LINK_SECRET && secret?.length !== CODE_SECRET)
    throw new InvitationError('part', 's');
  return { kind: 'link', app: text.slice(0, hash), broker, farm, secret };
}

/** Writes a link. */
export function formatLink(link: Extract<Invitation, { kind: 'link' }>): string {
  const { app, broker, farm, secret } = link;
  return `${app}#v=1&b=${escapePart(broker)}&k=${base64url.encode(farm)}&s=${base64url.encode(secret)}`;
}

/** `%` and what would end the value are escaped (RFC 3986 section 3.5). */
function escapePart(text: string): string {
  return text.replace(/[%&#=+\s\p{Cc}]/gu, character =>
    Array.from(utf8(character), byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}

function unescapePart(text: string): string | null {
  const out: Uint8Array[] = [];
  for (const piece of text.split(/(%..?)/s)) {
    if (!piece.startsWith('%')) out.push(utf8(piece));
    else if (/^%[0-9a-fA-F]{2}$/.test(piece)) out.push(fromHex(piece.slice(1)));
    else return null;
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(concat(...out));
  } catch {
    return null;
  }
}
