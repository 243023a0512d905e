/** Pieces that several screens use. */

import type { ComponentChildren } from 'preact';
import { useStrings } from './context';
import { href, type Route } from './route';

/** The bar on top: a way back where there is one, the title, and what belongs to the screen. */
export function Bar({
  title,
  back,
  children,
}: {
  title: string;
  back?: Route;
  children?: ComponentChildren;
}) {
  const t = useStrings();
  return (
    <header class="bar">
      {back && (
        <a class="icon" href={href(back)}>
          <span class="hidden">{t.back}</span>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M15 5l-7 7 7 7" />
          </svg>
        </a>
      )}
      <h1>{title}</h1>
      {children ?? (
        <a class="icon" href={href({ screen: 'settings' })}>
          <span class="hidden">{t.settings}</span>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M4 7h10M18 7h2M4 17h2M10 17h10" />
            <circle cx="16" cy="7" r="2" />
            <circle cx="8" cy="17" r="2" />
          </svg>
        </a>
      )}
    </header>
  );
}

/** One measured value. */
export function Value({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div class="value">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
