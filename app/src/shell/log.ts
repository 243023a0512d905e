/** What happened lately, for people who are asked to look; never keys, never secrets. */

/** Lines kept. */
const KEPT = 200;

const lines: string[] = [];

/** Notes a transition. */
export function report(part: string, what: string): void {
  lines.push(`${new Date().toISOString().slice(11, 23)} ${part}: ${what}`);
  if (lines.length > KEPT) lines.shift();
}

/** The last lines. */
export function recent(): readonly string[] {
  return lines;
}
