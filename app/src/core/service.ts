/** Services: what a farm lets its phones reach. */

import { extensible, list, type Read, text, word } from './schema';

/** Longest name: with a farm's id and `--` it fits one label of a host name. */
export const MAX_NAME = 29;

/** Most services of one farm. */
export const MAX_SERVICES = 64;

/** A service as the farm announces it. */
export const service = extensible({ name: text(1, MAX_NAME), kind: word('http', 'tcp') });
export type Service = Read<typeof service>;

/** A farm's services. */
export const services = list(service, MAX_SERVICES);

/** Whether a name fits a label of a host name and our own separator `--`. */
export function isName(name: string): boolean {
  return name.length <= MAX_NAME && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name);
}
