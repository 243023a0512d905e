/** The cookies of one service (RFC 6265), kept by the app: a worker can't set any, and HttpOnly ones never reach a page. */

/** Most cookies of a service, and largest one, as in RFC 6265 section 6.1. */
const MAX_COOKIES = 128;
const MAX_SIZE = 8192;

export interface Cookie {
  name: string;
  value: string;
  path: string;
  /** Milliseconds since 1970; `null` until the app is closed. */
  expires: number | null;
  httpOnly: boolean;
}

export class CookieJar {
  private cookies: Cookie[] = [];

  /** With what was kept. */
  constructor(kept: readonly Cookie[] = []) {
    this.cookies = [...kept];
  }

  /** Takes a `Set-Cookie` field; a page's own can't touch what is HttpOnly. */
  set(text: string, requestPath: string, fromPage: boolean, now: number): void {
    if (text.length > MAX_SIZE) return;
    const [pair = '', ...attributes] = text.split(';');
    const equals = pair.indexOf('=');
    const name = equals < 0 ? '' : pair.slice(0, equals).trim();
    const cookie: Cookie = {
      name,
      value: pair.slice(equals + 1).trim(),
      path: directory(requestPath),
      expires: null,
      httpOnly: false,
    };
    let maxAge = false;
    for (const attribute of attributes) {
      const [key = '', ...rest] = attribute.split('=');
      const value = rest.join('=').trim();
      switch (key.trim().toLowerCase()) {
        case 'path':
          if (value.startsWith('/')) cookie.path = value;
          break;
        case 'max-age':
          if (/^-?\d+$/.test(value)) {
            cookie.expires = now + Number(value) * 1000;
            maxAge = true;
          }
          break;
        case 'expires': {
          const at = Date.parse(value);
          if (!maxAge && !Number.isNaN(at)) cookie.expires = at;
          break;
        }
        case 'httponly':
          cookie.httpOnly = true;
          break;
      }
    }
    const same = (one: Cookie) => one.name === cookie.name && one.path === cookie.path;
    if (fromPage && (cookie.httpOnly || this.cookies.some(one => same(one) && one.httpOnly))) return;
    this.cookies = this.cookies.filter(one => !same(one));
    if (cookie.expires !== null && cookie.expires <= now) return;
    this.cookies.push(cookie);
    if (this.cookies.length > MAX_COOKIES) this.cookies.shift();
  }

  /** The `Cookie` field for a path; `null` without one. For pages without what is HttpOnly. */
  header(path: string, forPage: boolean, now: number): string | null {
    const known = this.cookies
      .filter(
        one =>
          (one.expires === null || one.expires > now) &&
          matches(one.path, path) &&
          !(forPage && one.httpOnly),
      )
      .sort((a, b) => b.path.length - a.path.length)
      .map(({ name, value }) => (name === '' ? value : `${name}=${value}`));
    return known.length === 0 ? null : known.join('; ');
  }

  /** What outlives the app. */
  lasting(): Cookie[] {
    return this.cookies.filter(one => one.expires !== null);
  }
}

function directory(path: string): string {
  const end = (path.split('?')[0] ?? '/').lastIndexOf('/');
  return end <= 0 ? '/' : path.slice(0, end);
}

function matches(cookiePath: string, path: string): boolean {
  const bare = path.split('?')[0] ?? '/';
  return bare === cookiePath || bare.startsWith(cookiePath.endsWith('/') ? cookiePath : `${cookiePath}/`);
}
