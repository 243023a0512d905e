/**
 * Whether a network wants a login first: it answers in the broker's place. The
 * answer is looked at and never believed: it changes what is shown, and no
 * attempt is left out for it.
 */

/** What came back for the broker's health page, as far as a page may see it. */
export interface Seen {
  /** A redirect that was not followed. */
  redirect: boolean;
  status: number;
  body: string;
}

/** Longest answer that is looked at, in bytes: the broker's has 40. */
export const MAX_BODY = 1024;

/**
 * Who answered. A proxy before a broker that restarts says 5xx, and a wrong
 * address 4xx: those are no logins. RFC 6585 section 6 has 511 for just this.
 */
export function whoAnswered(seen: Seen): 'broker' | 'network' | 'unknown' {
  if (seen.redirect || seen.status === 511) return 'network';
  if (isBrokers(seen.body)) return 'broker';
  return seen.status >= 200 && seen.status < 300 ? 'network' : 'unknown';
}

function isBrokers(body: string): boolean {
  if (body.length > MAX_BODY) return false;
  try {
    const said: unknown = JSON.parse(body);
    return typeof said === 'object' && said !== null && 'ok' in said && typeof said.ok === 'boolean';
  } catch {
    return false;
  }
}
