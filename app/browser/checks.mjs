// Runs checks one after the other, each named, and closes with one line like
// cargo's, which `tests/run-all` adds up.

const results = [];

/** Runs one check; a failure is shown at once and the next goes on. */
export async function check(name, work) {
  const began = Date.now();
  try {
    const note = await work();
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
