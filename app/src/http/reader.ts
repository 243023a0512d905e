/** Reads a byte stream by lines and lengths. */

import { type Bytes, concat } from '../core/bytes';

/** The other end broke HTTP, or ended too early. */
export class HttpError extends Error {}

/** The other end was gone too early: it may have restarted. */
export class CutShort extends HttpError {
  constructor() {
    super('the service closed the connection in the middle');
  }
}

const LF = 10;

export class ByteReader {
  private held: Bytes = new Uint8Array();
  private ended = false;

  constructor(private readonly next: () => Promise<Bytes | null>) {}

  private async more(): Promise<boolean> {
    if (this.ended) return false;
    const bytes = await this.next();
    if (bytes === null) {
      this.ended = true;
      return false;
    }
    this.held = this.held.length === 0 ? bytes : concat(this.held, bytes);
    return true;
  }

  /** A line without its end, as Latin-1; at most `limit` bytes. */
  async line(limit: number): Promise<string> {
    let from = 0;
    for (;;) {
      const end = this.held.indexOf(LF, from);
      if (end >= 0 && end <= limit) {
        const line = this.held.subarray(0, end);
        this.held = this.held.subarray(end + 1);
        return String.fromCharCode(...line).replace(/\r$/, '');
      }
      if (this.held.length > limit) throw new HttpError('a line is too long');
      from = this.held.length;
      if (!(await this.more())) throw new CutShort();
    }
  }

  /** Up to `max` bytes as they come, `null` at the end. */
  async some(max: number): Promise<Bytes | null> {
    if (this.held.length === 0 && !(await this.more())) return null;
    const bytes = this.held.subarray(0, max);
    this.held = this.held.subarray(bytes.length);
    return bytes;
  }

  /** Exactly `count` bytes. */
  async exactly(count: number): Promise<Bytes> {
    while (this.held.length < count) {
      if (!(await this.more())) throw new CutShort();
    }
    const bytes = this.held.slice(0, count);
    this.held = this.held.subarray(count);
    return bytes;
  }
}
