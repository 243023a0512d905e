/** All farms. */

import { useApp, useChanges, useStrings } from './context';
import { Bar } from './parts';
import { href } from './route';
import { Chip, reason, timing } from './status';

export function Farms() {
  useChanges();
  const [app, t] = [useApp(), useStrings()];
  return (
    <>
      <Bar title={t.farms} />
      <main>
        {!app.store.isDurable && <p class="notice warning">{t.notDurable}</p>}
        {app.store.keyLost && app.farms.length === 0 && (
          <p class="notice warning" role="alert">
            {t.keyLost}
          </p>
        )}
        {app.farms.length === 0 && (
          <section class="empty">
            <img src="/icon.svg" alt="" width="96" height="96" />
            <h2>{t.noFarms}</h2>
            <p>{t.noFarmsText}</p>
          </section>
        )}
        <ul class="cards">
          {app.farms.map(farm => {
            const status = farm.status();
            const why = reason(t, status);
            return (
              <li key={farm.record.id}>
                <a class="card" href={href({ screen: 'farm', farm: farm.record.id })}>
                  <strong>{farm.record.name || farm.record.id.slice(0, 8)}</strong>
                  <Chip t={t} status={status} />
                  {why && <span class="why">{why}</span>}
                  <span class="quiet">{timing(t, farm, status)}</span>
                </a>
              </li>
            );
          })}
        </ul>
        <a class="button primary" href={href({ screen: 'pair' })}>
          {t.addFarm}
        </a>
      </main>
    </>
  );
}
