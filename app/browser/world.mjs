// A farm, a broker that serves the app, and a browser: the real programs, with
// fresh state, on loopback. Everything ends when `stop` is called.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

/** Time a program gets to start, or a thing to happen: generous, for a loaded machine. */
export const PATIENCE = 30_000;

const binaries =
  process.env.FARM_BIN_DIR ??
  `${process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../target', import.meta.url))}/release`;

/** Where the built app lies. */
export const app = fileURLToPath(new URL('../dist', import.meta.url));

/** Debian's browser, or the one that is named. */
export const browserPath = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** What every browser of a test is started with: nothing a person's would not do, and no talk of its own. */
export const browserArguments = profile => [
  ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
  `--user-data-dir=${profile}`,
];

export async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits until `look` gives something; the failure says what was waited for. */
export async function until(what, look, within = PATIENCE) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${within} ms in vain for ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

/** A program that runs, can be killed and started again; its last lines are kept for failures. */
export class Program {
  constructor(name, args, ready, { prefix = [], cwd, env } = {}) {
    Object.assign(this, { name, args, ready, prefix, cwd, env, lines: [], child: null });
  }

  async start() {
    const path = this.name.includes('/') ? this.name : `${binaries}/${this.name}`;
    if (!existsSync(path)) throw new Error(`${path} is missing: run make build`);
    const [program, ...args] = [...this.prefix, path, ...this.args];
    const { cwd, env = process.env } = this;
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd, env });
    let seen = false;
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', text => {
        this.lines.push(...text.split('\n').filter(Boolean));
        this.lines.splice(0, Math.max(0, this.lines.length - 100));
        seen ||= this.ready.test(text);
      });
    }
    const { child } = this;
    await until(`${this.name} to be ready`, () => {
      if (child.exitCode !== null) throw new Error(`${this.name} ended:\n${this.lines.join('\n')}`);
      return seen;
    });
    return this;
  }

  async end(signal = 'SIGKILL') {
    const { child } = this;
    this.child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }
}

/** Runs a command to its end and gives what it printed. */
export async function run(name, args) {
  const child = spawn(`${binaries}/${name}`, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, errors] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', text => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', text => {
    errors += text;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${name} ${args.join(' ')} failed: ${errors}`);
  return out;
}

export class World {
  /**
   * Everything on loopback; or, with `net`, each on a machine of its own. `services` are more of the
   * farm's. With `spare` the farm names a second broker, too, which the test starts.
   */
  static async start({ net = null, services = [], spare = false } = {}) {
    const world = new World();
    world.net = net;
    const on = name => ({ prefix: net ? net.on(name) : [] });
    world.dir = mkdtempSync(`${tmpdir()}/farm-app-`);
    const [broker, greenhouse] = [await freePort(), await freePort()];
    const brokerHost = net ? net.brokerHost : 'localhost';
    world.url = `http://localhost:${broker}/`;
    world.served = `${world.dir}/app`;
    world.greenhouseUrl = `http://127.0.0.1:${greenhouse}/`;
    world.greenhouse = new Program(
      'greenhouse',
      ['--listen', `127.0.0.1:${greenhouse}`],
      /listening/,
      on('farm'),
    );
    const brokerState = `${world.dir}/broker`;
    world.brokerState = brokerState;
    const serve = (port, state) =>
      new Program(
        'farm-broker',
        [
          ...['serve', '--listen', net ? `0.0.0.0:${port}` : `127.0.0.1:${port}`, '--state', state],
          ...(net ? ['--public-url', `ws://${brokerHost}:${port}`] : []),
          ...['--app', world.served],
        ],
        /listening/,
        on('broker'),
      );
    world.broker = serve(broker, brokerState);
    const urls = [`ws://${brokerHost}:${broker}`];
    if (spare) {
      const port = await freePort();
      world.spareState = `${world.dir}/spare`;
      world.spare = serve(port, world.spareState);
      urls.push(`ws://${brokerHost}:${port}`);
    }
    // A copy: a test brings a newer version.
    cpSync(app, world.served, { recursive: true });
    await Promise.all([world.greenhouse.start(), world.broker.start()]);
    const token = (await run('farm-broker', ['enroll', '--state', brokerState])).trim();
    const config = `${world.dir}/farm-agent.toml`;
    writeFileSync(
      config,
      `name = "North field"
broker = ${JSON.stringify(urls)}
enrollment_token = "${token}"
app = "${world.url}"
[[services]]
name = "greenhouse"
kind = "http"
address = "127.0.0.1:${greenhouse}"
[[services]]
name = "ssh"
kind = "tcp"
address = "127.0.0.1:22"
${services.map(([name, port]) => `[[services]]\nname = "${name}"\nkind = "http"\naddress = "127.0.0.1:${port}"\n`).join('')}`,
    );
    world.agentState = `${world.dir}/agent`;
    world.agent = new Program(
      'farm-agent',
      ['run', '--config', config, '--state', world.agentState],
      /ready|online|let in|broker link|welcome/i,
      on('farm'),
    );
    await world.agent.start();
    return world;
  }

  /** A fresh invitation: link and code. */
  async invite() {
    return until('an invitation', async () => {
      try {
        return JSON.parse(await run('farm-agent', ['invite', '--json', '--state', this.agentState]));
      } catch {
        return null;
      }
    });
  }

  /** What a person sees on the farm's terminal: link, QR code, code. */
  async terminal() {
    return run('farm-agent', ['invite', '--state', this.agentState]);
  }

  /** A browser with a profile of its own, as a person's: nothing of it is turned off. */
  async browser(extra = [], profile = mkdtempSync(`${this.dir}/profile-`)) {
    const { net } = this;
    rmSync(`${profile}/DevToolsActivePort`, { force: true });
    const args = browserArguments(profile);
    // `localhost` is where the app may use everything; the broker is elsewhere.
    if (net)
      args.push(`--host-resolver-rules=MAP *.localhost ${net.brokerHost},MAP localhost ${net.brokerHost}`);
    args.push(...extra, '--remote-debugging-port=0', 'about:blank');
    const [program, ...all] = [...(net ? net.on('phone') : []), browserPath, ...args];
    const child = spawn(program, all, { stdio: 'ignore' });
    const file = `${profile}/DevToolsActivePort`;
    const port = await until(
      'the browser',
      () => existsSync(file) && readFileSync(file, 'utf8').split('\n')[0],
    );
    const reached = net ? await net.tunnel('phone', port, this.dir) : port;
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${reached}`);
    const stop = async () => {
      await browser.close().catch(() => undefined);
      if (child.exitCode === null) {
        const gone = once(child, 'exit');
        child.kill();
        await gone;
      }
    };
    this.browsers.push(stop);
    return { browser, context: browser.contexts()[0], stop, profile };
  }

  browsers = [];

  async stop() {
    for (const stop of this.browsers) await stop();
    for (const program of [this.agent, this.greenhouse, this.broker, this.spare]) await program?.end();
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A page of a phone's size on the app. */
export async function phone(
  context,
  url,
  { width = 360, height = 740, dark = false, language = 'en-GB' } = {},
) {
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  const userAgent = await page.evaluate(() => navigator.userAgent);
  await devtools.send('Emulation.setUserAgentOverride', { userAgent, acceptLanguage: language });
  await devtools.send('Emulation.setScrollbarsHidden', { hidden: true });
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
  page.problems = [];
  page.on('pageerror', error => page.problems.push(String(error)));
  page.on('console', message => {
    if (message.type() === 'error') page.problems.push(message.text());
  });
  await page.goto(url);
  return page;
}
