import { expect, test } from 'vitest';
import * as base32 from '../base32';
import * as base64url from '../base64url';
import { hex } from '../bytes';
import * as epoch from '../epoch';
import { parseId } from '../id';
import { codeOf, formatLink, InvitationError, parse } from '../invitation';
import { num, raw, str, vectors } from './vectors';

const read = (bytes: Uint8Array | null) => (bytes === null ? null : hex(bytes));

test.each(vectors('text').map(one => [one.name, one] as const))('%s', (_, one) => {
  const text = str(one, 'text');
  switch (one.type) {
    case 'base32':
      return expect(base32.encode(raw(one, 'hex'))).toBe(text);
    case 'base32-read':
      return expect(read(base32.decode(text))).toBe(one.hex);
    case 'base64url-read':
      return expect(read(base64url.decode(text))).toBe(one.hex);
    case 'farm-id':
      return expect(read(parseId(text))).toBe(one.hex);
    default:
      throw new Error(`unknown type ${one.type}`);
  }
});

test.each(vectors('epochs').map(one => [one.name, one] as const))('%s', (_, one) => {
  switch (one.type) {
    case 'start':
      return expect(epoch.ofStart(num(one, 'starts'))).toBe(one.epoch);
    case 'next': {
      const known = num(one, 'epoch');
      const found = { next: epoch.next(known), starts: epoch.starts(known), text: epoch.display(known) };
      return expect(found).toEqual({ next: one.next, starts: one.starts, text: one.text });
    }
    case 'follows':
      return expect(epoch.follows(num(one, 'claimed'), num(one, 'known'))).toBe(one.follows);
    default:
      throw new Error(`unknown type ${one.type}`);
  }
});

const ERRORS = { not_an_invitation: 'not an invitation', version: 'version', part: 'part' };

test.each(vectors('invitations').map(one => [one.name, one] as const))('%s', (_, one) => {
  const text = str(one, 'text');
  if (one.type === 'refused') {
    let error: unknown;
    try {
      parse(text);
    } catch (thrown) {
      error = thrown;
    }
    if (!(error instanceof InvitationError)) throw new Error('it was taken');
    const shown = error.part === undefined ? ERRORS[error.kind] : `${ERRORS[error.kind]} ${error.part}`;
    return expect(shown).toBe(one.error);
  }
  const invitation = parse(text);
  expect(invitation.kind).toBe(one.type);
  expect(hex(invitation.secret)).toBe(one.secret);
  if (invitation.kind === 'link') {
    const { app, broker } = invitation;
    expect({ app, broker, farm: hex(invitation.farm) }).toEqual({
      app: one.app,
      broker: one.broker,
      farm: one.farm,
    });
    if (one.canonical) expect(formatLink(invitation)).toBe(text);
  } else if (one.canonical) {
    expect(codeOf(invitation.secret)).toBe(text);
  }
});
