/**
 * Reached only where no worker is in charge of a view's page: the first visit
 * without a bridge, a forced reload, storage that was cleared. The app sets
 * the bridge up again and says go.
 */

import { apps, tell } from './origins';

addEventListener('message', event => {
  if (event.source === parent && apps().includes(event.origin) && event.data?.farmView === 'go')
    location.reload();
});
tell({ farmView: 'boot' });
