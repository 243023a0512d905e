/** Which screen is shown: kept in the fragment, so that Back works and nothing reaches a server. */

import { useEffect, useState } from 'preact/hooks';

export type Route =
  | { screen: 'farms' }
  | { screen: 'farm'; farm: string }
  | { screen: 'outages'; farm: string }
  | { screen: 'reading'; farm: string; series: string }
  | { screen: 'open'; farm: string; service: string }
  | { screen: 'pair' }
  | { screen: 'settings' };

/** Reads a fragment; the list of farms for what is none of ours. */
export function readRoute(fragment: string): Route {
  let parts: string[] = [];
  try {
    parts = fragment.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  } catch {
    // Not made by us.
  }
  const [screen, farm, service] = parts;
  if (screen === 'pair' || screen === 'settings') return { screen };
  if (farm && (screen === 'farm' || screen === 'outages')) return { screen, farm };
  if (farm && service && screen === 'open') return { screen, farm, service };
  if (farm && service && screen === 'reading') return { screen, farm, series: service };
  return { screen: 'farms' };
}

/** The fragment of a screen. */
export function href(route: Route): string {
  const last = 'service' in route ? route.service : 'series' in route ? route.series : '';
  const parts = [route.screen, 'farm' in route ? route.farm : '', last];
  return `#/${parts.filter(Boolean).map(encodeURIComponent).join('/')}`;
}

/** Goes to another screen. */
export function go(route: Route): void {
  location.hash = href(route);
}

/** The screen now. */
export function useRoute(): Route {
  const [route, setRoute] = useState(() => readRoute(location.hash));
  useEffect(() => {
    const follow = () => setRoute(readRoute(location.hash));
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, []);
  return route;
}

/**
 * The invitation in the address bar, if there is one: its secret is wiped from
 * the address and from the history at once, before anything else runs.
 */
export function takeInvitation(): string | null {
  if (!/^#(.*&)?v=/.test(location.hash)) return null;
  const text = location.href;
  history.replaceState(null, '', `${location.pathname}#/pair`);
  return text;
}
