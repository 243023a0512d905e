/**
 * What is changed between a page and its service, because the page runs on an
 * origin that the service does not know: the service is told that it is called
 * by its own machine, and what it says of addresses is made relative.
 */

import type { Field } from './message';
import { values } from './message';

/** By what name services are called: services that guard against foreign names take this one. */
export const HOST = 'localhost';

/** Path of the shim on a view's origin. */
export const SHIM_PATH = '/__view/shim.js';

/** What is between one neighbour and the next, and what we set ourselves. */
const NOT_SENT = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'cookie',
  'host',
  'keep-alive',
  'origin',
  'proxy-connection',
  'referer',
  'service-worker',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** The same for answers; who may frame a page is for the app to say, and its cookies are in the jar. */
const NOT_SHOWN = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'set-cookie',
  'strict-transport-security',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-frame-options',
  'cross-origin-embedder-policy',
  'cross-origin-opener-policy',
  'cross-origin-resource-policy',
  'clear-site-data',
  'alt-svc',
]);

/** What a page asked. */
export interface Asked {
  method: string;
  path: string;
  fields: readonly Field[];
  /** Of the page, on the view's origin; empty for none. */
  referrer: string;
  /** Whether the browser would name the page's origin. */
  withOrigin: boolean;
}

/** The fields that the service gets. */
export function requestFields(asked: Asked, viewOrigin: string, cookie: string | null): Field[] {
  const fields: Field[] = [['Host', HOST]];
  for (const [name, value] of asked.fields) if (!NOT_SENT.has(name.toLowerCase())) fields.push([name, value]);
  fields.push(['Accept-Encoding', 'gzip'], ['Connection', 'close']);
  if (cookie !== null) fields.push(['Cookie', cookie]);
  if (asked.withOrigin) fields.push(['Origin', `http://${HOST}`]);
  if (asked.referrer.startsWith(`${viewOrigin}/`)) {
    fields.push(['Referer', `http://${HOST}${asked.referrer.slice(viewOrigin.length)}`]);
  }
  return fields;
}

/** The fields that the page gets. */
export function responseFields(fields: readonly Field[], viewOrigin: string): Field[] {
  const kept = fields.filter(([name]) => !NOT_SHOWN.has(name.toLowerCase()));
  return kept.map(([name, value]): Field => {
    const known = name.toLowerCase();
    if (known === 'location' || known === 'content-location') return [name, relative(value)];
    if (known === 'content-security-policy' || known === 'content-security-policy-report-only') {
      return [name, policy(value, viewOrigin)];
    }
    return [name, value];
  });
}

/** An address of the service itself without its origin; another one as it is. */
function relative(location: string): string {
  const own = new RegExp(`^https?://${HOST}(:\\d+)?(?=/|$)`, 'i').exec(location);
  return own ? location.slice(own[0].length) || '/' : location;
}

/** A page's policy as the page wrote it, but that the shim may run and the app may frame it. */
export function policy(text: string, viewOrigin: string): string {
  const directives = text.split(';').map(directive => directive.trim());
  const kept = directives.filter(
    one => !/^(frame-ancestors|upgrade-insecure-requests|block-all-mixed-content)\b/i.test(one),
  );
  const named = kept.some(one => /^script-src(-elem)?\s/i.test(one));
  const shim = `${viewOrigin}${SHIM_PATH}`;
  const rules = kept.map(one => {
    const applies = /^script-src(-elem)?\s/i.test(one) || (!named && /^default-src\s/i.test(one));
    if (!applies) return one;
    const allowed = one.replace(/\s'none'/i, '');
    return `${allowed} ${shim}`;
  });
  return rules.join('; ');
}

/** The nonce by which a page's policy lets scripts run, for our own. */
export function nonceOf(fields: readonly Field[]): string | null {
  const all = values(fields, 'content-security-policy').join(';');
  return /'nonce-([A-Za-z0-9+/_=-]+)'/.exec(all)?.[1] ?? null;
}
