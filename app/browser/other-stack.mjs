// Another WebRTC stack at the other end: sends as many bytes as it is asked
// for, as fast as the channel takes them. Talks JSON, a line each.

import { createInterface } from 'node:readline';
import wrtc from '@roamhq/wrtc';

/** What data channels carry well: larger ones are not faster there. */
const MESSAGE = 64 * 1024;
/** Bytes that may wait: enough to keep the path busy. */
const WAITING = 1024 * 1024;

const say = message => process.stdout.write(`${JSON.stringify(message)}\n`);
const connection = new wrtc.RTCPeerConnection();
const channel = connection.createDataChannel('bulk');
connection.onicecandidate = ({ candidate }) => candidate && say({ candidate });
channel.binaryType = 'arraybuffer';
channel.onmessage = ({ data }) => {
  let left = Number(data);
  const bytes = new Uint8Array(MESSAGE);
  // This stack does not say when there is room again. Looking without a pause would take the
  // processor from the browser; a megabyte lasts far longer than a millisecond.
  const more = () => {
    while (left > 0 && channel.bufferedAmount < WAITING) {
      channel.send(left >= MESSAGE ? bytes : bytes.slice(0, left));
      left -= MESSAGE;
    }
    if (left > 0) setTimeout(more, 1);
  };
  more();
};
// Said first: a candidate that comes before it would be lost.
const offer = await connection.createOffer();
say({ description: offer });
await connection.setLocalDescription(offer);
for await (const line of createInterface({ input: process.stdin })) {
  const { description, candidate } = JSON.parse(line);
  if (description) await connection.setRemoteDescription(description);
  else if (candidate) await connection.addIceCandidate(candidate).catch(() => undefined);
}
process.exit();
