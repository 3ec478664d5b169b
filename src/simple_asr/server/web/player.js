// Plays a recording, and draws its waveform.

import { byId } from "./dom.js";
import { clock, decimal, t } from "./i18n.js";

const NUM_PEAKS = 1200;
// What is decoded for its waveform is held in memory whole, at this rate: 29 MB an hour.
const WAVEFORM_RATE = 8000;
const MAX_WAVEFORM_SECONDS = 2 * 3600;
const MAX_WAVEFORM_BYTES = 300e6;
// A bar and the gap after it, in CSS pixels.
const BAR = 2;
const GAP = 1;
// What an arrow key moves, in seconds.
const STEP = 5;

export class Player {
  #audio = byId("audio");
  #canvas = byId("waveform");
  #onTime;
  #duration = 0;
  #peaks = null;
  #address = null;

  /** `onTime(seconds, isPlaying)` is called while it plays and when the position changes. */
  constructor(onTime) {
    this.#onTime = onTime;
    byId("play").addEventListener("click", () => this.toggle());
    byId("rate").addEventListener("change", ({ target }) => {
      this.#audio.playbackRate = Number(target.value);
    });
    this.#canvas.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#canvas.addEventListener("pointermove", (event) => event.buttons && this.#drag(event));
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["play", "pause", "ended", "seeked"]) {
      this.#audio.addEventListener(name, () => this.#show());
    }
    this.#audio.addEventListener("play", () => this.#tick());
    this.#audio.addEventListener("error", () => this.#address && this.#refuse(t("noPlayer")));
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Loads a file of this many seconds; null shows why there is nothing to play. */
  load(file, duration) {
    this.#audio.pause();
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = null;
    this.#peaks = null;
    if (!file) {
      this.#audio.removeAttribute("src");
      this.#refuse(t("noRecording"));
      return;
    }
    this.#address = URL.createObjectURL(file);
    this.#duration = duration;
    this.#audio.src = this.#address;
    this.#audio.playbackRate = Number(byId("rate").value);
    byId("player").hidden = false;
    byId("no-player").hidden = true;
    this.#show();
    this.#findPeaks(file, this.#address);
  }

  /** Goes to a time and plays from there. */
  playFrom(seconds) {
    if (!this.#address) return;
    this.#audio.currentTime = seconds;
    this.#audio.play().catch(() => {});
  }

  toggle() {
    if (!this.#address) return;
    if (this.#audio.paused) this.#audio.play().catch(() => {});
    else this.#audio.pause();
  }

  #refuse(reason) {
    byId("player").hidden = true;
    byId("no-player").hidden = false;
    byId("no-player").textContent = reason;
  }

  #drag(event) {
    const { left, width } = this.#canvas.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    this.#audio.currentTime = share * this.#duration;
    this.#show();
  }

  #key(event) {
    const now = this.#audio.currentTime;
    const targets = {
      ArrowLeft: now - STEP,
      ArrowRight: now + STEP,
      ArrowDown: now - STEP,
      ArrowUp: now + STEP,
      Home: 0,
      End: this.#duration,
    };
    if (event.key === " ") this.toggle();
    else if (event.key in targets) {
      this.#audio.currentTime = Math.min(this.#duration, Math.max(0, targets[event.key]));
    } else return;
    event.preventDefault();
    this.#show();
  }

  #tick() {
    this.#show();
    if (!this.#audio.paused) requestAnimationFrame(() => this.#tick());
  }

  #show() {
    const { currentTime, paused } = this.#audio;
    const play = byId("play");
    play.setAttribute("aria-label", t(paused ? "play" : "pause"));
    play.classList.toggle("playing", !paused);
    byId("clock").textContent = `${clock(currentTime)} / ${clock(this.#duration)}`;
    this.#canvas.setAttribute("aria-valuemax", decimal(this.#duration));
    this.#canvas.setAttribute("aria-valuenow", Math.round(currentTime));
    this.#canvas.setAttribute("aria-valuetext", clock(currentTime));
    this.#draw();
    this.#onTime(currentTime, !paused);
  }

  // The waveform ---------------------------------------------------------------------------------

  async #findPeaks(file, address) {
    if (file.size > MAX_WAVEFORM_BYTES || this.#duration > MAX_WAVEFORM_SECONDS) return;
    try {
      const context = new OfflineAudioContext(1, 1, WAVEFORM_RATE);
      const sound = await context.decodeAudioData(await file.arrayBuffer());
      if (address !== this.#address) return; // Another file was loaded meanwhile.
      this.#peaks = peaksOf(sound.getChannelData(0));
      this.#draw();
    } catch {
      // Without a waveform the line still shows where it plays.
    }
  }

  #draw() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(canvas);
    const played = (this.#audio.currentTime / this.#duration) * width;
    for (let x = 0; x < width; x += BAR + GAP) {
      const peak = this.#peaks?.[Math.floor((x / width) * NUM_PEAKS)] ?? 0.06;
      const bar = Math.max(2, peak * (height - 4));
      context.fillStyle = x < played ? style.accentColor : style.color;
      context.fillRect(x, (height - bar) / 2, BAR, bar);
    }
  }
}

/** NUM_PEAKS numbers from 0 to 1: how loud each stretch gets, beside the loudest. */
function peaksOf(samples) {
  const peaks = new Float32Array(NUM_PEAKS);
  const length = samples.length / NUM_PEAKS;
  for (let index = 0; index < samples.length; index += 1) {
    const place = Math.min(NUM_PEAKS - 1, Math.floor(index / length));
    peaks[place] = Math.max(peaks[place], Math.abs(samples[index]));
  }
  const loudest = peaks.reduce((a, b) => Math.max(a, b), 1e-4);
  return peaks.map((peak) => peak / loudest);
}
