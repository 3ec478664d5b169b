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
  throw problemOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
}

/**
 * Sends a file and listens to its stream of events. `listener` has `uploaded(fraction)`,
 * `progress(data)` and `segment(data)`. Resolves to the data of the event `done`; rejects with
 * Problem, Disconnected, or the signal's reason when it aborts.
 */
export function transcribe(file, parameters, key, listener, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(parameters)) form.append(name, value);
  form.append("audio_file", file);
  return new Promise((resolve, reject) => {
    // Not fetch, which does not tell how much of a file has been sent.
    const request = new XMLHttpRequest();
    const events = new EventReader();
    const read = () => {
      if (!isStream(request)) return;
      for (const { name, data } of events.read(request.responseText)) {
        if (name === "done") resolve(data);
        else if (name === "error") reject(new Problem(data));
        else listener[name]?.(data);
      }
    };
    request.open("POST", "transcribe");
    request.setRequestHeader("X-API-Key", key);
    request.setRequestHeader("Accept", "text/event-stream");
    request.upload.onprogress = ({ loaded, total }) => listener.uploaded(loaded / total);
    request.onprogress = read;
    request.onload = () => {
      read();
      // Without effect when the stream has said how it ended.
      const retryAfter = request.getResponseHeader("Retry-After");
      reject(
        isStream(request)
          ? new Disconnected()
          : problemOf(request.status, request.responseText, retryAfter),
      );
    };
    request.onerror = () => reject(new Disconnected());
    signal.addEventListener("abort", () => {
      request.abort();
      reject(signal.reason);
    });
    request.send(form);
  });
}

function isStream(request) {
  return request.status === 200;
}

/** `retryAfter` is the header's value, null without one. */
function problemOf(status, body, retryAfter) {
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
