// Keeps finished transcripts in this browser, and nowhere else. Recordings are not kept.

import { inStore } from "./store.js";

const STORE = "transcripts";
const MAX_ENTRIES = 50;

/** Newest first: `{id, name, date, duration, document}`. Empty where the browser keeps nothing. */
export async function entries() {
  const all = await inStore(STORE, "readonly", (store) => store.getAll()).catch(() => []);
  return all.reverse();
}

/** Adds an entry or writes it anew, drops the oldest over MAX_ENTRIES, and tells its id. */
export async function keep(entry) {
  const id = await inStore(STORE, "readwrite", (store) => store.put(entry)).catch(() => null);
  for (const old of (await entries()).slice(MAX_ENTRIES)) await forget(old.id);
  return id;
}

export async function forget(id) {
  await inStore(STORE, "readwrite", (store) => store.delete(id));
}

export async function forgetAll() {
  await inStore(STORE, "readwrite", (store) => store.clear());
}
