// The API's page, drawn from the description that the server gives of itself at /api/openapi.json.

import { byId, el } from "./dom.js";

const SAMPLES = {
  image: "@photo.jpg",
  liked_image: "@photo.jpg",
  disliked_image: "@other.jpg",
  row: 12,
  liked: 12,
  disliked: 34,
  match: 56,
  k: 10,
  version: null,
};
const SHOWN = {
  "/api/search": ["image", "k"],
  "/api/recommend": ["liked", "disliked", "k"],
  "/api/explain": ["row", "match"],
  "/login": ["token"],
};

const HUGE = 2 ** 53; // no bound that anybody meets

let description = {};

/** What a $ref stands for. */
function solved(part) {
  if (!part?.$ref) return part ?? {};
  return part.$ref
    .slice(2)
    .split("/")
    .reduce((inside, name) => inside[name.replaceAll("~1", "/")], description);
}

function typeOf(schema) {
  const part = solved(schema);
  const several = part.anyOf || part.oneOf;
  if (several)
    return [...new Set(several.map(typeOf).filter((name) => name !== "null"))].join(" or ");
  if (part.type === "array") return `${typeOf(part.items)}, may be repeated`;
  if (part.format === "binary" || part.contentMediaType) return "file";
  if (part.enum) return part.enum.join(" or ");
  return part.const ?? part.type ?? "anything";
}

function bounds(schema) {
  const part = solved(schema);
  const inner =
    [part, ...(part.anyOf || [])].find(
      (each) => each.minimum !== undefined || each.maximum !== undefined,
    ) || {};
  const words = [];
  if (inner.minimum !== undefined) words.push(`from ${inner.minimum}`);
  if (inner.maximum < HUGE) words.push(`to ${inner.maximum}`);
  if ((part.default ?? "") !== "" && part.default.length !== 0)
    words.push(`default ${JSON.stringify(part.default)}`);
  return words.join(" ");
}

function example(schema) {
  const [one] = solved(schema).examples || [];
  return one === undefined ? "" : el("code", {}, String(one));
}

function row({ name, schema, required, description: words }) {
  const kind = [typeOf(schema), bounds(schema), required ? "needed" : ""]
    .filter(Boolean)
    .join(", ");
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name, el("small", {}, kind)),
    el(
      "td",
      {},
      words || solved(schema).description || solved(schema).title || "",
      example(schema),
    ),
  );
}

const table = (heading, rows) =>
  rows.length
    ? [
        heading ? el("h3", {}, heading) : "",
        el("table", { className: "fields" }, el("tbody", {}, ...rows)),
      ]
    : [];

function bodyOf(call) {
  const content = solved(call.requestBody).content || {};
  const kind = "multipart/form-data" in content ? "multipart/form-data" : Object.keys(content)[0];
  const schema = kind ? solved(content[kind].schema) : {};
  const fields = Object.entries(schema.properties || {}).map(([name, part]) => ({
    name,
    schema: part,
    required: (schema.required || []).includes(name),
    description: part.description,
  }));
  return { kind, fields };
}

/** A command that does it, with fields that make sense. */
function curl(method, path, call, body) {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name) => SAMPLES[name] ?? name);
  const words = [`curl ${method === "post" ? "" : "-s "}${location.origin}${filled}`];
  if (method === "post") {
    const names =
      SHOWN[path] || body.fields.filter((field) => field.required).map((field) => field.name);
    words.push(...names.map((name) => `-F ${name}=${SAMPLES[name] ?? "…"}`));
  }
  return words.join(" \\\n  ");
}

function code(text) {
  const button =
    navigator.clipboard &&
    el("button", { type: "button", className: "button", "aria-label": "Copy the command" }, "Copy");
  button?.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return el(
    "div",
    { className: "code" },
    el("pre", { tabIndex: 0, "aria-label": "Command" }, text),
    button || null,
  );
}

function section(id, method, path, call) {
  const body = bodyOf(call);
  const given = (call.parameters || [])
    .map(solved)
    .filter((part) => part.in !== "cookie" && part.in !== "header");
  const answers = Object.entries(call.responses || {}).map(([status, answer]) => ({
    name: status,
    schema: { type: Object.keys(solved(answer).content || {})[0] || "nothing" },
    description: solved(answer).description,
  }));
  return el(
    "section",
    { className: "call", id, "aria-labelledby": `${id}-name` },
    el("h2", { id: `${id}-name` }, el("span", { className: "method" }, method.toUpperCase()), path),
    el("p", {}, call.description || call.summary || ""),
    ...table("Parameters", given.map(row)),
    ...table("Fields", body.fields.map(row)),
    el("h3", {}, "Try it"),
    code(curl(method, path, call, body)),
    el("details", {}, el("summary", {}, "Answers"), ...table("", answers.map(row))),
  );
}

async function draw() {
  const answer = await fetch("/api/openapi.json");
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  description = await answer.json();
  if (description.info?.description) byId("about").textContent = description.info.description;
  for (const [path, calls] of Object.entries(description.paths))
    for (const [method, call] of Object.entries(calls)) {
      const id = `${method}${path.replaceAll(/\W+/g, "-")}`;
      byId("contents").append(el("a", { href: `#${id}` }, call.summary || path));
      byId("all").append(section(id, method, path, call));
    }
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
}

draw().catch(
  (error) =>
    (byId("about").textContent =
      `The description of the API could not be read: ${error.message} Load this page again.`),
);
