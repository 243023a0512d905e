import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
    // The longest run of a core's vectors takes two seconds; a loaded machine ten times that.
    testTimeout: 60_000,
    reporters: [['default', { summary: false }], './src/core/tests/reporter.ts'],
  },
});
