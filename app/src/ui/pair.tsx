/** Adding a farm: by link, by typed code, by camera. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { troubleOf } from '../shell/pair';
import type { Strings } from '../strings/en';
import { useApp, useStrings } from './context';
import { Bar } from './parts';
import { go } from './route';
import { Scanner } from './scanner';

type Trouble = keyof Strings['pairErrors'];

/** What this phone is called unless its owner says: its model, where the browser tells one. */
function usualName(t: Strings): string {
  const model = /Android [^;]*; ([^;)]{2,})\)/.exec(navigator.userAgent)?.[1];
  const known = /iPhone|iPad|Macintosh|Windows/.exec(navigator.userAgent)?.[0];
  return model ?? known ?? t.device;
}

export function Pair({ invitation }: { invitation: string | null }) {
  const [app, t] = [useApp(), useStrings()];
  const [text, setText] = useState(invitation ?? '');
  const [name, setName] = useState(app.settings.phoneName || usualName(t));
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const [scans, setScans] = useState(false);
  const problem = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    if (trouble) problem.current?.focus();
  }, [trouble]);

  const accept = async (given: string) => {
    setBusy(true);
    setTrouble(null);
    setScans(false);
    try {
      await app.saveSettings({ ...app.settings, phoneName: name });
      const farm = await app.accept(given, name);
      go({ screen: 'farm', farm: farm.record.id });
    } catch (error) {
      setTrouble(troubleOf(error));
    } finally {
      setBusy(false);
    }
  };
  const submit = (event: Event) => {
    event.preventDefault();
    void accept(text);
  };
  return (
    <>
      <Bar title={t.pairTitle} back={{ screen: 'farms' }} />
      <main>
        {scans ? (
          <Scanner
            t={t}
            found={found => void accept(found)}
            failed={() => {
              setScans(false);
              setTrouble('camera');
            }}
            close={() => setScans(false)}
          />
        ) : (
          <form onSubmit={submit}>
            <p>{invitation !== null && text === invitation ? t.pairLinkRead : t.pairText}</p>
            <button type="button" class="button" disabled={busy} onClick={() => setScans(true)}>
              {t.scan}
            </button>
            <label>
              {t.invitation}
              <input
                value={text}
                onInput={event => setText(event.currentTarget.value)}
                autocomplete="off"
                autocapitalize="characters"
                spellcheck={false}
                maxLength={1024}
                required
              />
            </label>
            <label>
              {t.phoneName}
              <input value={name} onInput={event => setName(event.currentTarget.value)} maxLength={64} />
              <span class="quiet">{t.phoneNameHint}</span>
            </label>
            {trouble && (
              <p
                class={`notice ${trouble === 'forged' ? 'danger' : 'warning'}`}
                role="alert"
                tabIndex={-1}
                ref={problem}
              >
                {t.pairErrors[trouble]}
              </p>
            )}
            <button
              type="submit"
              class="button primary"
              disabled={busy || text.trim() === ''}
              aria-busy={busy}
            >
              {busy ? t.pairing : t.pair}
            </button>
          </form>
        )}
      </main>
    </>
  );
}
