/** One HTTP exchange of a farm page with its service, over one stream of the tunnel. */

import { type Bytes, concat, utf8 } from '../core/bytes';
import type { CookieJar } from '../http/cookies';
import { type ResponseHead, readBody, readHead, values, writeHead } from '../http/message';
import { ByteReader, CutShort, HttpError } from '../http/reader';
import { nonceOf, requestFields, responseFields } from '../http/rewrite';
import type { Ask, FromWorker, ToWorker } from '../view/protocol';
import { turn } from './clock';
import { report } from './log';
import { StreamReset, type TunnelStream } from './streams';

/** A request that can be asked again is, for this long: the farm's box restarts within seconds. */
const RETRY_FOR_MS = 10_000;

/** Between two tries. */
const RETRY_EVERY_MS = 300;

/** A body up to this size is collected, so that the service hears its length; a longer one goes in chunks. */
const WHOLE_BODY = 1024 * 1024;

/** Pieces of this size are part of something large, where a moment more does not matter. */
const BULK = 32 * 1024;

/** What conversations of one service share. */
export interface Around {
  open(): TunnelStream;
  /** The view's origin. */
  origin: string;
  jar: CookieJar;
}

type Request = Extract<Ask, { kind: 'request' }>;

/** Carries a request out and tells the worker on `line`; `onOpen` gets what ends it early. */
export async function exchange(
  around: Around,
  asked: Request,
  line: MessagePort,
  onOpen: (abort: () => void) => void,
): Promise<void> {
  const run = new Exchange(around, asked, line);
  onOpen(() => run.cancel());
  await run.run();
}

class Exchange {
  private stream: TunnelStream | null = null;
  private over = false;
  private credit = 0;
  private waitsForCredit: (() => void) | null = null;
  private waitsForBody: ((bytes: ArrayBuffer | null) => void) | null = null;
  private bodyTouched = false;

  constructor(
    private readonly around: Around,
    private readonly asked: Request,
    private readonly line: MessagePort,
  ) {
    line.onmessage = (event: MessageEvent<FromWorker>) => this.heard(event.data);
  }

  private heard(message: FromWorker): void {
    if (message.kind === 'credit') {
      this.credit += message.bytes;
      this.waitsForCredit?.();
    } else if (message.kind === 'body') this.waitsForBody?.(message.bytes);
    else this.cancel();
  }

  cancel(): void {
    this.over = true;
    this.stream?.abort();
    this.waitsForCredit?.();
    this.waitsForBody?.(null);
  }

  async run(): Promise<void> {
    const began = Date.now();
    for (;;) {
      try {
        return await this.attempt();
      } catch (error) {
        this.stream?.abort();
        if (this.over) return;
        report('page', `a request failed: ${explain(error)}`);
        const again = this.mayRepeat(error) && Date.now() - began < RETRY_FOR_MS;
        if (!again) return this.say({ kind: 'failed', why: explain(error) });
        await new Promise(resolve => setTimeout(resolve, RETRY_EVERY_MS));
      }
    }
  }

  private headSent = false;

  /** Only what changes nothing at the service, and of what nothing was shown yet. */
  private mayRepeat(error: unknown): boolean {
    if (this.headSent || this.bodyTouched) return false;
    const safe = this.asked.method === 'GET' || this.asked.method === 'HEAD';
    const lost =
      error instanceof CutShort || (error instanceof StreamReset && error.reason !== 'unknown_service');
    return safe && lost;
  }

  private async attempt(): Promise<void> {
    const { around, asked } = this;
    this.stream = around.open();
    const stream = this.stream;
    const cookie = around.jar.header(asked.path, false, Date.now());
    const fields = requestFields(asked, around.origin, cookie);
    const sending = this.send(stream, fields);
    // A service may answer before it has read all: its answer counts.
    sending.catch(error => report('page', `a request was not sent whole: ${explain(error)}`));
    const reader = new ByteReader(() => stream.read());
    const head = await readHead(reader);
    this.answer(head);
    for await (const bytes of readBody(reader, asked.method, head)) {
      await this.deliver(bytes);
      if (this.over) return;
      // What came meanwhile goes in one message: under load each costs more than its bytes.
      if (bytes.length >= BULK) await turn();
    }
    this.say({ kind: 'end' });
    stream.abort();
  }

  private answer(head: ResponseHead): void {
    for (const text of values(head.fields, 'set-cookie'))
      this.around.jar.set(text, this.asked.path, false, Date.now());
    if (head.status === 101) throw new HttpError('the service switched to another protocol');
    this.headSent = true;
    this.say({
      kind: 'head',
      status: head.status,
      statusText: head.statusText,
      fields: responseFields(head.fields, this.around.origin),
      nonce: nonceOf(head.fields),
    });
  }

  private async deliver(bytes: Bytes): Promise<void> {
    for (let rest = bytes; rest.length > 0 && !this.over; ) {
      if (this.credit <= 0) {
        await new Promise<void>(resolve => {
          this.waitsForCredit = resolve;
        });
        this.waitsForCredit = null;
        continue;
      }
      // Given away whole where nobody else holds a part of it.
      const whole = rest.length <= this.credit && rest.length === rest.buffer.byteLength;
      const part = whole ? rest : rest.slice(0, this.credit);
      this.credit -= part.length;
      rest = rest.subarray(part.length);
      this.line.postMessage({ kind: 'data', bytes: part.buffer } satisfies ToWorker, [part.buffer]);
    }
  }

  private async send(
    stream: TunnelStream,
    fields: [string, string][] | ReturnType<typeof requestFields>,
  ): Promise<void> {
    const { method, path, hasBody } = this.asked;
    if (!hasBody) return stream.write(writeHead({ method, path, fields }));
    const first: Bytes[] = [];
    let size = 0;
    let more = true;
    while (more && size <= WHOLE_BODY) {
      const bytes = await this.nextBody();
      if (bytes) {
        first.push(bytes);
        size += bytes.length;
      } else more = false;
    }
    const length = more
      ? (['Transfer-Encoding', 'chunked'] as const)
      : (['Content-Length', String(size)] as const);
    await stream.write(writeHead({ method, path, fields: [...fields, length] }));
    const put = (bytes: Bytes) =>
      stream.write(more ? concat(utf8(`${bytes.length.toString(16)}\r\n`), bytes, utf8('\r\n')) : bytes);
    const chunked = more;
    for (const bytes of first) if (bytes.length > 0) await put(bytes);
    while (more) {
      const bytes = await this.nextBody();
      if (!bytes) break;
      if (bytes.length > 0) await put(bytes);
    }
    if (chunked) await stream.write(utf8('0\r\n\r\n'));
  }

  private async nextBody(): Promise<Bytes | null> {
    this.bodyTouched = true;
    if (this.over) return null;
    const given = new Promise<ArrayBuffer | null>(resolve => {
      this.waitsForBody = resolve;
    });
    this.say({ kind: 'more' });
    const bytes = await given;
    this.waitsForBody = null;
    return bytes && new Uint8Array(bytes);
  }

  private say(message: ToWorker): void {
    this.line.postMessage(message);
  }
}

function explain(error: unknown): string {
  if (error instanceof StreamReset) return `the connection to the service ended (${error.reason})`;
  return error instanceof Error ? error.message : String(error);
}
