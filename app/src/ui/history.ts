/** The chart of a series, by uPlot: loaded only where one is shown. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Kept } from '../shell/store';

/** A gap this many times the usual distance of readings is drawn as one: nothing was recorded there. */
const GAP = 5;

/** Columns of a chart, with breaks where nothing was recorded. */
export function columns(points: readonly Kept[]): [number[], (number | null)[]] {
  const sorted = [...points].sort((a, b) => a.t - b.t);
  const distances = sorted.slice(1).map((one, at) => one.t - (sorted[at]?.t ?? 0));
  const usual = [...distances].sort((a, b) => a - b)[Math.floor(distances.length / 2)] ?? 0;
  const [times, values]: [number[], (number | null)[]] = [[], []];
  sorted.forEach((one, at) => {
    const distance = distances[at - 1] ?? 0;
    if (usual > 0 && distance > usual * GAP) {
      times.push((one.t - distance / 2) / 1000);
      values.push(null);
    }
    times.push(one.t / 1000);
    values.push(one.value);
  });
  return [times, values];
}

/** Draws into `place`; follows its width and the colours of the page. */
export function history(place: HTMLElement, height: number, language: string, points: readonly Kept[]) {
  const scheme = matchMedia('(prefers-color-scheme: dark)');
  const time = new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit' });
  const precise = new Intl.DateTimeFormat(language, { timeStyle: 'medium' });
  const day = new Intl.DateTimeFormat(language, { day: 'numeric', month: 'short' });
  const number = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });
  let shown = columns(points);
  let chart = make();

  function make(): uPlot {
    const colour = (name: string) => {
      const probe = document.createElement('span');
      probe.style.color = `var(${name})`;
      place.append(probe);
      const found = getComputedStyle(probe).color;
      probe.remove();
      return found;
    };
    const axis = {
      stroke: colour('--quiet'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
    };
    const green = colour('--green');
    return new uPlot(
      {
        width: place.clientWidth,
        height,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        axes: [
          {
            ...axis,
            space: 80,
            values: (_, splits) => {
              const span = (splits.at(-1) ?? 0) - (splits[0] ?? 0);
              const format = span > 2 * 86_400 ? day : span > 600 ? time : precise;
              return splits.map(at => format.format(at * 1000));
            },
          },
          { ...axis, size: 56, values: (_, splits) => splits.map(value => number.format(value)) },
        ],
        series: [{}, { stroke: green, width: 2, points: { show: shown[0].length < 60, fill: green } }],
      },
      shown,
      place,
    );
  }
  const again = () => {
    chart.destroy();
    chart = make();
  };
  const sizes = new ResizeObserver(() => {
    if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height });
  });
  sizes.observe(place);
  scheme.addEventListener('change', again);
  return {
    draw(points: readonly Kept[]) {
      shown = columns(points);
      chart.setData(shown);
    },
    end() {
      sizes.disconnect();
      scheme.removeEventListener('change', again);
      chart.destroy();
    },
  };
}
