// The files to transcribe: which wait, which are in work, and how far they are.

import { Disconnected, Problem, cancelJob, follow, health, sendJob, transcribe } from "./api.js";
import { forget, remember } from "./pending.js";

// A file so large is left to the server, so that the page may be closed: 10 minutes of MP3.
const LONG_BYTES = 10e6;
// Seconds between tries to reach a server that has the file.
const AWAY_PAUSE = 5;
// Enough for the server to share model calls among them, few enough to see each one move.
const NUM_AT_ONCE = 3;
// Seconds between looks at a model that is being loaded.
const LOADING_PAUSE = 2;
const WRONG_KEY = new Set([401, 403]);
// Under this `Idempotency-Key` the server has a job of another file.
export const OTHER_FILE = "idempotency_mismatch";
const TRY_AGAIN = new Set([429, 503]);

let lastId = 0;

/**
 * One file. `state` is waiting, loading, uploading, working, busy, away, done, failed or cancelled;
 * `fraction` counts within the state, 0 to 1; times are in seconds; `order` is `{parameters, key}`
 * once it was told to start; `serverId` is its id where the server finishes it by itself. Of one
 * that an earlier visit has sent, `file` is null.
 */
export class Job {
  id = ++lastId;
  document = null;
  historyId = null;
  sending = null;

  constructor({ name, size }, { file = null, serverId = null }) {
    this.file = file;
    this.name = name;
    this.size = size;
    this.serverId = serverId;
    this.reset();
  }

  static of(file) {
    return new Job(file, { file });
  }

  /** `entry` is one of `pending()`. */
  static sentBefore(entry) {
    return new Job(entry, { serverId: entry.id });
  }

  reset() {
    this.state = "waiting";
    this.order = null;
    this.fraction = 0;
    this.segments = [];
    this.warnings = [];
    this.duration = null;
    this.eta = null;
    this.speed = null;
    this.busyFor = 0;
    this.error = null;
    this.began = null;
    this.seconds = null;
    this.control = new AbortController();
  }

  /**
   * What the server is to know one sending from another by: the same for these parameters until
   * it has told the job's id, so that a job whose id was lost on the way is found, not made twice;
   * another once it says that the job under this one is of another file.
   */
  idempotencyKey(parameters) {
    const asked = JSON.stringify(parameters);
    if (this.sending?.asked !== asked) this.sending = { asked, key: randomKey() };
    return this.sending.key;
  }

  get isRunning() {
    return ["loading", "uploading", "working", "busy", "away"].includes(this.state);
  }

  get isOver() {
    return ["done", "failed", "cancelled"].includes(this.state);
  }

  /** The document so far: also of a file that failed midway. */
  get result() {
    return this.document ?? { text: textOf(this.segments), segments: this.segments, language: null };
  }
}

export function textOf(segments) {
  return segments.map(({ text }) => text).join("");
}

/** 32 hexadecimal digits. Not `crypto.randomUUID`, which a page has over HTTPS only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Runs jobs, NUM_AT_ONCE at a time. `onChange(job)` and `onSegment(job, segment)` tell of each. */
export class Queue {
  jobs = [];
  /** `onWrongKey(problem)` is called when the server does not take the key; its job waits again. */
  constructor({ onChange, onSegment, onWrongKey }) {
    this.onChange = onChange;
    this.onSegment = onSegment;
    this.onWrongKey = onWrongKey;
  }

  get isRunning() {
    return this.jobs.some((job) => job.isRunning);
  }

  /** Whether work would be lost with the page. */
  get isNeeded() {
    return this.jobs.some((job) => job.isRunning && !job.serverId);
  }

  /** Those that `start` would begin. */
  get unstarted() {
    return this.jobs.filter((job) => job.state === "waiting" && !job.order);
  }

  /** Those of this round: all that were begun since nothing was in work. */
  get round() {
    return this.jobs.filter((job) => job.order);
  }

  /** How far this round is, by the sizes of its files: 0 to 1. */
  get fraction() {
    const done = ({ isOver, state, fraction }) => (isOver ? 1 : state === "working" ? fraction : 0);
    const sum = (weight) => this.round.reduce((total, job) => total + weight(job), 0);
    return sum((job) => done(job) * job.size) / sum((job) => job.size) || 0;
  }

  add(job) {
    this.jobs.push(job);
    this.onChange(job);
  }

  /** Cancels a job in work; takes any other off the list. */
  drop(job) {
    if (job.serverId) this.#giveUp(job);
    if (job.isRunning) {
      job.control.abort(new DOMException("cancelled", "AbortError"));
    } else {
      this.jobs = this.jobs.filter((other) => other !== job);
      this.onChange(job);
    }
  }

  #giveUp(job) {
    forget(job.serverId);
    if (job.isRunning) cancelJob(job.serverId, job.order.key);
  }

  retry(job) {
    job.serverId = null;
    job.reset();
    this.onChange(job);
  }

  /** Begins all that wait, with these parameters. */
  start(parameters, key) {
    const isNewRound = !this.isRunning;
    for (const job of this.jobs) {
      if (job.state === "waiting") job.order ??= { parameters, key };
      else if (isNewRound) job.order = null;
    }
    this.#fill();
  }

  #fill() {
    const waiting = this.round.filter((job) => job.state === "waiting");
    const numRunning = this.jobs.filter((job) => job.isRunning).length;
    for (const job of waiting.slice(0, Math.max(0, NUM_AT_ONCE - numRunning))) this.#run(job);
  }

  async #run(job) {
    job.state = "uploading";
    job.began = performance.now();
    this.onChange(job);
    try {
      await this.#untilServed(job);
      // Of one that an earlier visit has sent, nobody here knows.
      if (job.file) job.seconds = (performance.now() - job.began) / 1000;
      job.state = "done";
    } catch (error) {
      if (WRONG_KEY.has(error.status)) {
        job.reset();
        // The others would be refused as well.
        for (const other of this.jobs) if (other.state === "waiting") other.order = null;
        this.onWrongKey(error);
      } else {
        if (job.serverId) await forget(job.serverId);
        job.error = error;
        job.state = error.name === "AbortError" ? "cancelled" : "failed";
      }
    }
    this.onChange(job);
    this.#fill();
  }

  /** Sends the file until the server takes it on: again after a while when it is too busy. */
  async #untilServed(job) {
    for (;;) {
      if (!job.serverId) await this.#modelLoaded(job);
      try {
        await this.#send(job);
        return;
      } catch (error) {
        if (!(error instanceof Problem && TRY_AGAIN.has(error.status) && error.retryAfter)) throw error;
        await this.#pause(job, "busy", error.retryAfter);
      }
    }
  }

  /** A file that is sent before the model is there would be sent in vain. */
  async #modelLoaded(job) {
    for (;;) {
      const { status } = await health().catch(() => {
        throw new Disconnected();
      });
      if (status !== "loading" && status !== "restarting") return;
      await this.#pause(job, "loading", LOADING_PAUSE);
    }
  }

  async #pause(job, state, seconds) {
    job.state = state;
    job.busyFor = seconds;
    this.onChange(job);
    await new Promise((resolve, reject) => {
      setTimeout(resolve, 1000 * seconds);
      job.control.signal.addEventListener("abort", () => reject(job.control.signal.reason));
    });
    job.control.signal.throwIfAborted();
  }

  async #send(job) {
    job.state = "uploading";
    job.fraction = 0;
    this.onChange(job);
    let first = null;
    const listener = {
      uploaded: (fraction) => {
        if (job.state !== "uploading") return;
        job.fraction = fraction;
        // All is sent: the server is decoding it.
        if (fraction === 1) Object.assign(job, { state: "working", fraction: 0 });
        this.onChange(job);
      },
      progress: ({ fraction, seconds_done, duration, eta_seconds }) => {
        const now = performance.now() / 1000;
        first ??= now;
        job.state = "working";
        job.fraction = fraction;
        job.duration = duration;
        job.eta = eta_seconds;
        job.speed = seconds_done > 0 && now > first ? seconds_done / (now - first) : null;
        this.onChange(job);
      },
      segment: (segment) => {
        job.segments.push(segment);
        this.onSegment(job, segment);
      },
    };
    const { parameters, key } = job.order;
    const { signal } = job.control;
    const isLong = job.serverId || job.size >= LONG_BYTES;
    const { content, warnings } = isLong
      ? await this.#inBackground(job, listener)
      : await transcribe(job.file, parameters, key, listener, signal);
    job.document = content;
    job.segments = content.segments;
    job.warnings = warnings;
    job.fraction = 1;
  }

  /** Leaves the file to the server, and listens; where the connection breaks, again and again. */
  async #inBackground(job, listener) {
    const { parameters, key } = job.order;
    const { signal } = job.control;
    if (!job.serverId) {
      const once = job.idempotencyKey(parameters);
      let isLost = false;
      try {
        job.serverId = await sendJob(job.file, parameters, key, once, listener, signal);
      } catch (error) {
        isLost = error.code !== OTHER_FILE;
        throw error;
      } finally {
        if (!isLost) job.sending = null;
      }
      await remember(job.serverId, job.name, job.size);
    }
    job.fraction = 0;
    for (;;) {
      job.state = "working";
      this.onChange(job);
      try {
        const done = await follow(job.serverId, job.segments.length, key, listener, signal);
        await forget(job.serverId);
        return done;
      } catch (error) {
        // A server that is started again, or a proxy in its place, says 503 or the like.
        if (!(error instanceof Disconnected || error.status >= 500)) throw error;
        await this.#pause(job, "away", AWAY_PAUSE);
      }
    }
  }
}
