/** Reads a QR code with the camera: with the browser's own reader where it has one. */

import { useEffect, useRef } from 'preact/hooks';
import type { Strings } from '../strings/en';

/** Between two looks at the picture. */
const LOOK_EVERY_MS = 200;

/** Pictures are looked at no larger than this: a code of ours has 41 modules. */
const MAX_SIDE = 800;

type Detector = { detect(source: CanvasImageSource): Promise<{ rawValue: string }[]> };

/** What reads a code out of a picture. */
async function reader(): Promise<(video: HTMLVideoElement) => Promise<string | null>> {
  const { BarcodeDetector } = globalThis as { BarcodeDetector?: new (options: object) => Detector };
  if (BarcodeDetector) {
    const detector = new BarcodeDetector({ formats: ['qr_code'] });
    return async video => (await detector.detect(video))[0]?.rawValue ?? null;
  }
  const { default: jsQR } = await import('jsqr');
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d', { willReadFrequently: true });
  return async video => {
    const scale = Math.min(1, MAX_SIDE / Math.max(video.videoWidth, video.videoHeight, 1));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    if (!context || canvas.width === 0) return null;
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    return jsQR(data, width, height)?.data ?? null;
  };
}

interface Properties {
  t: Strings;
  found: (text: string) => void;
  failed: () => void;
  close: () => void;
}

export function Scanner({ t, found, failed, close }: Properties) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    let over = false;
    let stream: MediaStream | null = null;
    const run = async () => {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      const element = video.current;
      if (over || !element) return;
      element.srcObject = stream;
      await element.play();
      const read = await reader();
      while (!over) {
        const text = await read(element).catch(() => null);
        if (text && !over) return found(text);
        await new Promise(resolve => setTimeout(resolve, LOOK_EVERY_MS));
      }
    };
    run().catch(() => {
      if (!over) failed();
    });
    return () => {
      over = true;
      for (const track of stream?.getTracks() ?? []) track.stop();
    };
  }, []);
  return (
    <section class="scanner">
      <video ref={video} muted playsInline />
      <p>{t.scanning}</p>
      <button type="button" class="button" onClick={close}>
        {t.cancel}
      </button>
    </section>
  );
}
