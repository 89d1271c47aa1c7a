import assert from "node:assert/strict";
import { test } from "node:test";
import { retryAfter } from "../src/http.ts";
import { Decklog, Problem, Unreachable } from "../src/index.ts";
import { lines, serverSentEvents } from "../src/lines.ts";
import { pauseMs } from "../src/pauses.ts";
import { queryOf } from "../src/reading.ts";

/** Return an answer that arrives in these pieces, and breaks at an error among them. */
function arriving(pieces: (string | Uint8Array | Error)[], status = 200): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const piece = pieces.shift();
      if (piece === undefined) controller.close();
      else if (piece instanceof Error) controller.error(piece);
      else controller.enqueue(typeof piece === "string" ? encoder.encode(piece) : piece);
    },
  });
  return new Response(body, { status });
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const each of source) found.push(each);
  return found;
}

/** A client whose requests get these answers, and the addresses it asked. */
function reader(answers: (() => Response)[], options = {}): { client: Decklog; asked: URL[] } {
  const asked: URL[] = [];
  const fetching = async (url: string | URL | Request) => {
    asked.push(new URL(String(url)));
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("no more answers");
    return answer();
  };
  return { client: new Decklog({ url: "https://audit.example", key: "k", fetch: fetching, ...options }), asked };
}

test("lines are whole, however their bytes arrive", async () => {
  const bytes = new TextEncoder().encode("über\r\nzwei\n\ndrei");
  const pieces = Array.from(bytes, (byte) => Uint8Array.of(byte));
  assert.deepEqual(await all(lines(arriving(pieces), 1000)), ["über", "zwei", ""]);
});

test("a transfer that breaks or falls silent throws Unreachable", async () => {
  const found: string[] = [];
  const broken = async (response: Response, silenceMs: number) => {
    for await (const line of lines(response, silenceMs)) found.push(line);
  };
  await assert.rejects(broken(arriving(["a\nb", new TypeError("terminated")]), 1000), Unreachable);
  assert.deepEqual(found, ["a"]);
  const silent = new Response(new ReadableStream({ pull: () => new Promise(() => {}) }));
  await assert.rejects(broken(silent, 10), /nothing arrived within 10 ms/);
});

test("events are read as the standard says", async () => {
  async function* source() {
    yield* [
      ": a comment",
      "retry: 1000",
      "id: 1",
      "event: record",
      "data: a",
      "data:b",
      "",
      "data",
      "",
      "event: cut",
      "data: off",
    ];
  }
  assert.deepEqual(await all(serverSentEvents(source())), [
    { name: "record", data: "a\nb", id: "1" },
    { name: "message", data: "", id: "1" },
  ]);
});

const opened = (position: string) => `id: ${position}\nevent: opened\ndata: {}\n\n`;
const record = (seq: number) => `id: 1.1.${seq}\nevent: record\ndata: {"seq":${seq}}\n\n`;

test("a stream continues behind the last whole event", async () => {
  const { client, asked } = reader([
    () => arriving([opened("1.1.4"), record(5), record(6).slice(0, -1), new TypeError("terminated")]),
    () => arriving(["id: 1.1.9\nevent: heartbeat\ndata: {}\n\n"]),
    () => arriving([record(10)]),
  ]);
  const seqs: number[] = [];
  for await (const { record, position } of client.tail({ q: "action:a", after: "4" })) {
    assert.equal(position, `1.1.${record.seq}`);
    seqs.push(record.seq);
    if (seqs.length === 2) break;
  }
  assert.deepEqual(seqs, [5, 10]);
  assert.deepEqual(
    asked.map((url) => url.searchParams.get("after")),
    ["4", "1.1.5", "1.1.9"],
  );
});

test("a stream ends with a refusal that does not pass, and goes on after one that does", async () => {
  const problem = (status: number, code: string) =>
    `event: problem\ndata: ${JSON.stringify({ status, code, detail: code })}\n\n`;
  const { client, asked } = reader([
    () => arriving([opened("1.1.4"), problem(408, "reader-too-slow")]),
    () => arriving([opened("1.1.4"), problem(401, "unauthenticated")]),
  ]);
  await assert.rejects(
    all(client.tail()),
    (error: unknown) => error instanceof Problem && error.code === "unauthenticated",
  );
  assert.equal(asked.length, 2);
});

test("a stream ends when its signal aborts, also while nothing arrives", async () => {
  const stop = new AbortController();
  const { client } = reader([() => new Response(new ReadableStream({ pull: () => new Promise(() => {}) }))]);
  setTimeout(() => stop.abort(new Error("enough")), 10);
  await assert.rejects(all(client.tail({}, { signal: stop.signal })), /enough/);
});

test("an export continues after its last record, and not where it cannot know it", async () => {
  const { client, asked } = reader([
    () => arriving(['{"seq":1}\n{"seq":2}\n{"se', new TypeError("terminated")]),
    () => arriving(['{"seq":3}\n']),
    () => arriving(['{"action":"a"}\n', new TypeError("terminated")]),
  ]);
  assert.deepEqual(
    (await all(client.export({ after: "0" }))).map(({ seq }) => seq),
    [1, 2, 3],
  );
  await assert.rejects(all(client.export({ fields: "action" })), Unreachable);
  assert.deepEqual(
    asked.map((url) => url.searchParams.get("after")),
    ["0", "2", null],
  );
});

test("a search follows its cursor, with its other parameters, and repeats a page that failed", async () => {
  const bodies: unknown[] = [];
  const pages = [
    new Response("", { status: 503 }),
    Response.json({ items: [{ seq: 2 }, { seq: 1 }], next: "c" }),
    Response.json({ items: [{ seq: 0 }], next: null }),
  ];
  const client = new Decklog({
    url: "https://audit.example",
    key: "k",
    fetch: async (_, init) => {
      bodies.push(JSON.parse(String(init?.body)));
      return pages.shift() as Response;
    },
  });
  assert.deepEqual(
    (await all(client.search({ q: "a", limit: 2 }))).map(({ seq }) => seq),
    [2, 1, 0],
  );
  const first = { query: "a", limit: 2 };
  assert.deepEqual(bodies, [first, first, { ...first, cursor: "c" }]);
});

test("a reading gives up after five attempts", async () => {
  const { client, asked } = reader([], { requestTimeoutMs: 1000 });
  const { random } = Math;
  Math.random = () => 0;
  await assert.rejects(all(client.search()), Unreachable);
  Math.random = random;
  assert.equal(asked.length, 5);
});

test("filters are written as the API reads them", () => {
  const query = queryOf({
    severity: ["ERROR", "CRITICAL"],
    metadata: { "k8s.io/x.y": "z" },
    "after.<path>": { "after.role": "admin", name: "x" },
    after: undefined,
    bom: false,
  });
  assert.equal(
    decodeURIComponent(query.toString()),
    "severity=ERROR&severity=CRITICAL&metadata[k8s.io/x.y]=z&after.role=admin&after.name=x&bom=false",
  );
});

test("pauses grow, are random in part, and last at least as long as the server asks", () => {
  const asks = (seconds: number) => new Problem(429, {}, seconds);
  assert.deepEqual(
    [1, 2, 3, 20].map((failures) => pauseMs(failures, new Unreachable(), () => 1)),
    [200, 400, 800, 30_000],
  );
  assert.deepEqual(
    [1, 2, 20].map((failures) => pauseMs(failures, new Unreachable(), () => 0)),
    [100, 200, 15_000],
  );
  assert.deepEqual(
    [pauseMs(1, asks(2), () => 0), pauseMs(1, asks(2), () => 1), pauseMs(1, asks(0), () => 0)],
    [2000, 2500, 100],
  );
  assert.equal(
    pauseMs(1, asks(86_400), () => 0),
    300_000,
  );
});

test("Retry-After is a number or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  const found = ["3", " 0 ", "Thu, 01 Jan 2026 00:00:10 GMT", "Wed, 31 Dec 2025 00:00:00 GMT", "soon", "", null];
  assert.deepEqual(
    found.map((value) => retryAfter(value, now)),
    [3, 0, 10, 0, null, null, null],
  );
});
