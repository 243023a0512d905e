/** Which screen is drawn. */

import { useEffect } from 'preact/hooks';
import type { App } from '../shell/app';
import { AppContext, languageOf, useApp, useChanges, useStrings } from './context';
import { Farm } from './farm';
import { Farms } from './farms';
import { Open } from './open';
import { Outages } from './outages';
import { Pair } from './pair';
import { ReadingScreen } from './reading';
import { useRoute } from './route';
import { Settings } from './settings';
import { UpdateNotice } from './update';

export function Root({ app, invitation }: { app: App; invitation: string | null }) {
  return (
    <AppContext.Provider value={app}>
      <Screens invitation={invitation} />
      <UpdateNotice />
    </AppContext.Provider>
  );
}

function Screens({ invitation }: { invitation: string | null }) {
  useChanges();
  const [app, t, route] = [useApp(), useStrings(), useRoute()];
  const language = languageOf(app.settings);
  useEffect(() => {
    document.documentElement.lang = language;
    document.title = t.appName;
  }, [language, t]);
  const farm = 'farm' in route ? app.farms.find(one => one.record.id === route.farm) : undefined;
  switch (route.screen) {
    case 'pair':
      return <Pair invitation={invitation} />;
    case 'settings':
      return <Settings />;
    case 'farm':
      return farm ? <Farm farm={farm} key={route.farm} /> : <Farms />;
    case 'outages':
      return farm ? <Outages farm={farm} /> : <Farms />;
    case 'reading':
      return farm ? (
        <ReadingScreen farm={farm} name={route.series} key={`${route.farm}/${route.series}`} />
      ) : (
        <Farms />
      );
    case 'open':
      return farm ? (
        <Open farm={farm} service={route.service} key={`${route.farm}/${route.service}`} />
      ) : (
        <Farms />
      );
    case 'farms':
      return <Farms />;
  }
}
