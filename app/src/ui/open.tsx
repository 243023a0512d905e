/** A farm's page, shown through the tunnel. */

import { useEffect, useRef, useState } from 'preact/hooks';
import type { FarmView } from '../shell/farm';
import { View, type ViewState } from '../shell/view';
import { useChanges, useStrings } from './context';
import { Bar } from './parts';
import { Chip, NetworkLogin, reason, timing } from './status';

export function Open({ farm, service }: { farm: FarmView; service: string }) {
  useChanges();
  const t = useStrings();
  const frame = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<View | null>(null);
  const [state, setState] = useState<ViewState>('waiting');
  const status = farm.status();
  const why = reason(t, status);
  const live = status.state === 'live';
  // A page that is shown stays: what it asks for waits in the tunnel.
  const wanted = live || view !== null;
  useEffect(() => {
    if (!wanted || !frame.current) return;
    const opened = new View(farm, service, frame.current, setState);
    setView(opened);
    return () => opened.close();
  }, [wanted, farm, service]);
  return (
    <div class="viewer">
      <Bar title={service} back={{ screen: 'farm', farm: farm.record.id }}>
        <button
          type="button"
          class="icon"
          aria-label={t.reload}
          disabled={!view}
          onClick={() => view?.reload()}
        >
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M19 12a7 7 0 1 1-2-5M19 3v5h-5" />
          </svg>
        </button>
      </Bar>
      <div class="strip">
        <Chip t={t} status={status} live />
        {!live && !status.calm && <span class="quiet">{timing(t, farm, status)}</span>}
        {wanted && why && <span class="why">{why}</span>}
      </div>
      {!wanted && (
        <main>
          <p class="notice">{t.queued(service)}</p>
          {why && <p class="why">{why}</p>}
          <NetworkLogin t={t} status={status} />
        </main>
      )}
      {wanted && state === 'opening' && <p class="quiet pad">{t.opening}</p>}
      {wanted && (state === 'opening' || state === 'loading') && (
        <progress class="line" aria-label={t.opening} />
      )}
      {(state === 'failed' || state === 'nowhere') && (
        <main>
          <p class="notice warning" role="alert">
            {state === 'nowhere' ? t.viewNone : t.viewFailed}
          </p>
          <button type="button" class="button" onClick={() => view?.reload()}>
            {t.again}
          </button>
        </main>
      )}
      <div class="frame" ref={frame} />
    </div>
  );
}
