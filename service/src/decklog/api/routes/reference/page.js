"use strict";
// Renders /schema/openapi.json. Everything is put in as text, never as markup, and the credential never leaves memory.

const ANSWER_CHARS_MAX = 20000;

// The name of one member of an object in a query string: metadata[reason] where the object is deep.
function leaf(parameter, name, value = "") {
  return [parameter.style === "deepObject" ? `${parameter.name}[${name}]` : name, value];
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Paragraphs, with `code` between backticks.
function prose(text) {
  return text.trim().split(/\n\s*\n/).map((paragraph) =>
    make("p", {}, ...paragraph.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part))));
}

function pretty(value) {
  return make("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

function brief(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${brief(schema.items)}`;
  const bounds = ["minimum", "maximum"].filter((name) => name in schema).map((name) => `${name} ${schema[name]}`);
  const preset = "default" in schema ? [`default ${schema.default}`] : [];
  return [schema.format || schema.type || "any", ...bounds, ...preset].join(", ");
}

function exampleOf(content) {
  if ("example" in content) return content.example;
  const first = Object.values(content.examples || {})[0];
  return first && first.value;
}

function bodies(content) {
  return Object.entries(content).flatMap(([type, described]) => {
    const examples = described.examples
      ? Object.entries(described.examples).map(([name, example]) => [name, example.value])
      : "example" in described ? [["", described.example]] : [];
    return [
      make("h3", {}, make("code", {}, type), " ", described.schema ? brief(described.schema) : ""),
      ...examples.slice(0, 3).flatMap(([, value]) => [pretty(value)]),
    ];
  });
}

function answers(responses) {
  const rows = Object.entries(responses).map(([status, response]) =>
    make("tr", {},
      make("td", { className: status < "400" ? "" : "bad" }, status),
      make("td", {}, ...prose(response.description))));
  const good = Object.entries(responses).filter(([status]) => status < "300").slice(0, 1);
  return [make("h3", {}, "Answers"), make("table", {}, ...rows), ...good.flatMap(([, response]) => bodies(response.content || {}))];
}

function address(path, parameters, inputs) {
  const query = new URLSearchParams();
  const headers = {};
  let filled = path;
  for (const parameter of parameters) {
    const value = inputs.get(parameter).value.trim();
    if (!value) continue;
    if (parameter.in === "path") filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "header") headers[parameter.name] = value;
    else if (parameter.schema.type === "object") value.split("&").forEach((pair) => query.append(...leaf(parameter, ...pair.split(/=(.*)/s, 2))));
    else if (parameter.explode && parameter.schema.type === "array") value.split(",").forEach((item) => query.append(parameter.name, item.trim()));
    else query.append(parameter.name, value);
  }
  const text = query.toString();
  return [text ? `${filled}?${text}` : filled, headers];
}

async function shown(response, result, stop) {
  const head = [`${response.status} ${response.statusText}`, ...[...response.headers].map(([name, value]) => `${name}: ${value}`)].join("\n");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    if (text.length > ANSWER_CHARS_MAX) {
      text = `${text.slice(0, ANSWER_CHARS_MAX)}\n… (cut here)`;
      stop.abort();
      break;
    }
    result.textContent = `${head}\n\n${text}`;
  }
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not JSON, or cut: shown as it is.
  }
  result.textContent = `${head}\n\n${text}`;
}

function tryOut(path, method, operation, inputs) {
  const content = Object.entries((operation.requestBody || { content: {} }).content)[0];
  const body = content && make("textarea", { spellcheck: false, value: JSON.stringify(exampleOf(content[1]), null, 2) });
  const result = make("pre", { hidden: true });
  const button = make("button", { type: "button" }, "Send");
  let stop = null;
  button.addEventListener("click", async () => {
    if (stop) return stop.abort();
    stop = new AbortController();
    button.textContent = "Stop";
    result.hidden = false;
    result.textContent = "…";
    const [url, headers] = address(path, operation.parameters || [], inputs);
    const token = document.getElementById("token").value.trim();
    if (token && operation.security.length) headers.Authorization = `Bearer ${token}`;
    if (path.endsWith("/stream")) headers.Accept = "text/event-stream";
    if (body) headers["Content-Type"] = content[0];
    try {
      const options = { method: method.toUpperCase(), headers, signal: stop.signal, credentials: "omit", cache: "no-store" };
      await shown(await fetch(url, body ? { ...options, body: body.value } : options), result, stop);
    } catch (error) {
      if (error.name !== "AbortError") result.textContent = String(error);
    }
    stop = null;
    button.textContent = "Send";
    return undefined;
  });
  return [make("h3", {}, "Try it"), ...(body ? [body] : []), button, result];
}

function operationOf(path, method, operation) {
  const inputs = new Map();
  const rows = (operation.parameters || []).map((parameter) => {
    const input = make("input", { placeholder: brief(parameter.schema), spellcheck: false });
    input.setAttribute("aria-label", parameter.name);
    inputs.set(parameter, input);
    return make("tr", {}, make("td", {}, make("code", {}, parameter.name), parameter.in === "query" ? "" : ` (${parameter.in})`),
      make("td", {}, ...prose(parameter.description)), make("td", {}, input));
  });
  return make("details", { id: operation.operationId },
    make("summary", {}, make("span", { className: `method ${method}` }, method.toUpperCase()),
      make("span", { className: "path" }, path), make("span", {}, operation.summary)),
    make("div", {}, ...prose(operation.description || ""),
      ...(rows.length ? [make("h3", {}, "Parameters"), make("table", {}, ...rows)] : []),
      ...(operation.requestBody ? [make("h3", {}, "Body"), ...bodies(operation.requestBody.content)] : []),
      ...answers(operation.responses), ...tryOut(path, method, operation, inputs)));
}

function render(documented) {
  document.getElementById("about").replaceChildren(`Version ${documented.info.version}. `, ...prose(documented.info.description));
  const all = Object.entries(documented.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => [path, method, operation]));
  document.getElementById("operations").replaceChildren(...documented.tags.flatMap((tag) => [
    make("h2", {}, tag.name, " ", make("small", {}, tag.description)),
    ...all.filter(([, , operation]) => operation.tags.includes(tag.name)).map((entry) => operationOf(...entry)),
  ]));
  document.getElementById("schemas").replaceChildren(...Object.entries(documented.components.schemas).map(([name, schema]) =>
    make("details", {}, make("summary", {}, make("span", { className: "path" }, name), make("span", {}, schema.description || "")),
      make("div", {}, pretty(schema)))));
}

fetch("/schema/openapi.json")
  .then((response) => response.json())
  .then(render)
  .catch((error) => { document.getElementById("about").textContent = `The document cannot be read: ${error}`; });
