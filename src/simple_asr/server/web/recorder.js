// Records the microphone into a file, and shows how loud it is.

import { byId } from "./dom.js";
import { clock, t } from "./i18n.js";

/** Makes the button record. `onFile(file)` gets what was recorded, `onError(text)` why it cannot. */
export function makeRecorder(onFile, onError) {
  const button = byId("record");
  let recording = null;
  show(null);
  button.addEventListener("click", async () => {
    if (recording) {
      recording.stop();
      return;
    }
    try {
      recording = await begin(show);
    } catch (error) {
      const reason = window.isSecureContext ? error.message : t("insecure");
      onError(t("noMicrophone", { reason }));
      return;
    }
    onFile(await recording.file);
    recording = null;
    show(null);
  });
}

/** `seconds` and `level` (0 to 1) of a recording under way, or null. */
function show(now) {
  byId("record").setAttribute("aria-pressed", String(now !== null));
  byId("record-label").textContent = now ? `${t("recordStop")} · ${clock(now.seconds)}` : t("record");
  byId("level").hidden = now === null;
  byId("level").value = now?.level ?? 0;
}

/** Begins at once; the promise `file` is kept after `stop()`. Rejects without a microphone. */
async function begin(showNow) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const meter = new LevelMeter(stream);
  const chunks = [];
  const began = Date.now();
  const timer = setInterval(
    () => showNow({ seconds: (Date.now() - began) / 1000, level: meter.level() }),
    80,
  );
  const file = new Promise((resolve) => {
    recorder.ondataavailable = ({ data }) => chunks.push(data);
    recorder.onstop = () => {
      clearInterval(timer);
      meter.close();
      for (const track of stream.getTracks()) track.stop();
      resolve(new File(chunks, fileName(recorder.mimeType), { type: recorder.mimeType }));
    };
  });
  recorder.start(1000);
  showNow({ seconds: 0, level: 0 });
  return { file, stop: () => recorder.stop() };
}

function fileName(mediaType) {
  const time = new Date().toLocaleString("sv").replaceAll(":", "."); // 2026-05-01 09.30.00
  return `${t("recording")} ${time}.${mediaType.includes("mp4") ? "m4a" : "webm"}`;
}

class LevelMeter {
  #context = new AudioContext();
  #analyser = this.#context.createAnalyser();
  #samples = new Float32Array(1024);

  constructor(stream) {
    this.#analyser.fftSize = 2 * this.#samples.length;
    this.#context.createMediaStreamSource(stream).connect(this.#analyser);
  }

  /** 0 at -60 dB and below, 1 at full scale. */
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample ** 2, 0) / this.#samples.length;
    return Math.max(0, 1 + (10 * Math.log10(power + 1e-10)) / 60);
  }

  close() {
    this.#context.close();
  }
}
