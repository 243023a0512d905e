/** When the farm was away, as far as this phone looked. */

import { useEffect, useState } from 'preact/hooks';
import type { Failure } from '../core/recovery';
import type { FarmView } from '../shell/farm';
import type { Outage } from '../shell/store';
import { languageOf, spanText, useApp, useChanges, useStrings } from './context';
import { Bar } from './parts';

const DAY = 86_400_000;

/** Share of a time in which the farm was there, as a text. */
export function availability(outages: readonly Outage[], from: number, to: number, language: string): string {
  const gone = outages.reduce((sum, one) => {
    const span = Math.min(one.to ?? to, to) - Math.max(one.from, from);
    return sum + Math.max(0, span);
  }, 0);
  const share = to > from ? 1 - gone / (to - from) : 1;
  // Never rounded up to a perfection that was not there.
  const format = new Intl.NumberFormat(language, { style: 'percent', minimumFractionDigits: 2 });
  return format.format(Math.floor(share * 10_000) / 10_000);
}

export function Outages({ farm }: { farm: FarmView }) {
  useChanges();
  const [app, t] = [useApp(), useStrings()];
  const [outages, setOutages] = useState<Outage[]>([]);
  const { id, pairedAt, name } = farm.record;
  const state = farm.status().state;
  useEffect(() => {
    void state;
    void app.store.outages(id).then(setOutages, () => undefined);
  }, [app, id, state]);
  const now = Date.now();
  const language = languageOf(app.settings);
  const day = availability(outages, Math.max(pairedAt, new Date().setHours(0, 0, 0, 0)), now, language);
  const month = availability(outages, Math.max(pairedAt, now - 30 * DAY), now, language);
  const when = new Intl.DateTimeFormat(language, {
    dateStyle: 'medium',
    timeStyle: 'medium',
  });
  return (
    <>
      <Bar title={t.outages} back={{ screen: 'farm', farm: id }} />
      <main>
        <h2>{name}</h2>
        <p>{t.available(day, month)}</p>
        {outages.length === 0 && <p class="quiet">{t.noOutages}</p>}
        <ul class="cards">
          {outages.slice(0, 100).map(outage => (
            <li key={outage.from} class="card">
              <strong>{when.format(outage.from)}</strong>
              <span>{outage.to === null ? t.ongoing : t.lasted(spanText(t, outage.to - outage.from))}</span>
              <span class="quiet">{t.failures[outage.reason as Failure] ?? ''}</span>
            </li>
          ))}
        </ul>
      </main>
    </>
  );
}
