// Networks that want a login: somebody else answers where the broker should.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createRaw } from 'node:net';
import { check, must } from './checks.mjs';
import { phone } from './world.mjs';

const page = '<html><title>Hotel</title><form>Room and name</form></html>';

/** What such networks answer to everything. */
export const ANSWERS = {
  'a redirect': response => response.writeHead(302, { location: 'http://127.0.0.1:9/login' }).end(),
  'a page': response => response.writeHead(200, { 'content-type': 'text/html' }).end(page),
  'its own JSON': response =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"login":1}'),
  'status 511': response => response.writeHead(511, { 'content-type': 'text/html' }).end(page),
};

/** Listens where the broker was, until the returned function is called. */
export async function inTheWay(port, server) {
  const sockets = new Set();
  server.on('connection', socket => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return async () => {
    server.close();
    for (const socket of sockets) socket.destroy();
    await once(server, 'close');
  };
}

export async function portal(world) {
  const { context, stop } = await world.browser();
  const port = Number(new URL(world.url).port);
  const pages = [];
  for (const language of ['en-GB', 'ru-RU']) {
    const on = await phone(context, 'about:blank', { language });
    pages.push(on);
  }
  const [english] = pages;
  const mood = (on, wanted, within = 30_000) =>
    on.locator(`.chip[role=status][data-mood=${wanted}]`).waitFor({ timeout: within });

  await check('a network that wants a login is told from one that is gone, in both languages', async () => {
    await english.goto((await world.invite()).link);
    await english.getByRole('button', { name: 'Pair', exact: true }).click();
    await mood(english, 'fine');
    await english.waitForFunction(() => navigator.serviceWorker.controller !== null);
    await pages[1].goto(english.url());
    await mood(pages[1], 'fine');
    await Promise.all([world.broker.end(), world.agent.end()]);
    await english
      .getByText('The meeting server can’t be reached.')
      .or(english.getByText('stopped answering'))
      .waitFor();
    const times = [];
    for (const [what, answer] of Object.entries(ANSWERS)) {
      const leave = await inTheWay(
        port,
        createServer((_, response) => answer(response)),
      );
      const began = Date.now();
      await mood(english, 'stuck').catch(error => {
        throw new Error(`${what} was not noticed: ${error}`);
      });
      times.push(`${what} ${Date.now() - began} ms`);
      await english.getByText('This network needs a login').waitFor();
      await pages[1].getByText('Сеть требует входа').waitFor();
      must(await pages[1].getByRole('link', { name: 'Войти в сеть' }).isVisible(), 'no way to log in');
      if (what === 'a page') {
        // What to do: the network's own page, in a tab of its own.
        const opened = context.waitForEvent('page');
        await english.getByRole('link', { name: 'Log in to the network' }).click();
        const login = await opened;
        await login.getByText('Room and name').waitFor();
        await login.close();
      }
      await leave();
      await mood(english, 'gone');
    }
    // What is no HTTP at all, as a server of TLS's is to a plain request, proves nothing: a hint is all.
    const leave = await inTheWay(
      port,
      createRaw(socket => socket.end(Buffer.from([21, 3, 1, 0, 2, 2, 40]))),
    );
    await english.getByText('If this Wi-Fi asks for a login').waitFor();
    must(!(await english.getByText('This network needs a login').isVisible()), 'a login out of nothing');
    await leave();
    return `noticed after: ${times.join(', ')}`;
  });

  await check('after the login it goes on by itself', async () => {
    const leave = await inTheWay(
      port,
      createServer((_, response) => ANSWERS['a redirect'](response)),
    );
    await mood(english, 'stuck');
    await leave();
    await Promise.all([world.broker.start(), world.agent.start()]);
    const began = Date.now();
    for (const on of pages) await mood(on, 'fine');
    const took = Date.now() - began;
    must(took <= 10_000, `live only ${took} ms after`);
    return `live ${took} ms after broker and farm were there`;
  });
  await stop();
}
