// The page's words, in each language it speaks. To add a language, add a table to WORDS.

const EN = {
  title: "Speech to text",
  newFiles: "New files",
  key: "API key",
  keyHint: "Kept until you close this tab, and sent to this server only.",
  keyKept: "The API key is kept until you close this tab.",
  keyChange: "Change",
  drop: "Drop audio or video here, or click to choose",
  dropHint: "Several files at once, any common format. You can also paste.",
  record: "Record",
  recordStop: "Stop",
  level: "Microphone level",
  recording: "Recording",
  noMicrophone: "The microphone cannot be used: {reason}",
  insecure: "browsers allow it only on HTTPS and on localhost.",
  language: "Language spoken",
  languageAuto: "Detect",
  task: "Task",
  taskTranscribe: "Transcribe",
  taskTranslate: "Translate into English",
  format: "Result",
  formatText: "Text",
  formatSrt: "Subtitles (SRT)",
  formatVtt: "Subtitles (WebVTT)",
  formatTsv: "Table (TSV)",
  formatJson: "Everything (JSON)",
  words: "Time every word",
  more: "More settings",
  moreHint: "Leave a field empty for the server's default.",
  files: "Files",
  start: "Transcribe",
  remove: "Remove {name}",
  cancel: "Cancel {name}",
  retry: "Try again",
  show: "Show",
  progress: "Progress of all files",
  waiting: "Waiting",
  uploading: "Sending {percent}",
  working: "{percent}",
  decoding: "Listening…",
  speed: "{speed}× real time",
  left: "{time} left",
  mayClose: "you may close this page",
  pending: "The server has this file; start to see how far it is",
  away: "The server cannot be reached; it will go on with this file",
  done: "Done",
  doneIn: "Done in {time}",
  failed: "Failed",
  cancelled: "Cancelled",
  busy: "The server is busy; trying again in {seconds} s",
  modelLoading: "The model is being loaded…",
  modelFailed: "The model could not be loaded",
  modelServed: "Model: {name}",
  modelInstead: "Model: {name}, since {wanted} cannot be had",
  unreachable: "The server cannot be reached",
  disconnected:
    "The connection to the server broke before the transcript was complete. What had come by then is kept below.",
  otherFile:
    "The server has a job of an earlier sending, with another content. Try again, and this file becomes a job of its own.",
  tooLarge: "{name} has {size}; this server takes at most {limit}.",
  needKey: "Enter the API key first. Whoever runs this server has one for you.",
  about: "{language} · {duration}",
  player: "Player",
  play: "Play",
  pause: "Pause",
  position: "Position",
  rate: "Playback speed",
  noPlayer: "This browser cannot play this file; the transcript is complete all the same.",
  noRecording: "The recording itself is not kept in the history.",
  search: "Search the text",
  matches: "{index} of {count}",
  noMatch: "Not found",
  edit: "Edit",
  editDone: "Done editing",
  segmentText: "Text at {time}",
  copy: "Copy",
  copied: "Copied",
  download: "Download",
  transcript: "Transcript",
  seek: "Play from {time}",
  legend: "Shade: how unsure the model was.",
  legend1: "a little",
  legend2: "rather",
  legend3: "very",
  flagLogprob: "The model was unsure here",
  flagRepeats: "The text repeats itself",
  flagSilence: "There may be no speech here",
  flagWarm: "Guessed at a high temperature",
  history: "History",
  historyHint: "Kept in this browser only.",
  historyClear: "Clear the history",
  version: "Simple ASR {version}",
  otherLanguage: "Русский",
  byDefault: "default",
  yes: "yes",
  no: "no",
  saved: "Saved {name}",
  docsTitle: "HTTP API",
};

const RU = {
  title: "Речь в текст",
  newFiles: "Новые файлы",
  key: "API-ключ",
  keyHint: "Хранится, пока открыта вкладка, и отправляется только этому серверу.",
  keyKept: "API-ключ хранится, пока открыта вкладка.",
  keyChange: "Сменить",
  drop: "Перетащите сюда аудио или видео либо нажмите, чтобы выбрать",
  dropHint: "Можно сразу несколько файлов любого распространённого формата. Можно и вставить.",
  record: "Записать",
  recordStop: "Стоп",
  level: "Уровень микрофона",
  recording: "Запись",
  noMicrophone: "Микрофон недоступен: {reason}",
  insecure: "браузеры разрешают его только по HTTPS и на localhost.",
  language: "Язык речи",
  languageAuto: "Определить",
  task: "Задача",
  taskTranscribe: "Расшифровать",
  taskTranslate: "Перевести на английский",
  format: "Результат",
  formatText: "Текст",
  formatSrt: "Субтитры (SRT)",
  formatVtt: "Субтитры (WebVTT)",
  formatTsv: "Таблица (TSV)",
  formatJson: "Всё (JSON)",
  words: "Время каждого слова",
  more: "Другие настройки",
  moreHint: "Пустое поле — значение сервера по умолчанию.",
  files: "Файлы",
  start: "Расшифровать",
  remove: "Убрать {name}",
  cancel: "Отменить {name}",
  retry: "Ещё раз",
  show: "Показать",
  progress: "Готовность всех файлов",
  waiting: "Ожидает",
  uploading: "Отправка {percent}",
  working: "{percent}",
  decoding: "Слушаю…",
  speed: "{speed}× реального времени",
  left: "осталось {time}",
  mayClose: "страницу можно закрыть",
  pending: "Файл уже на сервере; начните, чтобы увидеть, что готово",
  away: "Сервер недоступен; он продолжит работу над файлом",
  done: "Готово",
  doneIn: "Готово за {time}",
  failed: "Ошибка",
  cancelled: "Отменено",
  busy: "Сервер занят; повтор через {seconds} с",
  modelLoading: "Модель загружается…",
  modelFailed: "Модель не удалось загрузить",
  modelServed: "Модель: {name}",
  modelInstead: "Модель: {name}, так как {wanted} недоступна",
  unreachable: "Сервер недоступен",
  disconnected:
    "Связь с сервером оборвалась до конца расшифровки. То, что успело прийти, сохранено ниже.",
  otherFile:
    "У сервера уже есть задание от прошлой отправки, с другим содержимым. Нажмите «Ещё раз»: этот файл станет новым заданием.",
  tooLarge: "{name}: {size}; этот сервер принимает не больше {limit}.",
  needKey: "Сначала введите API-ключ. Он есть у того, кто держит этот сервер.",
  about: "{language} · {duration}",
  player: "Проигрыватель",
  play: "Слушать",
  pause: "Пауза",
  position: "Положение",
  rate: "Скорость воспроизведения",
  noPlayer: "Браузер не может проиграть этот файл; расшифровка всё равно полная.",
  noRecording: "Сама запись в истории не хранится.",
  search: "Поиск по тексту",
  matches: "{index} из {count}",
  noMatch: "Не найдено",
  edit: "Править",
  editDone: "Закончить правку",
  segmentText: "Текст на {time}",
  copy: "Копировать",
  copied: "Скопировано",
  download: "Скачать",
  transcript: "Расшифровка",
  seek: "Слушать с {time}",
  legend: "Оттенок — насколько модель не уверена:",
  legend1: "немного",
  legend2: "заметно",
  legend3: "сильно",
  flagLogprob: "Модель здесь не уверена",
  flagRepeats: "Текст повторяется",
  flagSilence: "Возможно, здесь нет речи",
  flagWarm: "Угадано при высокой температуре",
  history: "История",
  historyHint: "Хранится только в этом браузере.",
  historyClear: "Очистить историю",
  version: "Simple ASR {version}",
  otherLanguage: "English",
  byDefault: "по умолчанию",
  yes: "да",
  no: "нет",
  saved: "Сохранено: {name}",
  docsTitle: "HTTP API",
};

const WORDS = { en: EN, ru: RU };
const CHOICE = "simple-asr-language";

/** `en` or `ru`: what was chosen here before, else what the browser prefers. */
export const locale = chosen() ?? preferred();

function chosen() {
  const choice = localStorage.getItem(CHOICE);
  return choice in WORDS ? choice : null;
}

function preferred() {
  const codes = navigator.languages.map((tag) => tag.split("-")[0]);
  return codes.find((code) => code in WORDS) ?? "en";
}

/** Loads the page again in the other language. */
export function switchLanguage() {
  localStorage.setItem(CHOICE, locale === "en" ? "ru" : "en");
  location.reload();
}

/** The words for `name`, with `{values}` put in. */
export function t(name, values = {}) {
  return WORDS[locale][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** Fills in all that the page's HTML names. */
export function translatePage(title) {
  document.documentElement.lang = locale;
  document.title = `${t(title)} · Simple ASR`;
  const attributes = { label: "aria-label", placeholder: "placeholder" };
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const [name, attribute] of Object.entries(attributes)) {
    for (const element of document.querySelectorAll(`[data-${name}]`)) {
      element.setAttribute(attribute, t(element.dataset[name]));
    }
  }
}

// Numbers, as they are written here ---------------------------------------------------------------

export const percent = (fraction) =>
  new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 }).format(fraction);

export const decimal = (number) =>
  new Intl.NumberFormat(locale, { maximumFractionDigits: number < 10 ? 1 : 0 }).format(number);

export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const power = Math.min(3, Math.floor(Math.log10(Math.max(count, 1)) / 3));
  const style = { style: "unit", unit: units[power], unitDisplay: "short" };
  return new Intl.NumberFormat(locale, { ...style, maximumFractionDigits: power > 1 ? 1 : 0 })
    .format(count / 1000 ** power);
}

/** Seconds as `m:ss` or `h:mm:ss`. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** A language's own name here, of Whisper's code. */
export function languageName(code) {
  try {
    return new Intl.DisplayNames(locale, { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}
