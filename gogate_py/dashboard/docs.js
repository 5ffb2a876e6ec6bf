// The page of the OpenAPI documents: operations by tag, with what they take and answer.
// Parts of a document come from backends: all of it is set as text, never as markup.

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const DEEPEST = 6;
const view = document.getElementById("document");
const filter = document.getElementById("filter");

function make(name, text = "", properties = {}, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function resolved(root, thing) {
  let hops = 0;
  while (thing && typeof thing === "object" && typeof thing.$ref === "string" && hops++ < 20) {
    if (!thing.$ref.startsWith("#/")) return {};
    const words = thing.$ref.slice(2).split("/").map((word) => decodeURIComponent(word).replace(/~1/g, "/").replace(/~0/g, "~"));
    thing = words.reduce((at, word) => (at && Object.hasOwn(at, word) ? at[word] : undefined), root);
  }
  return thing && typeof thing === "object" ? thing : {};
}

// A schema in the notation of TypeScript, more or less; a schema inside of itself is named only.
function shape(root, schema, indent = "", open = []) {
  if (schema === true || schema === undefined) return "anything";
  if (schema === false) return "nothing";
  const name = typeof schema.$ref === "string" ? schema.$ref.split("/").pop() : "";
  if (name && (open.includes(name) || open.length > DEEPEST)) return name;
  const inner = name ? [...open, name] : open;
  const one = resolved(root, schema);
  if (indent.length > 2 * DEEPEST) return "…";
  for (const [key, between] of [["oneOf", " | "], ["anyOf", " | "], ["allOf", " & "]])
    if (Array.isArray(one[key])) return one[key].map((part) => shape(root, part, indent, inner)).join(between);
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (Array.isArray(one.enum)) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [one.type ?? (one.properties ? "object" : "anything")].flat();
  return types.map((type) => typed(root, one, type, indent, inner)).join(" | ");
}

function typed(root, one, type, indent, open) {
  if (type === "array") return `[${shape(root, one.items, indent, open)}]`;
  if (type !== "object") {
    const bounds = [one.minimum, one.maximum].some((bound) => bound !== undefined)
      ? ` ${one.minimum ?? ""}..${one.maximum ?? ""}` : "";
    return type + bounds + (one.format ? ` (${one.format})` : "");
  }
  const required = one.required ?? [];
  const deeper = `${indent}  `;
  const lines = Object.entries(one.properties ?? {}).map(
    ([key, value]) => `${deeper}${key}${required.includes(key) ? "" : "?"}: ${shape(root, value, deeper, open)}`);
  if (one.additionalProperties && typeof one.additionalProperties === "object")
    lines.push(`${deeper}[any name]: ${shape(root, one.additionalProperties, deeper, open)}`);
  return lines.length ? `{\n${lines.join("\n")}\n${indent}}` : "{…}";
}

function contents(root, content) {
  return Object.entries(content ?? {}).flatMap(([kind, media]) => {
    const text = media.schema === undefined ? "" : shape(root, media.schema);
    return [make("div", kind, { class: "quiet" }), ...(text && text !== "string" ? [make("pre", text)] : [])];
  });
}

function table(...rows) {
  return make("table", "", {}, make("tbody", "", {}, ...rows));
}

function row(head, ...cells) {
  return make("tr", "", {}, make("th", head, { scope: "row" }), ...cells.map((cell) =>
    typeof cell === "string" ? make("td", cell) : make("td", "", {}, ...cell)));
}

function security(root, one) {
  const needs = one.security ?? root.security;
  if (!needs?.length) return [];
  const text = needs.map((each) => Object.keys(each).join(" and ") || "nothing").join(", or ");
  return [make("div", "", {}, make("h3", "Authentication"), make("div", text))];
}

function operation(root, path, method, item, one) {
  const parts = [];
  if (one.description) parts.push(make("div", one.description));
  parts.push(...security(root, one));
  const servers = (one.servers ?? item.servers ?? []).map((server) => server.url).join(", ");
  if (servers) parts.push(make("div", "", {}, make("h3", "Servers"), make("code", servers)));
  const parameters = [...(item.parameters ?? []), ...(one.parameters ?? [])].map((each) => resolved(root, each));
  if (parameters.length)
    parts.push(make("div", "", {}, make("h3", "Parameters"), table(...parameters.map((each) => row(
      each.name ?? "", `${each.in}${each.required ? ", required" : ""}`, shape(root, each.schema), each.description ?? "")))));
  if (one.requestBody) {
    const body = resolved(root, one.requestBody);
    parts.push(make("div", "", {}, make("h3", body.required ? "Body" : "Body, optional"), ...contents(root, body.content)));
  }
  const answers = Object.entries(one.responses ?? {});
  parts.push(make("div", "", {}, make("h3", "Answers"), table(...answers.map(([status, each]) => {
    const answer = resolved(root, each);
    const fields = Object.keys(answer.headers ?? {});
    return row(status, [make("div", answer.description ?? ""),
      ...(fields.length ? [make("div", `Fields: ${fields.join(", ")}`, { class: "quiet" })] : []),
      ...(status[0] === "2" || status === "default" ? contents(root, answer.content) : [])]);
  }))));
  for (const [key, value] of Object.entries(one))
    if (key === "x-gogate")
      parts.push(make("div", "", {}, make("h3", "Gateway"), make("pre", JSON.stringify(value, null, 1))));
  const details = make("details", "", { id: one.operationId ?? "" },
    make("summary", "", {}, make("span", method.toUpperCase(), { class: `method ${method}` }),
      make("code", path, one.deprecated ? { class: "gone" } : {}), make("span", one.summary ?? "", { class: "quiet" })));
  // What is inside is made when it is looked at: a document may have thousands of operations.
  details.addEventListener("toggle", () => {
    if (details.children.length === 1) details.append(make("div", "", { class: "operation" }, ...parts));
  });
  details.dataset.words = `${method} ${path} ${one.summary ?? ""} ${one.operationId ?? ""}`.toLowerCase();
  return details;
}

function render(root) {
  document.getElementById("title").textContent = `${root.info.title} ${root.info.version}`;
  const groups = new Map((root.tags ?? []).map((tag) => [tag.name, []]));
  for (const [path, item] of Object.entries(root.paths ?? {}))
    for (const method of METHODS)
      if (item[method]) {
        const tag = item[method].tags?.[0] ?? "other";
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push(operation(root, path, method, item, item[method]));
      }
  const sections = [...groups].filter(([, all]) => all.length).map(
    ([tag, all]) => make("section", "", { "aria-label": tag }, make("h2", tag), ...all));
  view.replaceChildren(make("p", root.info.description ?? ""),
    ...(sections.length ? sections : [make("p", "There is no operation.", { class: "quiet" })]));
  narrow();
}

function narrow() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const one of view.querySelectorAll("details"))
    one.hidden = !words.every((word) => one.dataset.words.includes(word));
  for (const one of view.querySelectorAll("section")) one.hidden = !one.querySelector("details:not([hidden])");
}

async function show() {
  const links = [...document.querySelectorAll("nav a")];
  const link = links.find((one) => one.hash === location.hash) ?? links[0];
  for (const one of links) one.toggleAttribute("aria-current", false);
  link.setAttribute("aria-current", "page");
  document.getElementById("source").href = link.dataset.source;
  try {
    const answer = await fetch(link.dataset.source);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    render(body);
  } catch (error) {
    view.replaceChildren(make("p", `${link.dataset.source} cannot be shown: ${error.message}`, { class: "bad" }));
  }
}

filter.addEventListener("input", narrow);
addEventListener("hashchange", show);
show();
