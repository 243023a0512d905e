/** The beginning: takes an invitation out of the address bar, starts the app, draws. */

import { render } from 'preact';
import { App } from './shell/app';
import { LANGUAGES, phoneLanguage } from './ui/context';
import { Root } from './ui/root';
import { takeInvitation } from './ui/route';
import './style.css';

const invitation = takeInvitation();
const place = document.getElementById('app') ?? document.body;

/** The worker that lets the app start without a network. */
function registerWorker(): void {
  if (!navigator.serviceWorker || import.meta.env.DEV) return;
  // The only script address that is ever made from a text.
  const types = (
    globalThis as {
      trustedTypes?: { createPolicy(name: string, rules: object): { createScriptURL(url: string): string } };
    }
  ).trustedTypes;
  const policy = types?.createPolicy('app', { createScriptURL: (url: string) => url });
  const url = policy?.createScriptURL('/sw.js') ?? '/sw.js';
  navigator.serviceWorker.register(url).catch(() => undefined);
}

async function start(): Promise<void> {
  const app = await App.start();
  if (typeof app === 'string') {
    const t = LANGUAGES[phoneLanguage()];
    return render(
      <main>
        <p class="notice danger" role="alert">
          {t.obstacles[app]}
        </p>
      </main>,
      place,
    );
  }
  render(<Root app={app} invitation={invitation} />, place);
  registerWorker();
}

void start();
