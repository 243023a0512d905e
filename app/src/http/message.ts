/** HTTP/1.1 (RFC 9112), the client's side, over any byte stream. */

import { type Bytes, utf8 } from '../core/bytes';
import { type ByteReader, CutShort, HttpError } from './reader';

/** Largest head of an answer, in bytes, and most header fields: what browsers take. */
const MAX_HEAD = 256 * 1024;
const MAX_FIELDS = 512;

/** Largest line that says how long a chunk is. */
const MAX_CHUNK_LINE = 1024;

/** Bytes handed on at once. */
const PIECE = 256 * 1024;

export type Field = readonly [name: string, value: string];

/** What is asked; the body follows apart. */
export interface RequestHead {
  method: string;
  path: string;
  fields: readonly Field[];
}

/** The head of an answer. */
export interface ResponseHead {
  status: number;
  statusText: string;
  fields: Field[];
}

/** Whether text can stand in a field or request line without breaking out of it. */
const isSafe = (text: string) => !/[\r\n\0]/.test(text);

/** A request's head as bytes. */
export function writeHead({ method, path, fields }: RequestHead): Bytes {
  const lines = [`${method} ${path} HTTP/1.1`];
  for (const [name, value] of fields) {
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || !isSafe(value))
      throw new HttpError(`a bad header field ${name}`);
    lines.push(`${name}: ${value}`);
  }
  if (!/^[A-Z]+$/.test(method) || !/^\/[^\s]*$|^\*$/.test(path)) throw new HttpError('a bad request line');
  return utf8(`${lines.join('\r\n')}\r\n\r\n`);
}

/** All values of a field, in lower case, without blanks around. */
export function values(fields: readonly Field[], name: string): string[] {
  return fields.filter(([known]) => known.toLowerCase() === name).map(([, value]) => value);
}

/** Reads an answer's head; interim ones are skipped. */
export async function readHead(reader: ByteReader): Promise<ResponseHead> {
  for (;;) {
    const head = await readOneHead(reader);
    if (head.status >= 200 || head.status === 101) return head;
  }
}

async function readOneHead(reader: ByteReader): Promise<ResponseHead> {
  let left = MAX_HEAD;
  const line = async () => {
    const text = await reader.line(left);
    left -= text.length + 2;
    return text;
  };
  const start = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(await line());
  if (!start) throw new HttpError('the service does not speak HTTP/1.1');
  const fields: [string, string][] = [];
  for (let text = await line(); text !== ''; text = await line()) {
    if (fields.length >= MAX_FIELDS) throw new HttpError('too many header fields');
    const last = fields.at(-1);
    const colon = text.indexOf(':');
    // Folded lines are of the past, but cheap controllers still send them.
    if (/^[ \t]/.test(text) && last) last[1] += ` ${text.trim()}`;
    else if (colon > 0) fields.push([text.slice(0, colon).trim(), text.slice(colon + 1).trim()]);
    else throw new HttpError('a broken header field');
  }
  return { status: Number(start[1]), statusText: start[2] ?? '', fields };
}

/** The body that follows a head, as it comes. */
export async function* readBody(
  reader: ByteReader,
  method: string,
  head: ResponseHead,
): AsyncGenerator<Bytes> {
  if (method === 'HEAD' || head.status === 204 || head.status === 304) return;
  const coding = values(head.fields, 'transfer-encoding').join(',').toLowerCase();
  if (coding.includes('chunked')) return yield* chunked(reader);
  const [length] = values(head.fields, 'content-length');
  if (length === undefined) {
    for (let bytes = await reader.some(PIECE); bytes; bytes = await reader.some(PIECE)) yield bytes;
    return;
  }
  if (!/^\d{1,15}$/.test(length)) throw new HttpError('a broken length');
  yield* counted(reader, Number(length));
}

async function* counted(reader: ByteReader, length: number): AsyncGenerator<Bytes> {
  for (let left = length; left > 0; ) {
    const bytes = await reader.some(Math.min(left, PIECE));
    if (!bytes) throw new CutShort();
    left -= bytes.length;
    yield bytes;
  }
}

async function* chunked(reader: ByteReader): AsyncGenerator<Bytes> {
  for (;;) {
    const size = /^\s*([0-9a-fA-F]{1,12})\s*(;|$)/.exec(await reader.line(MAX_CHUNK_LINE))?.[1];
    if (size === undefined) throw new HttpError('a broken chunk');
    const length = Number.parseInt(size, 16);
    if (length === 0) break;
    yield* counted(reader, length);
    if ((await reader.line(2)) !== '') throw new HttpError('a broken chunk');
  }
  for (let left = MAX_FIELDS; (await reader.line(MAX_HEAD)) !== ''; left--) {
    if (left === 0) throw new HttpError('too many trailers');
  }
}
