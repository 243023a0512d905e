/** Looks whether the network wants a login, while the broker can't be reached. */

import { MAX_BODY, whoAnswered } from '../core/portal';
import { report } from './log';

/** The broker's health page; the app's worker leaves it to the network. */
export const HEALTH_PATH = '/healthz';

/** How long an answer may take: networks that want a login answer at once. */
const ANSWER_WITHIN_MS = 5_000;

/** Between two looks while a login is wanted: so soon after it the app goes on. */
const AGAIN_MS = 2_000;

export class Portal {
  /** Somebody else answers in the broker's place. */
  wanted = false;
  private wants = false;
  private asking = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * `ours`: the broker, or one of them, serves this page. Only it can be asked:
   * the app's policy lets it fetch from nowhere else. `back` is called when it
   * answers again.
   */
  constructor(
    private readonly ours: boolean,
    private readonly listener: { changed(): void; back(): void },
  ) {}

  /** The link to the broker is up (or rests), or not. */
  needed(needed: boolean): void {
    this.wants = needed && this.ours;
    if (this.wants) void this.look();
    else {
      clearTimeout(this.timer);
      this.tell(false);
    }
  }

  private async look(): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    clearTimeout(this.timer);
    const who = await ask();
    this.asking = false;
    if (!this.wants) return;
    const wanted = this.wanted;
    this.tell(who === 'network');
    if (who === 'network') this.timer = setTimeout(() => void this.look(), AGAIN_MS);
    else if (who === 'broker' && wanted) this.listener.back();
  }

  private tell(wanted: boolean): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    report('broker', wanted ? 'the network answers in its place: a login?' : 'the network lets us through');
    this.listener.changed();
  }
}

async function ask(): Promise<ReturnType<typeof whoAnswered>> {
  try {
    const answer = await fetch(HEALTH_PATH, {
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'manual',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    const redirect = answer.type === 'opaqueredirect';
    return whoAnswered({ redirect, status: answer.status, body: redirect ? '' : await beginning(answer) });
  } catch {
    // No answer, or not one that TLS lets pass: a page can't tell one from the other.
    return 'unknown';
  }
}

/** The body, if it is short; else more than may be. */
async function beginning(answer: Response): Promise<string> {
  const reader = answer.body?.getReader();
  const decoder = new TextDecoder();
  let text = '';
  while (reader && text.length <= MAX_BODY) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  await reader?.cancel();
  return text;
}
