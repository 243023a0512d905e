// A farm that names two brokers: the app goes on to the second when the first is gone.

import { check, must } from './checks.mjs';
import { paired } from './life.mjs';
import { run, until, World } from './world.mjs';

/** A second by the goal, and what a busy machine adds to the start of three programs. */
const WITHIN_MS = 10_000;

export async function brokers() {
  await check('the first of two brokers is gone: the farm is found at the other', async () => {
    const world = await World.start({ spare: true });
    try {
      const { context } = await world.browser();
      const page = await paired(world, context);
      // What brokers of one cluster share: the farms.
      const backup = `${world.dir}/backup`;
      await run('farm-broker', ['backup', backup, '--state', world.brokerState]);
      await run('farm-broker', ['restore', backup, '--state', world.spareState]);
      await world.broker.end('SIGTERM');
      await world.spare.start();
      await until('the farm at the second broker', async () =>
        (await run('farm-broker', ['farms', '--state', world.spareState])).includes('online'),
      );
      await page.getByText('The meeting server is away').waitFor({ state: 'hidden', timeout: WITHIN_MS });
      // A new start of the farm is met with a broker's help alone.
      await world.agent.end();
      await page.locator('.chip[role=status]:not([data-mood=fine])').waitFor();
      const began = Date.now();
      await world.agent.start();
      await page.locator('.chip[role=status][data-mood=fine]').waitFor({ timeout: WITHIN_MS });
      const took = Date.now() - began;
      must(world.broker.child === null, 'the first broker runs');
      return `live ${took} ms after the farm began to start`;
    } finally {
      await world.stop();
    }
  });
}
