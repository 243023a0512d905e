/** Round trip and missing answers of the last two minutes. */

import { SAMPLE_SECONDS, SAMPLES, type Sample } from '../shell/farm';
import type { Strings } from '../strings/en';

const WIDTH = 320;
const HEIGHT = 72;

/** The scale's top: the next of these above what was measured, in milliseconds. */
const TOPS = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

export function Chart({ t, samples }: { t: Strings; samples: readonly Sample[] }) {
  const answered = samples.flatMap(sample => (sample.rtt === null ? [] : [sample.rtt]));
  const most = Math.max(...answered, 1);
  const top = TOPS.find(one => one >= most) ?? most;
  const average =
    answered.length > 0 ? Math.round(answered.reduce((sum, rtt) => sum + rtt, 0) / answered.length) : null;
  const lost = (samples.length - answered.length) * SAMPLE_SECONDS;
  const step = WIDTH / SAMPLES;
  const x = (at: number) => WIDTH - (samples.length - at) * step;
  return (
    <figure class="chart">
      <span class="scale">{t.milliseconds(top)}</span>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={t.chart(average, lost)}
      >
        <line x1="0" x2={WIDTH} y1={HEIGHT / 2} y2={HEIGHT / 2} class="grid" />
        {samples.map((sample, at) => {
          const height = sample.rtt === null ? HEIGHT : Math.max(2, (sample.rtt / top) * HEIGHT);
          const kind = sample.rtt === null ? 'missing' : 'answer';
          return (
            <rect
              key={sample.at}
              x={x(at)}
              y={HEIGHT - height}
              width={step * 0.8}
              height={height}
              class={kind}
            />
          );
        })}
      </svg>
      <figcaption>
        <span>{t.chartThen}</span>
        <span>{t.chartNow}</span>
      </figcaption>
    </figure>
  );
}
