import { expect, test } from 'vitest';
import * as base32 from '../base32';
import { type Claim, presenceContent, signClaim, transcript } from '../broker';
import { type Bytes, concat, fromHex, hex } from '../bytes';
import { decode } from '../codec';
import { farmIdOf, phoneIdOf } from '../id';
import { codeOf, idOfSecret } from '../invitation';
import { context, type DeviceKey, deviceKey, verify } from '../keys';
import * as pairing from '../pairing';
import { open, type Payload, payload, peerSignal, SignalError, sign } from '../signal';
import { type Case, num, raw, str, vectors } from './vectors';

/** RFC 8410: what stands before the seed in PKCS #8. */
const PKCS8 = fromHex('302e020100300506032b657004220420');

async function keyOf(seed: Bytes, publicKey: Bytes): Promise<DeviceKey> {
  const privateKey = await crypto.subtle.importKey('pkcs8', concat(PKCS8, seed), 'Ed25519', false, ['sign']);
  const known = await crypto.subtle.importKey('raw', publicKey, 'Ed25519', true, ['verify']);
  return deviceKey({ privateKey, publicKey: known });
}

test.each(vectors('identity').map(one => [one.name, one] as const))('%s', async (_, one) => {
  if (one.type === 'secret') {
    const secret = raw(one, 'secret');
    expect(hex(await idOfSecret(secret))).toBe(one.invitation_id);
    return expect(codeOf(secret)).toBe(one.code);
  }
  const key = raw(one, 'public_key');
  const [farm, phone] = [await farmIdOf(key), await phoneIdOf(key)];
  expect([hex(farm), base32.encode(farm)]).toEqual([one.farm_id, one.farm_id_text]);
  return expect([hex(phone), base32.encode(phone)]).toEqual([one.phone_id, one.phone_id_text]);
});

async function signed(
  one: Case,
  purpose: 'authenticate' | 'presence' | 'signal',
  content: Bytes,
): Promise<void> {
  expect(hex(concat(context(purpose), content))).toBe(one.signed);
  const key = await keyOf(raw(one, 'seed'), raw(one, 'public_key'));
  const made = await key.sign(purpose, content);
  expect(hex(made)).toBe(one.signature);
  expect(await verify(key.public, purpose, content, made)).toBe(true);
  const altered = Uint8Array.from(content);
  altered[0] = (altered[0] ?? 0) ^ 1;
  expect(await verify(key.public, purpose, altered, made)).toBe(false);
}

test.each(vectors('signatures').map(one => [one.name, one] as const))('%s', async (_, one) => {
  switch (one.type) {
    case 'authenticate': {
      const claim: Claim = {
        role: one.role === 'farm' ? 'farm' : 'phone',
        slot: num(one, 'slot'),
        boot: raw(one, 'boot'),
        epoch: num(one, 'epoch'),
        broker: str(one, 'broker'),
      };
      await signed(one, 'authenticate', transcript(raw(one, 'nonce'), raw(one, 'public_key'), claim));
      const key = await keyOf(raw(one, 'seed'), raw(one, 'public_key'));
      return expect(hex((await signClaim(key, raw(one, 'nonce'), claim)).signature)).toBe(one.signature);
    }
    case 'presence':
      return signed(one, 'presence', presenceContent(raw(one, 'farm'), raw(one, 'boot'), num(one, 'epoch')));
    case 'signal': {
      await signed(one, 'signal', raw(one, 'body'));
      const key = await keyOf(raw(one, 'seed'), raw(one, 'public_key'));
      const again = await sign(decode(peerSignal, raw(one, 'body')), key);
      return expect(await verify(key.public, 'signal', again.body, again.signature)).toBe(true);
    }
    case 'open':
      return expect(await opened(one)).toBe(one.result);
    default:
      throw new Error(`unknown type ${one.type}`);
  }
});

async function opened(one: Case): Promise<string> {
  const message = decode(payload, raw(one, 'signed'));
  if (!message.signed) throw new Error('not signed');
  const expected = {
    key: raw(one, 'key'),
    from: one.from === 'farm' ? ('farm' as const) : ('phone' as const),
    farm: raw(one, 'farm'),
    session: { phone: raw(one, 'phone'), slot: num(one, 'slot') },
  };
  try {
    await open(message.signed, expected);
    return 'ok';
  } catch (error) {
    if (!(error instanceof SignalError)) throw error;
    return error.kind;
  }
}

test.each(vectors('pairing').map(one => [one.name, one] as const))('%s', async (_, one) => {
  const secret = raw(one, 'secret');
  switch (one.type) {
    case 'request': {
      const made = await pairing.request(
        secret,
        raw(one, 'phone'),
        num(one, 'slot'),
        raw(one, 'nonce'),
        str(one, 'phone_name'),
      );
      expect(hex(pairing.requestContent(made))).toBe(one.content);
      return expect([hex(made.invitation), hex(made.mac)]).toEqual([one.invitation, one.mac]);
    }
    case 'answer': {
      const asked = paired(one, 'request').pair_request;
      if (!asked) throw new Error('not a request');
      const key = await keyOf(raw(one, 'seed'), raw(one, 'farm'));
      const content = pairing.answerContent(
        asked,
        raw(one, 'farm'),
        raw(one, 'farm_nonce'),
        str(one, 'farm_name'),
      );
      expect(hex(content)).toBe(one.content);
      expect(hex(await pairing.macOf(secret, content))).toBe(one.mac);
      expect(hex(await key.sign('pairing', content))).toBe(one.signature);
      return expect(hex(concat(context('pairing'), content))).toBe(one.signed);
    }
    case 'check':
      return expect(await checked(one, secret)).toBe(one.result);
    default:
      throw new Error(`unknown type ${one.type}`);
  }
});

function paired(one: Case, field: string): Payload {
  return decode(payload, raw(one, field));
}

async function checked(one: Case, secret: Bytes): Promise<string> {
  const [asked, answer] = [paired(one, 'request').pair_request, paired(one, 'answer').pair_answer];
  if (!asked || !answer) throw new Error('not a request and an answer');
  try {
    await pairing.checkAnswer(
      secret,
      asked,
      typeof one.pinned === 'string' ? raw(one, 'pinned') : null,
      answer,
    );
    return 'ok';
  } catch (error) {
    if (!(error instanceof pairing.PairError)) throw error;
    return error.reason === undefined ? error.kind : `${error.kind}: ${error.reason}`;
  }
}
