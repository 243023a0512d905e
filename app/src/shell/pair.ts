/** Pairing with a farm. */

import type { FromBroker } from '../core/broker';
import type { Bytes } from '../core/bytes';
import { utf8 } from '../core/bytes';
import { decode, encode } from '../core/codec';
import { random } from '../core/id';
import { type Invitation, InvitationError } from '../core/invitation';
import { type DeviceKey, NONCE_LEN } from '../core/keys';
import { checkAnswer, MAX_NAME, PairError, type PairRefused, request } from '../core/pairing';
import { payload } from '../core/signal';
import type { Hub } from './hub';

/** How long pairing may take: the farm may be reconnecting just now. */
const WITHIN_MS = 30_000;

/** Before a request without an answer is repeated; the broker counts these. */
const REPEAT_MS = 5_000;

/** Told so often that no farm has the invitation, it is believed: a farm that reconnects is back before that. */
const ABSENT = 3;

/** What can come in the way, for the screen. */
export type Trouble =
  | InvitationError['kind']
  | PairRefused
  | ('broker' | 'no_farm' | 'limit' | 'no_answer')
  | ('forged' | 'other');

/** Pairing did not come about. */
export class PairingFailed extends Error {
  constructor(readonly trouble: Trouble) {
    super(trouble);
  }
}

/** What came in the way. */
export function troubleOf(error: unknown): Trouble {
  if (error instanceof InvitationError) return error.kind;
  if (error instanceof PairingFailed) return error.trouble;
  if (error instanceof PairError) return error.kind === 'refused' ? (error.reason ?? 'other') : 'forged';
  return 'no_answer';
}

/** Asks the farm of an invitation to let this phone in: its key and name. Throws `PairError`, or {@link PairingFailed} where nobody answered: the invitation is not used up. */
export async function pair(
  hub: Hub,
  invitation: Invitation,
  key: DeviceKey,
  phoneName: string,
): Promise<{ farm: Bytes; name: string }> {
  const { secret } = invitation;
  const pinned = invitation.kind === 'link' ? invitation.farm : null;
  const ask = await request(secret, key.public, hub.place, random(NONCE_LEN), fitting(phoneName));
  const body = encode({ pair_request: ask });
  let trouble: Trouble = 'broker';
  let absent = 0;
  return new Promise((resolve, reject) => {
    const send = () => hub.socket.send({ signal: { peer: { invitation: ask.invitation }, payload: body } });
    const leave = hub.visit({
      online: () => {
        trouble = 'no_answer';
        send();
      },
      message: message => void take(message),
    });
    const repeat = setInterval(send, REPEAT_MS);
    const deadline = setTimeout(() => end(() => reject(new PairingFailed(trouble))), WITHIN_MS);
    const end = (settle: () => void) => {
      clearInterval(repeat);
      clearTimeout(deadline);
      leave();
      settle();
    };
    const take = async (message: FromBroker) => {
      if (message.undelivered?.peer.invitation) {
        // Repeating meets the broker's limit sooner or later: what was wrong stays what it was.
        if (message.undelivered.reason === 'offline') {
          trouble = 'no_farm';
          absent += 1;
          if (absent >= ABSENT) end(() => reject(new PairingFailed(trouble)));
        } else if (trouble !== 'no_farm') trouble = 'limit';
        return;
      }
      if (!message.signal) return;
      try {
        const { pair_answer: answer } = decode(payload, message.signal.payload);
        if (!answer) return;
        const paired = await checkAnswer(secret, ask, pinned, answer);
        end(() => resolve(paired));
      } catch (error) {
        if (error instanceof PairError && error.kind !== 'other_request') end(() => reject(error));
      }
    };
  });
}

/** A name cut to what fits the wire. */
function fitting(name: string): string {
  let fits = '';
  for (const character of name.trim()) {
    if (utf8(fits + character).length > MAX_NAME) break;
    fits += character;
  }
  return fits.trim();
}
