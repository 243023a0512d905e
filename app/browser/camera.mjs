// A camera that sees the QR code which `farm-agent invite` draws on a
// terminal: its half blocks, as a video file for the browser.

import { writeFileSync } from 'node:fs';

/** Pixels of one module; at this size any reader sees it. */
const MODULE = 8;
const SIDE = 640;

/** The rows of modules (true: light) in what was printed. */
export function modules(printed) {
  const lines = printed.split('\n').filter(line => /^[█▀▄ ]{21,}$/.test(line));
  const width = Math.max(...lines.map(line => line.length));
  return lines.flatMap(line => {
    const cells = [...line.padEnd(width)];
    return [cells.map(cell => cell === '█' || cell === '▀'), cells.map(cell => cell === '█' || cell === '▄')];
  });
}

/** Writes a video in which the code is held still before the camera. */
export function film(path, rows) {
  const luma = Buffer.alloc(SIDE * SIDE, 235);
  const [top, left] = [rows.length, rows[0].length].map(count => Math.floor((SIDE - count * MODULE) / 2));
  rows.forEach((row, y) => {
    row.forEach((light, x) => {
      for (let line = 0; line < MODULE; line++) {
        const at = (top + y * MODULE + line) * SIDE + left + x * MODULE;
        luma.fill(light ? 235 : 16, at, at + MODULE);
      }
    });
  });
  const chroma = Buffer.alloc((SIDE * SIDE) / 2, 128);
  const head = Buffer.from(`YUV4MPEG2 W${SIDE} H${SIDE} F10:1 Ip A1:1 C420jpeg\n`);
  writeFileSync(
    path,
    Buffer.concat([head, ...Array.from({ length: 5 }, () => [Buffer.from('FRAME\n'), luma, chroma]).flat()]),
  );
}
