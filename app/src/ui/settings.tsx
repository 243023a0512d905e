/** Language, this phone, and what happened lately. */

import * as base32 from '../core/base32';
import { recent } from '../shell/log';
import { LANGUAGES, phoneLanguage, useApp, useChanges, useStrings } from './context';
import { Bar } from './parts';

declare const __VERSION__: string;

export function Settings() {
  useChanges();
  const [app, t] = [useApp(), useStrings()];
  const { settings } = app;
  const choose = (language: 'ru' | 'en' | null) => void app.saveSettings({ ...settings, language });
  const options: ['ru' | 'en' | null, string][] = [
    [null, t.automatic(LANGUAGES[phoneLanguage()].language)],
    ['ru', LANGUAGES.ru.language],
    ['en', LANGUAGES.en.language],
  ];
  return (
    <>
      <Bar title={t.settings} back={{ screen: 'farms' }}>
        <span />
      </Bar>
      <main>
        <fieldset class="cards">
          <legend>{t.languageTitle}</legend>
          {options.map(([language, name]) => (
            <label key={name} class="card choice">
              <input
                type="radio"
                name="language"
                checked={settings.language === language}
                onChange={() => choose(language)}
              />
              <span lang={language ?? undefined}>{name}</span>
            </label>
          ))}
        </fieldset>
        <section>
          <h2>{t.device}</h2>
          <label>
            {t.phoneName}
            <input
              value={settings.phoneName}
              maxLength={64}
              onChange={event => void app.saveSettings({ ...settings, phoneName: event.currentTarget.value })}
            />
          </label>
          <p class="quiet">
            {t.deviceId}: <code>{base32.encode(app.phone)}</code>
          </p>
          {!app.store.isDurable && <p class="notice warning">{t.notDurable}</p>}
          <p class="quiet">
            {t.version} {__VERSION__}
          </p>
        </section>
        <details>
          <summary>{t.journal}</summary>
          <pre>{recent().join('\n')}</pre>
        </details>
      </main>
    </>
  );
}
