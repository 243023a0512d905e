/** One farm: how it stands, what it offers, how the connection is. */

import { useState } from 'preact/hooks';
import * as base32 from '../core/base32';
import type { FarmView } from '../shell/farm';
import type { Strings } from '../strings/en';
import { Chart } from './chart';
import { useApp, useChanges, useStrings } from './context';
import { Bar, Value } from './parts';
import { Readings } from './readings';
import { go, href } from './route';
import { Chip, NetworkLogin, reason, timing } from './status';

export function Farm({ farm }: { farm: FarmView }) {
  useChanges();
  const t = useStrings();
  const status = farm.status();
  const why = reason(t, status);
  const { id, name } = farm.record;
  return (
    <>
      <Bar title={name || id.slice(0, 8)} back={{ screen: 'farms' }} />
      <main>
        <section class="standing" aria-label={t.connection}>
          <Chip t={t} status={status} live />
          {why && <p class="why">{why}</p>}
          <p class="quiet">{timing(t, farm, status)}</p>
          <NetworkLogin t={t} status={status} />
          {status.state === 'not_paired' && (
            <a class="button primary" href={href({ screen: 'pair' })}>
              {t.pairAgain}
            </a>
          )}
        </section>
        <Services t={t} farm={farm} />
        <Readings farm={farm} />
        <Measured t={t} farm={farm} />
        <Phones t={t} farm={farm} />
        <a class="button" href={href({ screen: 'outages', farm: id })}>
          {t.outages}
        </a>
        <Remove t={t} farm={farm} />
      </main>
    </>
  );
}

function Services({ t, farm }: { t: Strings; farm: FarmView }) {
  const { id, services } = farm.record;
  return (
    <section>
      <h2>{t.services}</h2>
      {services.length === 0 && <p class="quiet">{t.noServices}</p>}
      <ul class="cards">
        {services.map(({ name, kind }) => (
          <li key={name}>
            {kind === 'http' ? (
              <a class="card service" href={href({ screen: 'open', farm: id, service: name })}>
                <strong>{name}</strong>
                <span class="quiet">{t.page}</span>
                <span class="go">{t.openPage}</span>
              </a>
            ) : (
              <div class="card service">
                <strong>{name}</strong>
                <span class="quiet">
                  {t.port} {argument(farm.record.name)} {name}
                </span>
              </div>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** As a shell takes it. */
function argument(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
}

function Measured({ t, farm }: { t: Strings; farm: FarmView }) {
  const { path, rtt, jitter, loss, grade } = farm.status();
  const shown = (value: number | null) => (value === null ? '–' : t.milliseconds(Math.round(value)));
  return (
    <section>
      <h2>{t.connection}</h2>
      <Chart t={t} samples={farm.samples} />
      <dl class="values">
        <Value name={t.path}>{path === null ? '–' : path === 'direct' ? t.direct : t.relayed}</Value>
        <Value name={t.roundTrip}>{shown(rtt)}</Value>
        <Value name={t.jitter}>{shown(jitter)}</Value>
        <Value name={t.loss}>{loss === null ? '–' : t.percent(Math.round(loss * 100))}</Value>
        <Value name={t.quality}>{grade === null ? '–' : t.grades[grade]}</Value>
      </dl>
    </section>
  );
}

/** Who else gets in, as the farm last said. */
function Phones({ t, farm }: { t: Strings; farm: FarmView }) {
  const app = useApp();
  const { phones } = farm.record;
  if (!phones?.length) return null;
  const own = base32.encode(app.phone);
  return (
    <section>
      <h2>{t.phones}</h2>
      <ul class="list">
        {phones.map(({ id, name }) => (
          <li key={id}>
            <span>{name || id.slice(0, 8)}</span>
            <span class="quiet">{id === own && name !== t.device ? t.thisPhone : id.slice(0, 8)}</span>
          </li>
        ))}
      </ul>
      <p class="quiet">{t.phonesHint}</p>
    </section>
  );
}

function Remove({ t, farm }: { t: Strings; farm: FarmView }) {
  const app = useApp();
  const [asked, setAsked] = useState(false);
  if (!asked) {
    return (
      <button type="button" class="button plain" onClick={() => setAsked(true)}>
        {t.removeFarm}
      </button>
    );
  }
  const remove = () => void app.forget(farm).then(() => go({ screen: 'farms' }));
  return (
    <section class="notice warning" role="alertdialog" aria-label={t.removeFarm}>
      <p>{t.removeSure}</p>
      <div class="row">
        <button type="button" class="button" onClick={() => setAsked(false)}>
          {t.cancel}
        </button>
        <button type="button" class="button danger" onClick={remove}>
          {t.removeYes}
        </button>
      </div>
    </section>
  );
}
