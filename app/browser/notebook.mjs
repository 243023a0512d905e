// A real web app of others as the farm's service: the classic Jupyter
// notebook, a file browser with uploads and a terminal over WebSockets, from
// PyPI in exactly the versions of notebook.txt, in a directory of its own.

import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { check, must, same } from './checks.mjs';
import { Program, until } from './world.mjs';

const list = fileURLToPath(new URL('./notebook.txt', import.meta.url));
const folder = fileURLToPath(new URL('../../target/notebook', import.meta.url));

/** Where Python is. */
const python = [
  ...(process.env.PATH ?? '').split(':').map(folder => `${folder}/python3`),
  '/usr/bin/python3',
];

/** Installs it where it is not yet; `null`, or why it can't be. */
export function install() {
  const program = python.find(path => spawnSync(path, ['-m', 'pip', '--version']).status === 0);
  if (!program) return { why: 'Python with pip is missing: apt-get install python3-pip' };
  const wanted = readFileSync(list, 'utf8');
  const place = `${folder}-${createHash('sha256').update(wanted).digest('hex').slice(0, 12)}`;
  if (!existsSync(place)) {
    const begun = `${place}.new`;
    rmSync(begun, { recursive: true, force: true });
    const args = [
      '-m',
      'pip',
      'install',
      '-q',
      '--disable-pip-version-check',
      '--no-deps',
      '--target',
      begun,
      '-r',
      list,
    ];
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    if (status !== 0) return { why: `pip: ${stderr.trim().split('\n').at(-1)}` };
    renameSync(begun, place);
  }
  return { program, place };
}

/** Starts it on a port, with an empty folder to show. */
export async function serve({ program, place }, port, dir) {
  mkdirSync(`${dir}/files`, { recursive: true });
  writeFileSync(`${dir}/files/field.txt`, 'rows of beets\n');
  const token = randomBytes(16).toString('hex');
  const args = ['-m', 'nbclassic', '--no-browser', '--allow-root', '--ip=127.0.0.1', `--port=${port}`];
  args.push(
    '--ServerApp.jpserver_extensions=jupyter_server_terminals=True',
    `--ServerApp.token=${token}`,
    `--ServerApp.root_dir=${dir}/files`,
  );
  const env = { ...process.env, PYTHONPATH: place, HOME: dir, SHELL: '/bin/sh' };
  const notebook = new Program(program, args, /is running at/, { cwd: dir, env });
  await notebook.start();
  return { notebook, token, files: `${dir}/files` };
}

/** What its user does: log in, look around, upload, download, type into a terminal. */
export async function use(page, served, open) {
  let frame;
  await check('notebook: logs in (redirects, cookies) and shows the files', async () => {
    frame = await open('notebook');
    await frame.locator('#password_input').fill(served.token);
    await frame.locator('#login_submit, button[type=submit]').first().click();
    await frame.getByText('field.txt').first().waitFor();
    must(new URL(frame.url()).pathname.endsWith('/tree'), `is at ${frame.url()}`);
  });

  await check('notebook: an upload through its own form arrives byte for byte', async () => {
    const bytes = randomBytes(3_000_000);
    await frame.locator('input.fileinput[type=file]').first().setInputFiles({
      name: 'harvest.bin',
      mimeType: 'application/octet-stream',
      buffer: bytes,
    });
    await frame.locator('.upload_button', { hasText: 'Upload' }).first().click();
    const path = `${served.files}/harvest.bin`;
    await until('the file', () => existsSync(path) && readFileSync(path).length === bytes.length);
    same(hash(readFileSync(path)), hash(bytes), 'checksum');
    await frame.getByText('harvest.bin').first().waitFor();
    const [found, partial] = await frame.evaluate(async () => {
      const whole = await (await fetch('/files/harvest.bin')).arrayBuffer();
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
      const range = await fetch('/files/harvest.bin', { headers: { range: 'bytes=0-9' } });
      return [Array.from(digest, byte => byte.toString(16).padStart(2, '0')).join(''), range.status];
    });
    same(found, hash(bytes), 'checksum of the download');
    return `a range is answered with ${partial}, as the service itself does`;
  });

  await check('notebook: a terminal works over its WebSocket', async () => {
    const name = await frame.evaluate(async () => {
      const cookie = /_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? '';
      const answer = await fetch('/api/terminals', { method: 'POST', headers: { 'X-XSRFToken': cookie } });
      return (await answer.json()).name;
    });
    await frame.evaluate(to => location.assign(to), `/terminals/${name}`);
    await frame.locator('.xterm-helper-textarea, .terminal textarea').first().waitFor({ state: 'attached' });
    const typed = () => existsSync(`${served.files}/typed`) && readFileSync(`${served.files}/typed`, 'utf8');
    await frame.locator('.terminal, .xterm').first().click();
    await page.keyboard.type(`echo beets-$((40+2)) | tee ${served.files}/typed\n`);
    await until('what was typed to be done', () => typed() === 'beets-42\n');
    // Its screen is a picture; what the shell said is in the messages, told again to who connects.
    const said = await frame.evaluate(
      path =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}${path}`);
          let text = '';
          socket.onmessage = ({ data }) => {
            const [kind, part] = JSON.parse(data);
            if (kind === 'stdout') text += part;
            if (text.includes('\nbeets-42')) resolve(true);
          };
          socket.onclose = () => reject(new Error(`closed after ${text}`));
        }),
      `/terminals/websocket/${name}`,
    );
    must(said, 'nothing was said');
  });
}

const hash = bytes => createHash('sha256').update(bytes).digest('hex');
