// The browser's own database: what this page keeps from one visit to the next, and nowhere else.

const NAME = "simple-asr";
const STORES = { transcripts: { keyPath: "id", autoIncrement: true }, jobs: { keyPath: "id" } };

/** What `action(store)` requests of one of STORES; `mode` is `readonly` or `readwrite`. */
export async function inStore(name, mode, action) {
  const database = await answer(open());
  try {
    return await answer(action(database.transaction(name, mode).objectStore(name)));
  } finally {
    database.close();
  }
}

function open() {
  const request = indexedDB.open(NAME, 2);
  request.onupgradeneeded = () => {
    const database = request.result;
    for (const [name, options] of Object.entries(STORES)) {
      if (!database.objectStoreNames.contains(name)) database.createObjectStore(name, options);
    }
  };
  return request;
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
