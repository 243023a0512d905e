/** What the farm measures: the newest of every series, with its age. */

import type { FarmView } from '../shell/farm';
import type { Series } from '../shell/store';
import type { Strings } from '../strings/en';
import { languageOf, spanText, useApp, useStrings } from './context';
import { href } from './route';

/** Names that the agent gives its own readings begin so. */
const OWN = 'agent.';

const SIZES: [number, string][] = [
  [1e9, 'GB'],
  [1e6, 'MB'],
  [1e3, 'kB'],
];

/** A value as people read it. */
export function valueText(t: Strings, language: string, value: number, unit: string): string {
  const number = (shown: number, digits: number) =>
    new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(shown);
  if (unit === 's' && Math.abs(value) >= 60) return spanText(t, value * 1000);
  if (unit === 'B') {
    const [size, name] = SIZES.find(([size]) => Math.abs(value) >= size) ?? [1, 'B'];
    return `${number(value / size, 1)} ${name}`;
  }
  return `${number(value, Math.abs(value) >= 100 ? 0 : 2)}${unit ? ` ${unit}` : ''}`;
}

/** What a series is called: our own in the language of the app. */
export const seriesName = (t: Strings, name: string) => t.boxReadings[name] ?? name;

export function Readings({ farm }: { farm: FarmView }) {
  const t = useStrings();
  const { series, caughtUp, silence } = farm.readings;
  const all = [...series.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const [sensors, own] = [
    all.filter(one => !one.name.startsWith(OWN)),
    all.filter(one => one.name.startsWith(OWN)),
  ];
  if (silence === 'not_offered' && all.length === 0) return null;
  return (
    <section>
      <h2>{t.readings}</h2>
      {all.length === 0 && <p class="quiet">{caughtUp ? t.noReadings : t.readingsLoading}</p>}
      <Rows farm={farm} series={sensors} />
      {own.length > 0 && (
        <details>
          <summary>{t.box}</summary>
          <Rows farm={farm} series={own} />
        </details>
      )}
    </section>
  );
}

function Rows({ farm, series }: { farm: FarmView; series: Series[] }) {
  const [app, t] = [useApp(), useStrings()];
  const language = languageOf(app.settings);
  const now = Date.now();
  if (series.length === 0) return null;
  return (
    <ul class="list">
      {series.map(({ name, unit, last }) => (
        <li key={name}>
          <a class="reading" href={href({ screen: 'reading', farm: farm.record.id, series: name })}>
            <span>{seriesName(t, name)}</span>
            <strong>{valueText(t, language, last.value, unit)}</strong>
            <span class="quiet">
              {last.clock === 'guessed' ? t.guessed : t.ago(spanText(t, now - last.t))}
            </span>
          </a>
        </li>
      ))}
    </ul>
  );
}
