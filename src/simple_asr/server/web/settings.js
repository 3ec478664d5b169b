// What to recognise and how: the fields of the form, as parameters of POST /transcribe.

import { openapi } from "./api.js";
import { byId, el } from "./dom.js";
import { languageName, locale, t } from "./i18n.js";

// Whisper's own list; a test compares it with the server's.
const LANGUAGES =
  "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur " +
  "hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si " +
  "km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha " +
  "ba jw su yue";

// Fields of their own on this page, and those that have no effect.
const SHOWN_ELSEWHERE = new Set(["format", "language", "task", "word_timestamps", "fp16", "verbose"]);

/** The formats to download, each with the ending of its file. */
export const FORMATS = { text: "txt", srt: "srt", vtt: "vtt", tsv: "tsv", json: "json" };

const FORMAT_WORDS = {
  text: "formatText",
  srt: "formatSrt",
  vtt: "formatVtt",
  tsv: "formatTsv",
  json: "formatJson",
};

// Names of the parameters that say how a finished transcript is written.
let writing = new Set();
let descriptions = {};

/** Fills the lists of languages and formats, and has "more" filled when it is first opened. */
export function showSettings() {
  const languages = LANGUAGES.split(" ").map((code) => ({ code, name: languageName(code) }));
  languages.sort((a, b) => a.name.localeCompare(b.name, locale));
  byId("language").append(
    el("option", { value: "" }, t("languageAuto")),
    ...languages.map(({ code, name }) => el("option", { value: code }, name)),
  );
  byId("format").append(
    ...Object.keys(FORMATS).map((name) => el("option", { value: name }, t(FORMAT_WORDS[name]))),
  );
  byId("more").addEventListener("toggle", showParameters, { once: true });
}

/** What was chosen for recognition, by name; defaults are left out. */
export function chosenParameters() {
  const chosen = { format: "json", task: byId("task").value, ...given((name) => !writing.has(name)) };
  if (byId("language").value) chosen.language = byId("language").value;
  if (byId("words").checked) chosen.word_timestamps = "true";
  return chosen;
}

/** What was chosen for writing a finished transcript, its format aside. */
export function writingOptions() {
  return given((name) => writing.has(name));
}

function given(isWanted) {
  const fields = [...byId("parameters").querySelectorAll("[name]")];
  const filled = fields.filter(({ name, value }) => isWanted(name) && value.trim());
  return Object.fromEntries(filled.map(({ name, value }) => [name, value.trim()]));
}

/** Opens "more" at a parameter that the server refused, if it is there. */
export function pointAt(name) {
  const field = byId("parameters").querySelector(`[name="${CSS.escape(name)}"]`);
  if (!field) return;
  byId("more").open = true;
  field.setAttribute("aria-invalid", "true");
  field.addEventListener("input", () => field.removeAttribute("aria-invalid"), { once: true });
  field.focus();
}

async function showParameters() {
  const { paths } = await openapi();
  const { parameters } = paths["/transcribe"].post;
  writing = new Set(paths["/format"].post.parameters.map(({ name }) => name));
  if (locale === "ru") descriptions = (await import("./parameters.ru.js")).DESCRIPTIONS;
  byId("parameters").replaceChildren(
    ...parameters.filter(({ name }) => !SHOWN_ELSEWHERE.has(name)).map(parameterField),
  );
}

function parameterField({ name, description, schema }) {
  const id = `parameter-${name}`;
  const types = schema.anyOf ?? [schema];
  const values = types.flatMap((type) => choicesOf(type));
  const given = { id, name, "aria-describedby": `${id}-hint` };
  const initial = schema.default ?? "";
  const hint = descriptions[name] ?? (description ?? "").replaceAll("`", "");
  const field = values.length
    ? el(
        "select",
        given,
        el("option", { value: "" }, `${t("byDefault")}${initial === "" ? "" : `: ${word(initial)}`}`),
        ...values.map((value) => el("option", { value: String(value) }, word(value))),
      )
    : el("input", { ...given, placeholder: String(initial), autocomplete: "off" });
  return el(
    "div",
    { class: "parameter" },
    el("label", { for: id }, name),
    field,
    el("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}

function choicesOf(type) {
  if (type.type === "boolean") return [true, false];
  return type.enum ?? (type.const === undefined ? [] : [type.const]);
}

function word(value) {
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  return String(value);
}
