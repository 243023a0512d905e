/** A farm page's WebSocket, over one stream of the tunnel. */

import { type Bytes, utf8 } from '../core/bytes';
import { HOST } from '../http/rewrite';
import { closePayload, frame, listen, open } from '../http/websocket';
import type { Ask, FromSocket, ToSocket } from '../view/protocol';
import type { Around } from './exchange';
import { report } from './log';

type Opening = Extract<Ask, { kind: 'socket' }>;

/** How long the service has to answer our close. */
const CLOSE_WITHIN_MS = 3_000;

/** Carries a WebSocket; `onOpen` gets what ends it early. */
export async function socket(
  around: Around,
  asked: Opening,
  line: MessagePort,
  onOpen: (abort: () => void) => void,
): Promise<void> {
  const say = (message: ToSocket, transfer: Transferable[] = []) => line.postMessage(message, transfer);
  const stream = around.open();
  onOpen(() => stream.abort());
  let closed: { code: number; reason: string } | null = null;
  let writing: Promise<void> = Promise.resolve();
  const put = (bytes: Bytes, told = 0) => {
    writing = writing
      .then(() => stream.write(bytes))
      .then(() => {
        if (told > 0) say({ kind: 'sent', bytes: told });
      })
      .catch(() => undefined);
  };
  try {
    const cookie = around.jar.header(asked.path, false, Date.now());
    const fields: [string, string][] = [
      ['Host', HOST],
      ['Origin', `http://${HOST}`],
    ];
    if (cookie !== null) fields.push(['Cookie', cookie]);
    const { protocol, reader } = await open(stream, asked.path, fields, asked.protocols);
    line.onmessage = (event: MessageEvent<FromSocket>) => {
      const message = event.data;
      if (message.kind === 'close') {
        closed = message;
        put(frame('close', closePayload(message.code, message.reason)));
        setTimeout(() => stream.abort(), CLOSE_WITHIN_MS);
      } else if (typeof message.data === 'string')
        put(frame('text', utf8(message.data)), message.data.length);
      else put(frame('binary', new Uint8Array(message.data)), message.data.byteLength);
    };
    say({ kind: 'open', protocol });
    for await (const heard of listen(reader)) {
      if (heard.kind === 'ping') put(frame('pong', heard.data));
      else if (heard.kind === 'close') {
        if (!closed) put(frame('close', closePayload(heard.code === 1005 ? 1000 : heard.code, '')));
        await writing;
        say({ kind: 'closed', code: heard.code, reason: heard.reason, clean: true });
        return stream.abort();
      } else if (typeof heard.data === 'string') say({ kind: 'message', data: heard.data });
      else say({ kind: 'message', data: heard.data.buffer }, [heard.data.buffer]);
    }
  } catch (error) {
    report('page', `a WebSocket ended: ${error instanceof Error ? error.message : error}`);
    say({ kind: 'closed', code: 1006, reason: '', clean: false });
    stream.abort();
  }
}
