/** WebSockets (RFC 6455), the client's side, over any byte stream. */

import { type Bytes, concat, utf8 } from '../core/bytes';
import { type Field, readHead, values, writeHead } from './message';
import { ByteReader, HttpError } from './reader';

/** Largest message taken, in bytes: more is a mistake or an attack. */
const MAX_MESSAGE = 64 * 1024 * 1024;

/** What is spoken over. */
export interface ByteStream {
  read(): Promise<Bytes | null>;
  write(bytes: Bytes): Promise<void>;
}

/** What a connection hears. */
export type Heard =
  | { kind: 'message'; data: string | Bytes }
  | { kind: 'ping'; data: Bytes }
  | { kind: 'close'; code: number; reason: string };

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));

/** Opens a connection; gives the chosen subprotocol and the reader of what follows. */
export async function open(
  stream: ByteStream,
  path: string,
  fields: readonly Field[],
  protocols: readonly string[],
): Promise<{ protocol: string; reader: ByteReader; fields: Field[] }> {
  const key = base64(crypto.getRandomValues(new Uint8Array(16)));
  const own: Field[] = [
    ['Upgrade', 'websocket'],
    ['Connection', 'Upgrade'],
    ['Sec-WebSocket-Version', '13'],
    ['Sec-WebSocket-Key', key],
  ];
  if (protocols.length > 0) own.push(['Sec-WebSocket-Protocol', protocols.join(', ')]);
  await stream.write(writeHead({ method: 'GET', path, fields: [...fields, ...own] }));
  const reader = new ByteReader(() => stream.read());
  const head = await readHead(reader);
  const expected = base64(new Uint8Array(await crypto.subtle.digest('SHA-1', utf8(key + GUID))));
  if (head.status !== 101 || values(head.fields, 'sec-websocket-accept')[0] !== expected) {
    throw new HttpError(`the service refused the WebSocket (${head.status})`);
  }
  const [protocol = ''] = values(head.fields, 'sec-websocket-protocol');
  if (protocol !== '' && !protocols.includes(protocol))
    throw new HttpError('a subprotocol that was not offered');
  return { protocol, reader, fields: head.fields };
}

const CODES = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/** One frame, masked as a client must. */
export function frame(kind: keyof typeof CODES, payload: Bytes): Bytes {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const out = new Uint8Array(2 + extended + 4 + length);
  const view = new DataView(out.buffer);
  out[0] = 0x80 | CODES[kind];
  out[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, length);
  else if (extended === 8) view.setBigUint64(2, BigInt(length));
  const mask = crypto.getRandomValues(new Uint8Array(4));
  out.set(mask, 2 + extended);
  const at = 6 + extended;
  for (let index = 0; index < length; index++)
    out[at + index] = (payload[index] ?? 0) ^ (mask[index & 3] ?? 0);
  return out;
}

/** The payload of a close frame. */
export function closePayload(code: number, reason: string): Bytes {
  return concat(Uint8Array.of(code >> 8, code & 255), utf8(reason).subarray(0, 123));
}

/** What comes, until the close or the end. */
export async function* listen(reader: ByteReader): AsyncGenerator<Heard> {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let parts: Bytes[] = [];
  let size = 0;
  let kind = 0;
  for (;;) {
    const [first = 0, second = 0] = await reader.exactly(2);
    const opcode = first & 15;
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0)
      throw new HttpError('a frame that breaks the protocol');
    let length = second & 127;
    if (length === 126) length = new DataView((await reader.exactly(2)).buffer).getUint16(0);
    else if (length === 127) length = Number(new DataView((await reader.exactly(8)).buffer).getBigUint64(0));
    size += length;
    if (size > MAX_MESSAGE) throw new HttpError('a message is too large');
    const payload = await reader.exactly(length);
    if (opcode === CODES.close) {
      const code = payload.length >= 2 ? ((payload[0] ?? 0) << 8) | (payload[1] ?? 0) : 1005;
      yield { kind: 'close', code, reason: text.decode(payload.subarray(2)) };
      return;
    }
    if (opcode === CODES.ping) yield { kind: 'ping', data: payload };
    if (opcode >= 8) {
      size -= length;
      continue;
    }
    if (opcode !== 0) kind = opcode;
    parts.push(payload);
    if ((first & 0x80) === 0) continue;
    const whole = parts.length === 1 ? payload : concat(...parts);
    yield { kind: 'message', data: kind === CODES.text ? text.decode(whole) : whole };
    [parts, size] = [[], 0];
  }
}
