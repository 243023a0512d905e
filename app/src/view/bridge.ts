/**
 * The hidden frame on a view's origin: registers the worker and hands it one
 * end of a channel, the app the other. The worker keeps nothing worth saving:
 * when it was stopped and starts again, it asks here for a new channel. Where
 * several tabs show the service, the last one that was looked at serves all.
 */

import { apps, tell } from './origins';

const workers = navigator.serviceWorker;

async function ready(): Promise<ServiceWorkerRegistration> {
  await workers.register('/__view/sw.js', { scope: '/', updateViaCache: 'none', type: 'module' });
  return workers.ready;
}

async function connect(to?: ServiceWorker): Promise<void> {
  const worker = to ?? (await registration).active;
  const channel = new MessageChannel();
  worker?.postMessage({ kind: 'port' }, [channel.port1]);
  tell({ farmView: 'port' }, [channel.port2]);
}

// The app is shown again: what is asked from now on goes to it, and not to a tab that sleeps.
addEventListener('message', event => {
  if (event.source === parent && apps().includes(event.origin) && event.data?.farmView === 'again')
    void connect();
});

const registration = ready();

workers.addEventListener('message', event => {
  if (event.data?.kind === 'need_port' && event.source instanceof ServiceWorker) void connect(event.source);
});
workers.startMessages();

registration
  .then(() => connect())
  .then(
    () => tell({ farmView: 'ready' }),
    error => tell({ farmView: 'failed', why: String(error) }),
  );
