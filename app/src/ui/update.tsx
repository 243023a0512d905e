/** Says when a new version waits. */

import { useEffect, useState } from 'preact/hooks';
import { useStrings } from './context';

export function UpdateNotice() {
  const t = useStrings();
  const [ready, setReady] = useState<ServiceWorker | null>(null);
  useEffect(() => {
    const workers = navigator.serviceWorker;
    if (!workers) return;
    void workers.getRegistration().then(registration => {
      if (!registration) return;
      const offer = () => {
        // Without one in charge it is the first, and no update.
        if (registration.waiting && workers.controller) setReady(registration.waiting);
      };
      offer();
      // An installed app may stay open for weeks.
      document.addEventListener('visibilitychange', () => {
        if (document.visibilityState === 'visible') void registration.update().catch(() => undefined);
      });
      registration.addEventListener('updatefound', () => {
        registration.installing?.addEventListener('statechange', offer);
      });
    });
  }, []);
  if (!ready) return null;
  const use = () => {
    navigator.serviceWorker.addEventListener('controllerchange', () => location.reload(), { once: true });
    ready.postMessage('use');
  };
  return (
    <p class="notice update" role="status">
      {t.update}{' '}
      <button type="button" class="button" onClick={use}>
        {t.updateNow}
      </button>
    </p>
  );
}
