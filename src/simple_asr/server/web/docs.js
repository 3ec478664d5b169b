// The page at `/docs`: openapi.json, laid out for people.

import { byId, el } from "./dom.js";

const METHODS = ["get", "post", "put", "delete"];

const answer = await fetch("openapi.json");
const api = await answer.json();

byId("version").textContent = `${api.info.title} ${api.info.version}`;
byId("operations").append(...operations().map(card));
openNamed();
addEventListener("hashchange", openNamed);

function operations() {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => method in methods).map((method) => ({
      path,
      method: method.toUpperCase(),
      ...methods[method],
    })),
  );
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
}

function card(operation) {
  const { path, method, summary, description, parameters, requestBody, responses } = operation;
  const parts = [
    ...prose(description),
    operation.security ? el("p", {}, "Needs a key, in X-API-Key or as Authorization: Bearer.") : "",
    el("h3", {}, "Example"),
    el("pre", { tabindex: 0 }, curl(operation)),
  ];
  if (requestBody) parts.push(el("h3", {}, "Body"), ...bodies(requestBody));
  if (parameters?.length) parts.push(el("h3", {}, "Parameters"), parameterTable(parameters));
  parts.push(el("h3", {}, "Answers"), ...Object.entries(responses).map(answerOf));
  return el(
    "details",
    { class: "card operation", id: `${method} ${path}`, "data-testid": "operation" },
    el(
      "summary",
      {},
      el("span", { class: "method" }, method),
      " ",
      el("span", { class: "path" }, path),
      ` ${summary ?? ""}`,
    ),
    ...parts,
  );
}

/** Paragraphs, in which `code` is set as such. */
function prose(text) {
  return (text ?? "")
    .split(/\n\s*\n/)
    .filter((paragraph) => paragraph.trim())
    .map((paragraph) => el("p", {}, ...inline(paragraph)));
}

function inline(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

function curl({ method, path, security, requestBody }) {
  const parts = ["curl"];
  if (method !== "GET") parts.push(`-X ${method}`);
  if (security) parts.push('-H "X-API-Key: $KEY"');
  const types = Object.keys(requestBody?.content ?? {});
  if (types.includes("multipart/form-data")) {
    const { properties } = resolved(requestBody.content["multipart/form-data"].schema);
    const file = Object.keys(properties).find((name) => properties[name].format === "binary");
    parts.push(`-F ${file}=@clip.wav`);
  } else if (types.includes("application/json")) {
    parts.push('-H "Content-Type: application/json" -d @request.json');
  }
  const base = new URL(path.slice(1), location.href);
  return `${parts.join(" ")} ${decodeURI(base.href)}`;
}

function bodies({ content }) {
  const types = Object.keys(content).flatMap((type) => [", ", el("code", {}, type)]);
  const json = resolved(content["application/json"]?.schema ?? {});
  return [
    el("p", {}, ...types.slice(1)),
    ...(json.properties ? [propertyTable(json.properties)] : []),
  ];
}

function parameterTable(parameters) {
  const rows = parameters.map(({ name, description, schema, in: place, required }) => [
    [el("code", {}, name)],
    [`${typeOf(schema)}${required ? ", required" : ""}${place === "path" ? ", in the path" : ""}`],
    schema?.default === undefined ? ["absent"] : [el("code", {}, JSON.stringify(schema.default))],
    inline(description ?? ""),
  ]);
  return table(["Name", "Type", "Default", "Meaning"], rows);
}

function propertyTable(properties) {
  const rows = Object.entries(properties).map(([name, schema]) => [
    [el("code", {}, name)],
    [typeOf(schema)],
    inline(resolved(schema).description ?? ""),
  ]);
  return table(["Name", "Type", "Meaning"], rows);
}

function table(heads, rows) {
  return el(
    "div",
    { class: "scroll", tabindex: 0 },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
      el(
        "tbody",
        {},
        ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...cell)))),
      ),
    ),
  );
}

function answerOf([status, { description, content }]) {
  const parts = [el("p", {}, el("strong", {}, status), ` ${description}`)];
  for (const [type, { schema, example, examples }] of Object.entries(content ?? {})) {
    const shown = example ?? Object.values(examples ?? {})[0]?.value;
    if (shown !== undefined) {
      const text = typeof shown === "string" ? shown : JSON.stringify(shown, null, 2);
      parts.push(el("pre", { tabindex: 0 }, text));
    } else if (schema && !type.includes("problem")) {
      parts.push(el("p", { class: "hint" }, `${type}: ${typeOf(schema)}`));
    }
  }
  return el("div", {}, ...parts);
}

function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.format === "binary" ? "file" : (schema.type ?? "any");
}

function resolved(schema) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}
