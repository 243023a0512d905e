/** When the farm was away, as far as this phone looked. */

import { useEffect, useState } from 'preact/hooks';
import type { Failure } from '../core/recovery';
import type { FarmView } from '../shell/farm';
import type { Day, Outage } from '../shell/store';
import { languageOf, spanText, useApp, useChanges, useStrings } from './context';
import { Bar, Value } from './parts';

/** Days that "a month" has. */
const MONTH = 30;

/** Share of the time that this phone looked in which the farm was there, as a text; `null` where it did not look. */
export function availability(days: readonly Day[], language: string): string | null {
  const looked = days.reduce((sum, day) => sum + day.looked, 0);
  const away = days.reduce((sum, day) => sum + Math.min(day.away, day.looked), 0);
  if (looked === 0) return null;
  const share = 1 - away / looked;
  // Never rounded up to a perfection that was not there.
  const format = new Intl.NumberFormat(language, { style: 'percent', minimumFractionDigits: 2 });
  return format.format(Math.floor(share * 10_000) / 10_000);
}

export function Outages({ farm }: { farm: FarmView }) {
  useChanges();
  const [app, t] = [useApp(), useStrings()];
  const [outages, setOutages] = useState<Outage[]>([]);
  const [days, setDays] = useState<Day[]>([]);
  const { id, name } = farm.record;
  const state = farm.status().state;
  useEffect(() => {
    void state;
    void app.keep(farm).then(() => {
      void app.store.outages(id).then(setOutages, () => undefined);
      void app.store.days(id).then(setDays, () => undefined);
    });
  }, [app, farm, id, state]);
  const language = languageOf(app.settings);
  const midnight = new Date().setHours(0, 0, 0, 0);
  const month = new Date(midnight).setDate(new Date(midnight).getDate() - MONTH + 1);
  const spans: [string, Day[]][] = [
    [t.today, days.filter(day => day.from >= midnight)],
    [t.month(MONTH), days.filter(day => day.from >= month)],
  ];
  const when = new Intl.DateTimeFormat(language, {
    dateStyle: 'medium',
    timeStyle: 'medium',
  });
  return (
    <>
      <Bar title={t.outages} back={{ screen: 'farm', farm: id }} />
      <main>
        <h2>{name}</h2>
        <dl class="values">
          {spans.map(([span, seen]) => (
            <Value key={span} name={span}>
              {availability(seen, language) ?? '–'}
              <span class="quiet">
                {t.lookedFor(
                  spanText(
                    t,
                    seen.reduce((sum, day) => sum + day.looked, 0),
                  ),
                )}
              </span>
            </Value>
          ))}
        </dl>
        <p class="quiet">{t.availableHint}</p>
        <h2>{t.outageList}</h2>
        {outages.length === 0 && <p class="quiet">{t.noOutages}</p>}
        <ul class="cards">
          {outages.slice(0, 100).map(outage => (
            <li key={outage.from} class="card">
              <strong>{when.format(outage.from)}</strong>
              <span>{outage.to === null ? t.ongoing : t.lasted(spanText(t, outage.to - outage.from))}</span>
              <span class="quiet">{t.failures[outage.reason as Failure] ?? ''}</span>
              {outage.excused && (
                <span class="quiet">
                  {(outage.excused.why === 'no_power' ? t.farmNoPower : t.farmNoNetwork)(
                    spanText(t, outage.excused.milliseconds),
                  )}
                </span>
              )}
            </li>
          ))}
        </ul>
      </main>
    </>
  );
}
