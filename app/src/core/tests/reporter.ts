/** Ends a run with one line like cargo's, which `tests/run-all` adds up; failures are shown by the default reporter. */

import type { Reporter, TestModule } from 'vitest/node';

export default class CargoLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const states = modules.flatMap(module =>
      Array.from(module.children.allTests(), test => test.result().state),
    );
    const count = (state: string) => states.filter(found => found === state).length;
    const broken = modules.filter(module => module.errors().length > 0).length + errors.length;
    const failed = count('failed') + broken;
    const verdict = failed > 0 ? 'FAILED' : 'ok';
    console.log(
      `test result: ${verdict}. ${count('passed')} passed; ${failed} failed; ${count('skipped')} ignored; 0 measured`,
    );
  }
}
