// The page at `/`: puts its parts together.

import { Disconnected, about, health, writeAs } from "./api.js";
import { byId, copy, el, save } from "./dom.js";
import * as history_ from "./history.js";
import {
  bytes,
  clock,
  decimal,
  languageName,
  locale,
  percent,
  switchLanguage,
  t,
  translatePage,
} from "./i18n.js";
import { Job, OTHER_FILE, Queue } from "./jobs.js";
import { pending } from "./pending.js";
import { Player } from "./player.js";
import { makeRecorder } from "./recorder.js";
import { FORMATS, chosenParameters, pointAt, showSettings, writingOptions } from "./settings.js";
import { TranscriptView } from "./transcript.js";

const KEY = "simple-asr-key";

let limits = {};
// What the result shows: a job, or an entry of the history in a job's shape.
let shown = null;

const queue = new Queue({ onChange: showJob, onSegment: growTranscript, onWrongKey: refuseKey });
const player = new Player((seconds, isPlaying) => {
  if (seconds > 0) view.mark(seconds, { follow: isPlaying });
});
const view = new TranscriptView(byId("transcript"), {
  onSeek: (seconds) => player.playFrom(seconds),
  onEdit: () => keepInHistory(shown),
});

translatePage("title");
showSettings();
showKey();
showDownloads();
takeFiles();
makeRecorder((file) => addFiles([file]), showError);
listen();
showHistory();
showServer();
findPending();

function listen() {
  byId("start").addEventListener("click", start);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  byId("key-change").addEventListener("click", () => {
    forgetKey();
    byId("key").focus();
  });
  byId("other-language").addEventListener("click", switchLanguage);
  byId("other-language").textContent = t("otherLanguage");
  byId("format").addEventListener("change", showDownloads);
  byId("search").addEventListener("input", ({ target }) => showMatches(view.find(target.value)));
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") showMatches(view.findNext(event.shiftKey ? -1 : 1));
  });
  byId("edit").addEventListener("click", () => edit(!view.isEditing));
  byId("copy").addEventListener("click", copyText);
  byId("history-clear").addEventListener("click", async () => {
    await history_.forgetAll();
    showHistory();
  });
  addEventListener("beforeunload", (event) => queue.isNeeded && event.preventDefault());
}

// The server --------------------------------------------------------------------------------------

async function showServer() {
  try {
    const server = await about();
    limits = server.limits;
    byId("version").textContent = t("version", server);
    byId("model").textContent = modelSentence(await health());
  } catch {
    byId("model").textContent = t("unreachable");
  }
}

function modelSentence({ status, model_name: name, requested_model: wanted }) {
  if (status === "loading" || status === "restarting") return t("modelLoading");
  if (status === "failed") return t("modelFailed");
  return wanted ? t("modelInstead", { name, wanted }) : t("modelServed", { name });
}

// The key -----------------------------------------------------------------------------------------

function showKey() {
  const isKept = sessionStorage.getItem(KEY) !== null;
  byId("key-form").hidden = isKept;
  byId("key-kept").hidden = !isKept;
}

/** The key, kept from now on; null when there is none. */
function takeKey() {
  const typed = byId("key").value.trim();
  if (typed) sessionStorage.setItem(KEY, typed);
  byId("key").value = "";
  showKey();
  return sessionStorage.getItem(KEY);
}

function forgetKey() {
  sessionStorage.removeItem(KEY);
  showKey();
}

function refuseKey(problem) {
  forgetKey();
  showError(problem.message);
  byId("key").focus();
}

// Files and jobs ----------------------------------------------------------------------------------

function takeFiles() {
  const drop = byId("drop");
  byId("file").addEventListener("change", ({ target }) => {
    addFiles(target.files);
    target.value = ""; // So that the same file can be chosen again.
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addFiles(event.dataTransfer.files);
  });
  addEventListener("paste", ({ clipboardData }) => addFiles(clipboardData.files));
}

function addFiles(files) {
  if (files.length) clearErrors();
  for (const file of files) {
    if (file.size > limits.max_upload_bytes) {
      const limit = bytes(limits.max_upload_bytes);
      showError(t("tooLarge", { name: file.name, size: bytes(file.size), limit }));
    } else {
      queue.add(Job.of(file));
    }
  }
}

/** Files that an earlier visit left to the server. Without the key, they wait for it. */
async function findPending() {
  for (const entry of await pending()) queue.add(Job.sentBefore(entry));
  const key = sessionStorage.getItem(KEY);
  if (key && queue.unstarted.length) queue.start(chosenParameters(), key);
}

function start() {
  clearErrors();
  const key = takeKey();
  if (!key) {
    showError(t("needKey"));
    byId("key").focus();
    return;
  }
  if (!queue.unstarted.length) return;
  if (!queue.isRunning) showResult(queue.unstarted[0]);
  queue.start(chosenParameters(), key);
}

function showJob(job) {
  showRow(job);
  showTotal();
  if (job === shown && job.state === "working" && !job.segments.length) showAbout();
  if (job.isOver) finish(job);
}

function finish(job) {
  if (job.isTold) return;
  job.isTold = true;
  byId("news").textContent = `${job.name}: ${stateOf(job)}`;
  if (job.state === "failed") tellFailure(job);
  if (job.state === "done") keepInHistory(job);
  for (const warning of job.warnings) showNotice(`${job.name}: ${warning}`);
  if (job === shown || (job.state === "done" && !shown?.segments.length)) showResult(job);
}

function tellFailure({ name, error }) {
  showError(`${name}: ${reasonOf(error)}`);
  if (error.field) pointAt(error.field);
}

function reasonOf(error) {
  if (error instanceof Disconnected) return t("disconnected");
  // The server speaks of a header, of which only the page knows.
  if (error.code === OTHER_FILE) return t("otherFile");
  return error.message;
}

function showRow(job) {
  const id = `job-${job.id}`;
  const isListed = queue.jobs.includes(job);
  if (!isListed) {
    byId(id)?.remove();
    return;
  }
  const row = byId(id) ?? byId("jobs").appendChild(newRow(job, id));
  row.className = `job ${job.state}`;
  row.querySelector("output").textContent = stateOf(job);
  const bar = row.querySelector("progress");
  bar.hidden = !job.isRunning;
  bar.value = job.fraction;
  row.querySelector(".retry").hidden = !job.file || !["failed", "cancelled"].includes(job.state);
  row.querySelector(".show").hidden = !job.segments.length && job.state !== "done";
  const label = t(job.isRunning ? "cancel" : "remove", { name: job.name });
  row.querySelector(".drop-job").setAttribute("aria-label", label);
}

function newRow(job, id) {
  const again = () => {
    job.isTold = false;
    queue.retry(job);
  };
  return el(
    "li",
    { id, "data-testid": "job" },
    el("span", { class: "job-name", "data-testid": "job-name" }, job.name),
    el("span", { class: "hint" }, bytes(job.size)),
    el("output", { "data-testid": "job-state" }),
    el("progress", { max: 1, value: 0, "aria-label": job.name }),
    el("button", { type: "button", class: "show", onclick: () => showResult(job, true) }, t("show")),
    el("button", { type: "button", class: "retry", "data-testid": "retry", onclick: again }, t("retry")),
    el("button", { type: "button", class: "drop-job", onclick: () => queue.drop(job) }, "✕"),
  );
}

function stateOf(job) {
  if (job.state === "uploading") return t("uploading", { percent: percent(job.fraction) });
  if (job.state === "working") return progressOf(job);
  if (job.state === "waiting" && job.serverId) return t("pending");
  if (job.state === "busy") return t("busy", { seconds: job.busyFor });
  if (job.state === "loading") return t("modelLoading");
  if (job.state === "done" && job.seconds) return t("doneIn", { time: clock(job.seconds) });
  return t(job.state);
}

function progressOf({ fraction, speed, eta, serverId }) {
  const parts = [fraction ? t("working", { percent: percent(fraction) }) : t("decoding")];
  if (fraction && speed) parts.push(t("speed", { speed: decimal(speed) }));
  if (fraction && eta !== null) parts.push(t("left", { time: clock(Math.ceil(eta)) }));
  if (serverId) parts.push(t("mayClose"));
  return parts.join(" · ");
}

function showTotal() {
  const { round, fraction, unstarted } = queue;
  byId("start").disabled = !unstarted.length;
  byId("total").hidden = !round.length;
  byId("progress").value = 100 * fraction;
  byId("progress-text").textContent = round.length === 1 ? stateOf(round[0]) : percent(fraction);
}

// Messages ----------------------------------------------------------------------------------------

function showError(text) {
  byId("errors").append(el("p", { class: "error", "data-testid": "error" }, text));
}

function showNotice(text) {
  byId("errors").append(el("p", { class: "notice", "data-testid": "notice" }, text));
}

function clearErrors() {
  byId("errors").replaceChildren();
}

// The result --------------------------------------------------------------------------------------

/** Shows a job's transcript, complete or growing, and its recording. */
function showResult(job, isWanted = false) {
  edit(false);
  const isNew = job !== shown;
  shown = job;
  byId("result").hidden = false;
  byId("result-name").textContent = job.name;
  showAbout();
  view.show(job.result);
  byId("search").value = "";
  showMatches(null);
  for (const control of byId("result").querySelectorAll(".tools :is(button, input)")) {
    control.disabled = !job.document;
  }
  byId("player").hidden = byId("no-player").hidden = true;
  if (job.document) player.load(job.file, job.duration);
  else if (isNew) player.load(null);
  if (!job.document) byId("no-player").hidden = true;
  if (isWanted) byId("result-name").focus();
}

function showAbout() {
  const { document, duration } = shown;
  const language = document?.language ? languageName(document.language) : "…";
  byId("result-about").textContent =
    duration === null ? "" : t("about", { language, duration: clock(duration) });
}

function growTranscript(job, segment) {
  if (!shown?.document && !shown?.segments.length) showResult(job);
  else if (job === shown) view.add(segment);
  showRow(job);
}

function showMatches(found) {
  const query = byId("search").value.trim();
  byId("matches").textContent = !query ? "" : found?.count ? t("matches", found) : t("noMatch");
}

function edit(isEditing) {
  if (isEditing !== view.isEditing) view.isEditing = isEditing;
  byId("edit").textContent = t(isEditing ? "editDone" : "edit");
  byId("edit").setAttribute("aria-pressed", String(isEditing));
}

async function copyText() {
  await copy(shown.document.text.trim());
  tellBriefly(byId("copy"), t("copied"), t("copy"));
}

function tellBriefly(button, now, later) {
  button.textContent = now;
  byId("news").textContent = now;
  setTimeout(() => (button.textContent = later), 2000);
}

function showDownloads() {
  const chosen = byId("format").value;
  byId("downloads").replaceChildren(
    ...Object.entries(FORMATS).map(([format, ending]) =>
      el(
        "button",
        {
          type: "button",
          class: format === chosen ? "primary" : null,
          "data-testid": `download-${ending}`,
          "aria-label": `${t("download")} ${ending}`,
          onclick: () => download(format, ending),
          disabled: !shown?.document,
        },
        `↓ ${ending.toUpperCase()}`,
      ),
    ),
  );
}

/** The server writes the file, so that it is the API's to the letter, edits and all. */
async function download(format, ending) {
  clearErrors();
  try {
    const content = await writeAs(format, shown.document, writingOptions(), takeKey());
    const name = `${shown.name.replace(/\.[^.]*$/, "")}.${ending}`;
    save(name, content);
    byId("news").textContent = t("saved", { name });
  } catch (error) {
    if ([401, 403].includes(error.status)) refuseKey(error);
    else showError(error instanceof Disconnected ? t("unreachable") : error.message);
  }
}

// The history -------------------------------------------------------------------------------------

async function keepInHistory(job) {
  const { name, duration, document } = job;
  const entry = { name, duration, document, date: job.date ?? new Date() };
  job.historyId = await history_.keep(job.historyId ? { ...entry, id: job.historyId } : entry);
  showHistory();
}

async function showHistory() {
  const kept = await history_.entries();
  byId("history").hidden = kept.length === 0;
  byId("history-list").replaceChildren(...kept.map(historyRow));
}

function historyRow({ id, name, duration, document, date }) {
  const open = () => {
    const job = { name, duration, document, date, historyId: id, file: null };
    showResult({ ...job, segments: document.segments, result: document }, true);
  };
  const forget = async () => {
    await history_.forget(id);
    showHistory();
  };
  return el(
    "li",
    {},
    el("button", { type: "button", class: "link", "data-testid": "history-entry", onclick: open }, name),
    el("span", { class: "hint" }, `${date.toLocaleString(locale)} · ${clock(duration)}`),
    el("button", { type: "button", "aria-label": t("remove", { name }), onclick: forget }, "✕"),
  );
}
