/**
 * CBOR (RFC 8949) in and out: the one place that knows `cborg`.
 *
 * Every message is a two-element array `[VERSION, body]`, so that a reader
 * can refuse another version before it looks at the body.
 */

import { encode as cborEncode, Tokenizer, Type, tokensToObject } from 'cborg';
import type { Bytes } from './bytes';
import { Float, Malformed, type Reader } from './schema';

/** The version of the wire. */
export const VERSION = 1;

/** The largest message accepted or produced, in bytes (64 KiB). */
export const MAX_MESSAGE = 64 * 1024;

/** Why a message could not be read or written. */
export class CodecError extends Error {
  constructor(
    readonly kind: 'too_large' | 'version' | 'malformed',
    message: string,
  ) {
    super(message);
  }
}

const OPTIONS = {
  strict: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowBigInt: false,
  useMaps: true,
  rejectDuplicateMapKeys: true,
  retainStringBytes: true,
};

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

class ExactTokenizer extends Tokenizer {
  override next() {
    const token = super.next();
    if (Type.equals(token.type, Type.float)) token.value = new Float(token.value);
    // Not ASCII alone: the library replaces what is no UTF-8, we refuse it.
    const raw = token.byteValue;
    if (raw?.some(byte => byte > 0x7f)) token.value = utf8Decoder.decode(raw);
    return token;
  }
}

/** Writes `[VERSION, body]`; a field that is undefined is left out. */
export function encode(body: unknown): Bytes {
  const bytes = cborEncode([VERSION, body], { ignoreUndefinedProperties: true });
  if (bytes.length > MAX_MESSAGE) throw tooLarge(bytes.length);
  // A plain view: under Node the library makes a Buffer.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Reads `[VERSION, body]` from bytes that may be hostile; throws {@link CodecError}. */
export function decode<T>(body: Reader<T>, bytes: Uint8Array): T {
  if (bytes.length > MAX_MESSAGE) throw tooLarge(bytes.length);
  const message = read(bytes);
  if (!Array.isArray(message) || message.length !== 2) throw malformed('not [version, body]');
  const [version, content] = message as [unknown, unknown];
  if (typeof version !== 'number') throw malformed('not [version, body]');
  if (version !== VERSION) {
    throw new CodecError('version', `message of protocol version ${version}, this side speaks ${VERSION}`);
  }
  try {
    return body(content);
  } catch (error) {
    if (error instanceof Malformed) throw malformed(error.message);
    throw error;
  }
}

function read(bytes: Uint8Array): unknown {
  try {
    const tokenizer = new ExactTokenizer(bytes, OPTIONS);
    const value: unknown = tokensToObject(tokenizer, OPTIONS);
    if (!tokenizer.done()) throw new Error('bytes follow the message');
    return value;
  } catch (error) {
    // Also where nesting exhausts the stack.
    throw malformed(error instanceof Error ? error.message : String(error));
  }
}

function tooLarge(length: number): CodecError {
  return new CodecError('too_large', `message of ${length} bytes is over the limit of ${MAX_MESSAGE}`);
}

function malformed(why: string): CodecError {
  return new CodecError('malformed', `malformed message: ${why}`);
}
