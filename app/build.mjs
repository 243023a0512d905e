// Builds the app into dist/: the app itself, its worker, and what view hosts
// serve (view/), each file also packed with gzip.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { constants, gzipSync } from 'node:zlib';
import { build } from 'vite';

const here = fileURLToPath(new URL('.', import.meta.url));
const dist = `${here}dist/`;
const { version } = JSON.parse(readFileSync(`${here}package.json`, 'utf8'));

/** Most bytes of script and style for the first screen, packed: what a weak LTE link (2 Mbit/s) carries in 0.6 s. */
const FIRST_SCREEN_LIMIT = 150 * 1024;

/** A script of one file; returns its text. */
async function script(entry, define = {}) {
  const result = await build({
    configFile: false,
    root: here,
    logLevel: 'warn',
    publicDir: false,
    define,
    build: {
      write: false,
      target: 'es2022',
      lib: { entry: `${here}src/${entry}`, formats: ['es'], fileName: 'script' },
    },
  });
  const [{ output }] = [result].flat();
  return output[0].code;
}

rmSync(dist, { recursive: true, force: true });
await build({
  configFile: false,
  root: here,
  logLevel: 'warn',
  define: { __VERSION__: JSON.stringify(version) },
  build: {
    target: 'es2022',
    outDir: dist,
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
});

// What the first screen needs, over the network of a field: its script and style, packed.
const page = readFileSync(`${dist}index.html`, 'utf8');
const first = [...page.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(([, url]) => url);
const packed = first.reduce(
  (sum, url) => sum + gzipSync(readFileSync(dist + url.slice(1)), { level: 9 }).length,
  0,
);
if (first.length === 0 || packed > FIRST_SCREEN_LIMIT)
  throw new Error(`the first screen takes ${packed} bytes, packed; ${FIRST_SCREEN_LIMIT} is the limit`);

const files = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter(entry => entry.isFile())
  .map(entry => `${entry.parentPath}/${entry.name}`.replaceAll('//', '/').slice(dist.length - 1))
  .sort();
const hash = createHash('sha256');
for (const file of files) hash.update(file).update(readFileSync(dist + file.slice(1)));
const urls = files.map(file => (file === '/index.html' ? '/' : file));
const worker = await script('worker/app-worker.ts', {
  __FILES__: JSON.stringify(urls),
  __BUILD__: JSON.stringify(hash.digest('hex').slice(0, 16)),
});
writeFileSync(`${dist}sw.js`, worker);

const { mkdirSync, copyFileSync } = await import('node:fs');
mkdirSync(`${dist}view`);
const shim = await script('view/shim.ts');
writeFileSync(`${dist}view/sw.js`, await script('view/worker.ts', { __SHIM__: JSON.stringify(shim) }));
writeFileSync(`${dist}view/bridge.js`, await script('view/bridge.ts'));
writeFileSync(`${dist}view/boot.js`, await script('view/boot.ts'));
for (const page of ['bridge.html', 'boot.html'])
  copyFileSync(`${here}src/view/${page}`, `${dist}view/${page}`);

for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !/\.(js|css|svg|webmanifest)$/.test(entry.name)) continue;
  const path = `${entry.parentPath}/${entry.name}`;
  writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: constants.Z_BEST_COMPRESSION }));
}
