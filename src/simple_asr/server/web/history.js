// Keeps finished transcripts in this browser, and nowhere else. Recordings are not kept.

const NAME = "simple-asr";
const STORE = "transcripts";
const MAX_ENTRIES = 50;

/** Newest first: `{id, name, date, duration, document}`. Empty where the browser keeps nothing. */
export async function entries() {
  const all = await inStore("readonly", (store) => store.getAll()).catch(() => []);
  return all.reverse();
}

/** Adds an entry or writes it anew, drops the oldest over MAX_ENTRIES, and tells its id. */
export async function keep(entry) {
  const id = await inStore("readwrite", (store) => store.put(entry)).catch(() => null);
  for (const old of (await entries()).slice(MAX_ENTRIES)) await forget(old.id);
  return id;
}

export async function forget(id) {
  await inStore("readwrite", (store) => store.delete(id));
}

export async function forgetAll() {
  await inStore("readwrite", (store) => store.clear());
}

async function inStore(mode, action) {
  const database = await answer(open());
  try {
    return await answer(action(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () =>
    request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
  return request;
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
