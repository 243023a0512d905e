/** The app's origins, as the broker wrote them into this page. */

import type { FromView } from './protocol';

export function apps(): string[] {
  return document.querySelector('meta[name=apps]')?.getAttribute('content')?.split(' ') ?? [];
}

/** Tells the window that frames us, if it is the app: the browser drops it for any other. */
export function tell(message: FromView, ports: Transferable[] = []): void {
  if (parent === window) return;
  // A port can be given away once: the app is one of these origins, whichever ours has for an ancestor.
  const ancestors = location.ancestorOrigins as DOMStringList | undefined;
  const app = ancestors ? apps().find(origin => origin === ancestors[0]) : apps()[0];
  if (app) parent.postMessage(message, app, ports);
}
