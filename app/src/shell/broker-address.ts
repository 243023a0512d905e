/** A broker's URL. */

/** Where a broker is. */
export interface BrokerAddress {
  /** `wss://HOST[:PORT]`, as it is kept and shown. */
  url: string;
  /** Host and, where it is not the scheme's own, port: what the device signs as the broker's name. */
  authority: string;
  /** The host alone, without brackets. */
  host: string;
}

/** Reads `wss://…` or `ws://…`; `null` for anything else. */
export function parseBroker(text: string): BrokerAddress | null {
  if (!/^wss?:\/\/[^/?#@\s]+\/?$/i.test(text)) return null;
  try {
    const url = new URL(text);
    if (!url.hostname || url.port === '0') return null;
    // `URL` leaves out the scheme's own port and writes the host in lower case.
    const host = url.hostname.replace(/^\[|\]$/g, '');
    return { url: `${url.protocol}//${url.host}`, authority: url.host, host };
  } catch {
    return null;
  }
}

/** Most brokers in one list. The same as in `tunnel/src/broker_socket/address.rs`. */
const MAX_BROKERS = 8;

/**
 * Reads the URLs of one cluster's brokers with commas between them; `null` for anything else. The
 * one that serves this page comes first: it has just answered.
 */
export function parseBrokers(text: string, own: string): BrokerAddress[] | null {
  const addresses = text.split(',').map(url => parseBroker(url.trim()));
  const known = addresses.filter(address => address !== null);
  if (known.length < addresses.length || known.length > MAX_BROKERS) return null;
  return known.toSorted((a, b) => Number(b.url === own) - Number(a.url === own));
}

/** The broker that serves this page, for codes that name none. */
export function ownBroker(location: { protocol: string; host: string }): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}`;
}
