/** One series over time. */

import { useEffect, useRef, useState } from 'preact/hooks';
import type { FarmView } from '../shell/farm';
import type { Kept } from '../shell/store';
import { languageOf, spanText, useApp, useChanges, useStrings } from './context';
import { Bar, Value } from './parts';
import { seriesName, valueText } from './readings';
import { Chip } from './status';

const HOUR = 3_600_000;
const RANGES = { hour: HOUR, day: 24 * HOUR, week: 7 * 24 * HOUR, all: Number.POSITIVE_INFINITY };
type Range = keyof typeof RANGES;

/** Height of the chart in pixels: a third of a small phone's screen. */
const CHART_HEIGHT = 240;

export function ReadingScreen({ farm, name }: { farm: FarmView; name: string }) {
  useChanges();
  const [app, t] = [useApp(), useStrings()];
  const language = languageOf(app.settings);
  const [range, setRange] = useState<Range>('day');
  const [all, setAll] = useState<Kept[] | null>(null);
  const { readings, record } = farm;
  const { arrived } = readings;
  const series = readings.series.get(name);
  useEffect(() => {
    void arrived;
    void app.store.readings(record.id, name).then(setAll, () => setAll([]));
  }, [app, record.id, name, arrived]);
  const from = Date.now() - RANGES[range];
  const shown = (all ?? []).filter(one => one.t >= from);
  const values = shown.map(one => one.value);
  const text = (value: number | null) =>
    value === null ? '–' : valueText(t, language, value, series?.unit ?? '');
  const sum = values.reduce((total, value) => total + value, 0);
  const [lowest, average, highest] = values.length
    ? [values.reduce((a, b) => Math.min(a, b)), sum / values.length, values.reduce((a, b) => Math.max(a, b))]
    : [null, null, null];
  return (
    <>
      <Bar title={seriesName(t, name)} back={{ screen: 'farm', farm: record.id }} />
      <main>
        <p class="quiet">{record.name}</p>
        <Chip t={t} status={farm.status()} live />
        {series && (
          <p class="now">
            <strong>{text(series.last.value)}</strong>
            <span class="quiet">
              {t.ago(spanText(t, Date.now() - series.last.t))}
              {series.last.clock === 'guessed' && ` · ${t.guessed}`}
            </span>
          </p>
        )}
        <fieldset class="tabs">
          <legend class="hidden">{t.readings}</legend>
          {(Object.keys(RANGES) as Range[]).map(one => (
            <label key={one}>
              <input type="radio" name="range" checked={one === range} onChange={() => setRange(one)} />
              <span>{t.ranges[one]}</span>
            </label>
          ))}
        </fieldset>
        {all === null ? (
          <p class="quiet">{t.readingsLoading}</p>
        ) : shown.length === 0 ? (
          <p class="notice">{t.nothingInRange}</p>
        ) : (
          <History
            points={shown}
            language={language}
            label={`${seriesName(t, name)}: ${t.lowest} ${text(lowest)}, ${t.highest} ${text(highest)}`}
          />
        )}
        <dl class="values">
          <Value name={t.lowest}>{text(lowest)}</Value>
          <Value name={t.average}>{text(average)}</Value>
          <Value name={t.highest}>{text(highest)}</Value>
        </dl>
        <p class="quiet">{t.readingsCount(shown.length)}</p>
      </main>
    </>
  );
}

/** The chart; what draws it comes only when it is needed. */
function History({ points, language, label }: { points: Kept[]; language: string; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const draw = useRef<((points: Kept[]) => void) | null>(null);
  const newest = useRef(points);
  newest.current = points;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    let end: (() => void) | null = null;
    let over = false;
    void import('./history').then(({ history }) => {
      if (over) return;
      const chart = history(element, CHART_HEIGHT, language, newest.current);
      draw.current = chart.draw;
      end = chart.end;
    });
    return () => {
      over = true;
      draw.current = null;
      end?.();
    };
  }, [language]);
  const key = `${points.length}/${points[0]?.n}/${points.at(-1)?.n}`;
  useEffect(() => {
    void key;
    draw.current?.(newest.current);
  }, [key]);
  return (
    <div class="history" ref={place} role="img" aria-label={label} style={{ height: `${CHART_HEIGHT}px` }} />
  );
}
