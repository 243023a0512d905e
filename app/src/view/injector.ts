/**
 * Puts one script tag into an HTML page as it streams by: the first element
 * after byte order mark, blanks, comments and the doctype, so that quirks mode
 * stays what it was; every other byte passes untouched.
 */

/** Longest beginning that is searched for the place. */
const MAX_SEARCH = 64 * 1024;

/** How a page's bytes become characters, as far as it matters for finding the place. */
interface Encoding {
  /** Bytes of the byte order mark. */
  skip: number;
  /** Bytes of one character of ASCII. */
  width: 1 | 2;
  littleEndian: boolean;
}

export function encodingOf(bytes: Uint8Array, contentType: string): Encoding {
  const [a, b, c] = bytes;
  if (a === 0xff && b === 0xfe) return { skip: 2, width: 2, littleEndian: true };
  if (a === 0xfe && b === 0xff) return { skip: 2, width: 2, littleEndian: false };
  if (a === 0xef && b === 0xbb && c === 0xbf) return { skip: 3, width: 1, littleEndian: true };
  const wide = /charset="?utf-16(be|le)?/i.exec(contentType);
  return wide
    ? { skip: 0, width: 2, littleEndian: wide[1]?.toLowerCase() !== 'be' }
    : { skip: 0, width: 1, littleEndian: true };
}

/** Where the tag goes, in characters; `null` where more must be seen. */
export function place(text: string, isAll: boolean): number | null {
  let at = 0;
  for (;;) {
    at += /^\s*/.exec(text.slice(at))?.[0].length ?? 0;
    const rest = text.slice(at);
    const undecided =
      !isAll &&
      (rest === '' || '<!doctype'.startsWith(rest.toLowerCase()) || '<!--'.startsWith(rest) || rest === '<?');
    if (undecided) return null;
    const ends: [RegExp, string][] = [
      [/^<!--/, '-->'],
      [/^<\?/, '>'],
      [/^<!doctype/i, '>'],
    ];
    const found = ends.find(([begin]) => begin.test(rest));
    if (!found) return at;
    const end = rest.indexOf(found[1], found[1] === '-->' ? 4 : 0);
    if (end < 0) return isAll ? at : null;
    at += end + found[1].length;
  }
}

/** The stream that adds `tag`, which is ASCII. */
export function injector(contentType: string, tag: string): TransformStream<Uint8Array, Uint8Array> {
  let held = new Uint8Array();
  let done = false;
  const insert = (controller: TransformStreamDefaultController<Uint8Array>, isAll: boolean) => {
    // A byte order mark may still be coming.
    if (!isAll && held.length < 3) return;
    const { skip, width, littleEndian } = encodingOf(held, contentType);
    let text = '';
    const offset = width === 2 && !littleEndian ? 1 : 0;
    for (let at = skip; at + width <= held.length; at += width)
      text += String.fromCharCode(held[at + offset] ?? 0);
    const found = place(text, isAll || held.length > MAX_SEARCH);
    if (found === null) return;
    done = true;
    const at = skip + found * width;
    const bytes = new Uint8Array(tag.length * width);
    for (let index = 0; index < tag.length; index++) bytes[index * width + offset] = tag.charCodeAt(index);
    for (const part of [held.subarray(0, at), bytes, held.subarray(at)])
      if (part.length > 0) controller.enqueue(part);
    held = new Uint8Array();
  };
  return new TransformStream({
    transform(chunk, controller) {
      if (done) return controller.enqueue(chunk);
      const joined = new Uint8Array(held.length + chunk.length);
      joined.set(held);
      joined.set(chunk, held.length);
      held = joined;
      insert(controller, false);
    },
    flush(controller) {
      if (!done) insert(controller, true);
    },
  });
}
