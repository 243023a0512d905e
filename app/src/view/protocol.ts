/** What a view's worker, bridge and shim say to the app, and back. All of it is plain data over message ports. */

import type { Field } from '../http/message';

/** Bytes that may be on their way to the worker without having been asked for. */
export const WINDOW = 1024 * 1024;

/** From the worker to the app, each with a port for the rest of the conversation. */
export type Ask =
  | {
      kind: 'request';
      method: string;
      path: string;
      fields: Field[];
      referrer: string;
      withOrigin: boolean;
      /** A body follows. */
      hasBody: boolean;
    }
  | { kind: 'socket'; path: string; protocols: string[] }
  | { kind: 'cookies'; path: string }
  | { kind: 'cookie'; text: string; path: string };

/** On a request's port, from the worker. */
export type FromWorker =
  | { kind: 'credit'; bytes: number }
  | { kind: 'body'; bytes: ArrayBuffer | null }
  | { kind: 'cancel' };

/** On a request's port, from the app. */
export type ToWorker =
  | { kind: 'head'; status: number; statusText: string; fields: Field[]; nonce: string | null }
  | { kind: 'data'; bytes: ArrayBuffer }
  | { kind: 'end' }
  | { kind: 'more' }
  | { kind: 'failed'; why: string };

/** On a socket's port, from the page. */
export type FromSocket =
  | { kind: 'send'; data: string | ArrayBuffer }
  | { kind: 'close'; code: number; reason: string };

/** On a socket's port, from the app. */
export type ToSocket =
  | { kind: 'open'; protocol: string }
  | { kind: 'message'; data: string | ArrayBuffer }
  | { kind: 'sent'; bytes: number }
  | { kind: 'closed'; code: number; reason: string; clean: boolean };

/** From the bridge or a booting page to the app's window. */
export type FromView =
  | { farmView: 'port' }
  | { farmView: 'ready' }
  | { farmView: 'boot' }
  | { farmView: 'failed'; why: string };
