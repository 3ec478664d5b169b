// Shows a transcript: its words with their doubts, the one that is spoken, searching and editing.

import { el } from "./dom.js";
import { clock, t } from "./i18n.js";
import { textOf } from "./jobs.js";

// Probabilities below which a word is shaded: a little, rather, very.
const DOUBTS = [0.85, 0.65, 0.4];

// What makes a segment suspect, by the figures of its window; the thresholds are Whisper's own.
const FLAGS = [
  ["flagLogprob", ({ avg_logprob }) => avg_logprob < -1],
  ["flagRepeats", ({ compression_ratio }) => compression_ratio > 2.4],
  ["flagSilence", ({ no_speech_prob }) => no_speech_prob > 0.6],
  ["flagWarm", ({ temperature }) => temperature > 0.5],
];

export class TranscriptView {
  #list;
  #onSeek;
  #onEdit;
  #document = null;
  #rows = [];
  // In order of time: `{start, end, element}`.
  #timed = [];
  #starts = new WeakMap();
  #spoken = null;
  #matches = [];
  #match = -1;
  #isEditing = false;

  /** `onSeek(seconds)` when a word or time is chosen, `onEdit()` when the text was changed. */
  constructor(list, { onSeek, onEdit }) {
    this.#list = list;
    this.#onSeek = onSeek;
    this.#onEdit = onEdit;
    list.addEventListener("click", ({ target }) => {
      const start = this.#starts.get(target.closest(".word, .time"));
      if (start !== undefined) this.#onSeek(start);
    });
  }

  /** Shows a whole document, or one that still grows; edits are made in it. */
  show(document_) {
    this.#document = document_;
    this.#isEditing = false;
    this.#render();
  }

  /** Shows one more segment of a document that grows. */
  add(segment) {
    const row = this.#row(segment);
    this.#rows.push(row);
    this.#list.append(row.element);
  }

  #render() {
    this.#rows = [];
    this.#timed = [];
    this.#spoken = null;
    this.#rows = this.#document.segments.map((segment) => this.#row(segment));
    this.#list.replaceChildren(...this.#rows.map(({ element }) => element));
    this.#list.lang = this.#document.language ?? "";
    this.find("");
  }

  #row(segment) {
    const time = clock(segment.start);
    const button = el(
      "button",
      { type: "button", class: "time", "aria-label": t("seek", { time }) },
      time,
    );
    this.#starts.set(button, segment.start);
    const text = el("p", { class: "text", dir: "auto" }, ...this.#textOf(segment));
    const flags = FLAGS.filter(([, applies]) => applies(segment)).map(([name]) => t(name));
    const element = el(
      "li",
      { class: flags.length ? "segment flagged" : "segment", "data-testid": "segment" },
      button,
      text,
    );
    if (flags.length) element.append(el("small", { class: "flag" }, `⚠ ${flags.join(" · ")}`));
    return { segment, element, text };
  }

  /** Nodes: a span for each word where words are timed, else one for the segment. */
  #textOf(segment) {
    const words = segment.words?.length
      ? segment.words
      : [{ ...segment, word: segment.text, probability: Math.exp(segment.avg_logprob) }];
    const isTimed = Boolean(segment.words?.length);
    return words.flatMap(({ word, start, end, probability }, index) => {
      const text = word.trimStart();
      const doubt = DOUBTS.filter((limit) => probability < limit).length;
      const element = el(
        "span",
        { class: `word doubt${doubt}`, "data-testid": isTimed ? "word" : null },
        text,
      );
      this.#starts.set(element, start);
      this.#timed.push({ start, end, element });
      return index && text !== word ? [" ", element] : [element];
    });
  }

  // While it plays -------------------------------------------------------------------------------

  /** Marks the word spoken at this time, and brings it into view when it is a new one. */
  mark(seconds, { follow }) {
    const spoken = this.#at(seconds);
    if (spoken === this.#spoken) return;
    this.#spoken?.element.classList.remove("spoken");
    this.#spoken = spoken;
    spoken?.element.classList.add("spoken");
    if (spoken && follow && !this.#isEditing) bringIntoView(spoken.element);
  }

  /** The last one that has begun, by halving; none in a pause after it. */
  #at(seconds) {
    let [low, high] = [0, this.#timed.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#timed[middle].start <= seconds) low = middle + 1;
      else high = middle;
    }
    const found = this.#timed[low - 1];
    return found && seconds < found.end + 0.3 ? found : null;
  }

  // Searching ------------------------------------------------------------------------------------

  /** Marks all occurrences and shows the first; tells `{index, count}`, counted from 1. */
  find(query) {
    const pattern = query.trim() && new RegExp(query.trim().replace(/[^\p{L}\p{N}\s]/gu, "\\$&"), "giu");
    this.#matches = pattern ? this.#rows.flatMap(({ text }) => rangesOf(text, pattern)) : [];
    this.#match = -1;
    mark("found", this.#matches);
    return this.findNext(1);
  }

  findNext(step) {
    const count = this.#matches.length;
    if (!count) {
      mark("found-now", []);
      return { index: 0, count };
    }
    this.#match = (this.#match + step + count) % count;
    mark("found-now", [this.#matches[this.#match]]);
    bringIntoView(this.#matches[this.#match].startContainer.parentElement);
    return { index: this.#match + 1, count };
  }

  // Editing --------------------------------------------------------------------------------------

  get isEditing() {
    return this.#isEditing;
  }

  set isEditing(isEditing) {
    this.#isEditing = isEditing;
    if (!isEditing) {
      this.#render();
      return;
    }
    for (const { segment, text } of this.#rows) {
      const label = t("segmentText", { time: clock(segment.start) });
      const area = el("textarea", { "aria-label": label, rows: 1, dir: "auto" });
      area.value = segment.text.trim();
      area.addEventListener("change", () => this.#change(segment, area.value.trim()));
      text.replaceChildren(area);
    }
  }

  #change(segment, text) {
    if (text === segment.text.trim()) return;
    rewrite(segment, text);
    this.#document.text = textOf(this.#document.segments);
    this.#onEdit();
  }
}

/**
 * Puts another text into a segment. As many words as before keep their times; otherwise they share
 * the segment's by their lengths, since subtitles are made of words.
 */
export function rewrite(segment, text) {
  segment.text = text && ` ${text}`;
  if (!segment.words) return;
  const before = segment.words;
  const words = text.split(/\s+/).filter(Boolean).map((word) => ` ${word}`);
  if (words.length === before.length) {
    segment.words = before.map((old, index) =>
      old.word === words[index] ? old : { ...old, word: words[index], probability: 1 },
    );
    return;
  }
  const perCharacter = (segment.end - segment.start) / words.join("").length;
  let end = segment.start;
  segment.words = words.map((word) => {
    const start = end;
    end = start + perCharacter * word.length;
    return { word, start: round(start), end: round(end), probability: 1 };
  });
}

const round = (seconds) => Math.round(100 * seconds) / 100;

function bringIntoView(element) {
  const { top, bottom } = element.getBoundingClientRect();
  if (top < 80 || bottom > innerHeight - 40) {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    element.scrollIntoView({ block: "center", behavior: isCalm ? "instant" : "smooth" });
  }
}

/** Ranges of a pattern in an element's text, across its nodes. */
function rangesOf(element, pattern) {
  const nodes = [];
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let length = 0; walker.nextNode(); length += walker.currentNode.length) {
    nodes.push({ node: walker.currentNode, start: length });
  }
  return [...element.textContent.matchAll(pattern)].map((match) => {
    const range = new Range();
    const place = (position) => {
      const { node, start } = nodes.findLast(({ start }) => start <= position);
      return [node, position - start];
    };
    range.setStart(...place(match.index));
    range.setEnd(...place(match.index + match[0].length));
    return range;
  });
}

/** Paints ranges, in browsers that can without touching the text. */
function mark(name, ranges) {
  CSS.highlights?.set(name, new Highlight(...ranges));
}
