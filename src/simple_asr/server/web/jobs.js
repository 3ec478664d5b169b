// The files to transcribe: which wait, which are in work, and how far they are.

import { Disconnected, Problem, health, transcribe } from "./api.js";

// Enough for the server to share model calls among them, few enough to see each one move.
const NUM_AT_ONCE = 3;
// Seconds between looks at a model that is being loaded.
const LOADING_PAUSE = 2;
const WRONG_KEY = new Set([401, 403]);
const TRY_AGAIN = new Set([429, 503]);

let lastId = 0;

/**
 * One file. `state` is waiting, loading, uploading, working, busy, done, failed or cancelled;
 * `fraction` counts within the state, 0 to 1; times are in seconds; `order` is `{parameters, key}`
 * once it was told to start.
 */
export class Job {
  id = ++lastId;
  document = null;
  historyId = null;

  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.reset();
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

  get isRunning() {
    return ["loading", "uploading", "working", "busy"].includes(this.state);
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
    return sum((job) => done(job) * job.file.size) / sum((job) => job.file.size) || 0;
  }

  add(job) {
    this.jobs.push(job);
    this.onChange(job);
  }

  /** Cancels a job in work; takes any other off the list. */
  drop(job) {
    if (job.isRunning) {
      job.control.abort(new DOMException("cancelled", "AbortError"));
    } else {
      this.jobs = this.jobs.filter((other) => other !== job);
      this.onChange(job);
    }
  }

  retry(job) {
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
      job.seconds = (performance.now() - job.began) / 1000;
      job.state = "done";
    } catch (error) {
      if (WRONG_KEY.has(error.status)) {
        job.reset();
        // The others would be refused as well.
        for (const other of this.jobs) if (other.state === "waiting") other.order = null;
        this.onWrongKey(error);
      } else {
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
      await this.#modelLoaded(job);
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
    const { content, warnings } = await transcribe(
      job.file,
      job.order.parameters,
      job.order.key,
      listener,
      job.control.signal,
    );
    job.document = content;
    job.segments = content.segments;
    job.warnings = warnings;
    job.fraction = 1;
  }
}
