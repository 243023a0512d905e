// A browser that nobody watches: for measures. A test's usual grip on a browser
// makes it report every piece of every answer, which costs as much as moving it.
// This one speaks over a pipe (the DevTools protocol), and asks only for what it
// needs: to run a line of script in a page.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { browserArguments, browserPath, until } from './world.mjs';

/** A page, or a frame of another origin. */
class Target {
  /** Hears what the page says with `__say`. */
  hear = () => undefined;

  constructor(bare, session) {
    Object.assign(this, { bare, session });
  }

  send(method, params) {
    return this.bare.send(method, params, this.session);
  }

  /** Runs a function in the page; `given` and what it gives are plain data. */
  async evaluate(work, given) {
    const expression = `(${work})(${JSON.stringify(given) ?? ''})`;
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Lets the page call `__say`. */
  async listen() {
    await this.send('Runtime.enable');
    await this.send('Runtime.addBinding', { name: '__say' });
  }
}

export class Bare {
  static async start(world) {
    const bare = new Bare();
    const profile = mkdtempSync(`${world.dir}/profile-`);
    const args = [...browserArguments(profile), '--remote-debugging-pipe', 'about:blank'];
    bare.child = spawn(browserPath, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let text = '';
    bare.child.stdio[4].setEncoding('utf8').on('data', part => {
      const messages = (text + part).split('\0');
      text = messages.pop();
      for (const message of messages) bare.take(JSON.parse(message));
    });
    return bare;
  }

  asked = new Map();
  targets = new Map();
  count = 0;

  send(method, params = {}, sessionId = undefined) {
    this.count += 1;
    const id = this.count;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.asked.set(id, { resolve, reject, method }));
  }

  take({ id, method, params, result, error, sessionId }) {
    const asked = this.asked.get(id);
    this.asked.delete(id);
    if (error) asked?.reject(new Error(`${asked.method}: ${error.message}`));
    else asked?.resolve(result);
    if (method === 'Runtime.bindingCalled') this.targets.get(sessionId)?.hear(params.payload);
  }

  /** The page or frame whose address matches. */
  async find(address) {
    const found = await until(`a page at ${address}`, async () => {
      const { targetInfos } = await this.send('Target.getTargets');
      return targetInfos.find(({ type, url }) => /page|iframe/.test(type) && address.test(url));
    });
    return this.attach(found.targetId);
  }

  async open(url) {
    const { targetId } = await this.send('Target.createTarget', { url, newWindow: true });
    return this.attach(targetId);
  }

  async attach(targetId) {
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const target = new Target(this, sessionId);
    this.targets.set(sessionId, target);
    const isThere = () => document.readyState === 'complete' && location.href !== 'about:blank';
    // Until it has begun there is nothing to ask.
    await until('a page to load', () => target.evaluate(isThere).catch(() => false));
    return target;
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill();
    await gone;
  }
}
