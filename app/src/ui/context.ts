/** What every screen needs: the app, the strings, and being drawn again after a change. */

import { createContext } from 'preact';
import { useContext, useEffect, useState } from 'preact/hooks';
import type { App } from '../shell/app';
import type { Settings } from '../shell/store';
import { en, type Strings } from '../strings/en';
import { ru } from '../strings/ru';

/** All languages, by their tag. */
export const LANGUAGES: Record<'ru' | 'en', Strings> = { ru, en };

/** The language of the phone, as far as we have it. */
export function phoneLanguage(): 'ru' | 'en' {
  const wanted = navigator.languages.map(tag => tag.slice(0, 2).toLowerCase());
  return wanted.find(tag => tag === 'ru' || tag === 'en') === 'ru' ? 'ru' : 'en';
}

/** The language to show. */
export function languageOf(settings: Settings | null): 'ru' | 'en' {
  return settings?.language ?? phoneLanguage();
}

export const AppContext = createContext<App | null>(null);

/** The app; screens live inside its provider. */
export function useApp(): App {
  const app = useContext(AppContext);
  if (!app) throw new Error('a screen outside the app');
  return app;
}

/** The strings of the chosen language. */
export function useStrings(): Strings {
  return LANGUAGES[languageOf(useApp().settings)];
}

/** Draws again after every change, and once a second while spans are shown. */
export function useChanges(): void {
  const app = useApp();
  const [, draw] = useState(0);
  useEffect(() => {
    const again = () => draw(count => count + 1);
    const leave = app.subscribe(again);
    const timer = setInterval(again, 1000);
    return () => {
      leave();
      clearInterval(timer);
    };
  }, [app]);
}

/** A span of time as people say it. */
export function spanText(t: Strings, milliseconds: number): string {
  const seconds = Math.floor(Math.max(0, milliseconds) / 1000);
  if (seconds < 1) return t.nowSpan;
  if (seconds < 60) return t.secondsSpan(seconds);
  if (seconds < 3600) return t.minutesSpan(Math.floor(seconds / 60));
  if (seconds < 2 * 86_400) return t.hoursSpan(Math.floor(seconds / 3600));
  return t.daysSpan(Math.floor(seconds / 86_400));
}
