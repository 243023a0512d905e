/**
 * Where a connection learns which networks there are.
 *
 * Chromium's WebRTC reads the list of networks once for each window, and then hears of changes
 * late: on Linux after 2 to 3 s (on Android after about 1), because it first waits whether a change
 * is the last one. Until then a connection made in that window gathers no candidates of a network
 * that is back, or some of one that is gone: in 7 of 18 outages of a phone's network the tunnel was
 * back only after 1.7 to 3.7 s, and in 30 of 30 after at most 0.8 s with this. A window that was just
 * made reads the list as it is.
 */

/** A window of its own for one connection, and its end. */
export interface Room {
  connection: typeof RTCPeerConnection;
  close(): void;
}

/** Chromium and its kin alone have this, and the trap. Elsewhere a frame may lose what is made in it while it still loads. */
const hasStaleList = 'userAgentData' in navigator;

export function room(): Room {
  const frame = hasStaleList ? document.createElement('iframe') : null;
  if (frame) {
    frame.hidden = true;
    document.body.append(frame);
  }
  const inside = frame?.contentWindow as (Window & typeof globalThis) | null | undefined;
  return {
    connection: inside?.RTCPeerConnection ?? RTCPeerConnection,
    close: () => frame?.remove(),
  };
}
