import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
    reporters: [['default', { summary: false }], './src/core/tests/reporter.ts'],
  },
});
