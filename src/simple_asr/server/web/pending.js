// Remembers the jobs that the server has of this page, so that the next visit finds them.

import { inStore } from "./store.js";

const STORE = "jobs";

/** In the order of their files: `{id, name, size}`. Empty where the browser keeps nothing. */
export async function pending() {
  const all = await inStore(STORE, "readonly", (store) => store.getAll()).catch(() => []);
  return all.sort((a, b) => a.sent - b.sent);
}

/** `id` is the server's, `size` in bytes. */
export async function remember(id, name, size) {
  const entry = { id, name, size, sent: Date.now() };
  await inStore(STORE, "readwrite", (store) => store.put(entry)).catch(() => null);
}

export async function forget(id) {
  await inStore(STORE, "readwrite", (store) => store.delete(id)).catch(() => null);
}
