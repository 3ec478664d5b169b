// Talks to the server. Addresses are relative, so that the page works under any path of a proxy.

/** What the server answered instead of a transcript: a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(document, retryAfter = null) {
    super(document.detail);
    this.status = document.status;
    this.code = document.code;
    this.field = document.field ?? null;
    this.retryAfter = retryAfter;
  }
}

/** The connection ended before the answer did. */
export class Disconnected extends Error {}

/** Name, version and limits of the server. */
export async function about() {
  const answer = await fetch("./", { headers: { Accept: "application/json" } });
  return answer.json();
}

/** Which model is served: `status`, `model_loaded`, `model_name`. */
export async function health() {
  const answer = await fetch("health");
  return answer.json();
}

export async function openapi() {
  const answer = await fetch("openapi.json");
  return answer.json();
}

/** The server's own file of a transcript (a document of `format=json`), as a Blob. */
export async function writeAs(format, transcript, options, key) {
  const answer = await fetch(`format?${new URLSearchParams({ ...options, format })}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-API-Key": key },
    body: JSON.stringify(transcript),
  }).catch(() => {
    throw new Disconnected();
  });
  if (answer.ok) return answer.blob();
  throw problem(answer.status, await answer.text(), answer.headers.get("Retry-After"));
}

/**
 * Sends a file and listens to its stream of events. `listener` has `uploaded(fraction)`,
 * `progress(data)` and `segment(data)`. Resolves to the data of the event `done`; rejects with
 * Problem, Disconnected, or the signal's reason when it aborts.
 */
export function transcribe(file, parameters, key, listener, signal) {
  const body = formOf(file, parameters);
  return stream("POST", "transcribe", { key, listener, signal, body });
}

/**
 * Sends a file as a job, which the server finishes by itself; sent again under the same
 * `idempotencyKey` it is the same job. Resolves to its id.
 */
export async function sendJob(file, parameters, key, idempotencyKey, { uploaded }, signal) {
  const body = formOf(file, parameters);
  const headers = { "Idempotency-Key": idempotencyKey };
  const request = await send("POST", "jobs", { key, headers, uploaded, signal, body });
  if (request.status !== 202) throw problemOf(request);
  return JSON.parse(request.responseText).id;
}

/** The same for a job as `transcribe` for a file, but for the first `numTold` segments. */
export function follow(id, numTold, key, listener, signal) {
  const headers = { "Last-Event-ID": String(numTold) };
  return stream("GET", `jobs/${encodeURIComponent(id)}/events`, { key, listener, signal, headers });
}

/** Cancels a job. What the server says of it is nobody's business any more. */
export function cancelJob(id, key) {
  const headers = { "X-API-Key": key };
  fetch(`jobs/${encodeURIComponent(id)}`, { method: "DELETE", headers }).catch(() => null);
}

function formOf(file, parameters) {
  const form = new FormData();
  for (const [name, value] of Object.entries(parameters)) form.append(name, value);
  form.append("audio_file", file);
  return form;
}

async function stream(method, path, { key, listener, signal, headers = {}, body = null }) {
  const events = new EventReader();
  let end = null;
  const read = ({ status, responseText }) => {
    if (status !== 200) return;
    for (const event of events.read(responseText)) {
      if (event.name === "done" || event.name === "error") end = event;
      else listener[event.name]?.(event.data);
    }
  };
  headers = { ...headers, Accept: "text/event-stream" };
  const { uploaded } = listener;
  const request = await send(method, path, { key, headers, body, uploaded, read, signal });
  read(request);
  if (end?.name === "done") return end.data;
  if (end) throw new Problem(end.data);
  throw request.status === 200 ? new Disconnected() : problemOf(request);
}

/** Resolves to the request once all of its answer is there; `read(request)` when there is more. */
function send(method, path, { key, headers = {}, body, uploaded, read = null, signal }) {
  return new Promise((resolve, reject) => {
    // Not fetch, which does not tell how much of a file has been sent.
    const request = new XMLHttpRequest();
    request.open(method, path);
    for (const [name, value] of Object.entries({ ...headers, "X-API-Key": key })) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => uploaded(loaded / total);
    request.onprogress = () => read?.(request);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Disconnected());
    signal.addEventListener("abort", () => {
      request.abort();
      reject(signal.reason);
    });
    request.send(body);
  });
}

/** What an XMLHttpRequest was answered instead. */
function problemOf(request) {
  return problem(request.status, request.responseText, request.getResponseHeader("Retry-After"));
}

/** `retryAfter` is the header's value, null without one. */
function problem(status, body, retryAfter) {
  try {
    return new Problem(JSON.parse(body), Number(retryAfter) || null);
  } catch {
    // Something between this page and the server answered in its place.
    return new Problem({ status, code: "", detail: `HTTP ${status}` }, Number(retryAfter) || null);
  }
}

/** Takes a stream of server-sent events apart, as its text grows. */
export class EventReader {
  #position = 0;

  /** The events that are complete in `text` and were not before. Comments are passed over. */
  *read(text) {
    for (;;) {
      const end = text.indexOf("\n\n", this.#position);
      if (end < 0) return;
      const block = text.slice(this.#position, end);
      this.#position = end + 2;
      const fields = block.split("\n");
      const valueOf = (name) =>
        fields
          .filter((field) => field.startsWith(`${name}:`))
          .map((field) => field.slice(name.length + 1).trimStart())
          .join("\n");
      const data = valueOf("data");
      if (data) yield { name: valueOf("event"), data: JSON.parse(data) };
    }
  }
}
