// Runs checks one after the other, each named, and closes with one line like
// cargo's, which `tests/run-all` adds up.

const results = [];

/** A check that takes longer hangs: the longest, bulk, takes a minute, and three on a busy machine. */
const WITHIN_MS = 8 * 60_000;

/** What a check does, or that it did not end. */
async function bounded(work) {
  let bound;
  const late = new Promise((_, reject) => {
    bound = setTimeout(() => reject(new Error(`not done within ${WITHIN_MS / 1000} s`)), WITHIN_MS);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(bound);
  }
}

/** Runs one check; a failure is shown at once and the next goes on. */
export async function check(name, work) {
  const began = Date.now();
  try {
    const note = await bounded(work);
    results.push(true);
    console.log(`ok    ${name} (${Date.now() - began} ms)${note ? `: ${note}` : ''}`);
  } catch (error) {
    results.push(false);
    console.log(`FAIL  ${name}: ${error?.stack ?? error}`);
  }
}

let skipped = 0;

/** Says that something can't be checked here, and why. */
export function skip(name, why) {
  skipped += 1;
  console.log(`SKIP  ${name}: ${why}`);
}

/** Ends the run. */
export function conclude() {
  const failed = results.filter(passed => !passed).length;
  const verdict = failed > 0 ? 'FAILED' : 'ok';
  console.log(
    `test result: ${verdict}. ${results.length - failed} passed; ${failed} failed; ${skipped} ignored; 0 measured`,
  );
  process.exitCode = failed > 0 ? 1 : 0;
}

/** Fails with a sentence unless it holds. */
export function must(holds, what) {
  if (!holds) throw new Error(what);
}

/** Fails unless both are the same. */
export function same(found, expected, what) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  must(a === b, `${what}: ${a} instead of ${b}`);
}
