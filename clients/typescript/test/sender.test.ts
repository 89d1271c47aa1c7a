import assert from "node:assert/strict";
import { test } from "node:test";
import { Closed, Decklog, NotCommitted, Problem, QueueFull, Refused } from "../src/index.ts";

const RECORD = { action: "order.approve", actor: { id: "alice" } };

interface Asked {
  records: { id: string; occurred_at: string; action: string }[];
  init: RequestInit;
}

/** A server that stores each id once and answers attempt `n` (0 is the first) by `faults[n]`, if it is set. */
class Server {
  readonly asked: Asked[] = [];
  readonly stored = new Map<string, number>();
  readonly faults: (((asked: Asked) => Response | Error | Promise<Response>) | undefined)[] = [];

  readonly fetch = async (_: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const lines = String(init.body).trimEnd().split("\n");
    const asked = { records: lines.map((line) => JSON.parse(line)), init };
    const fault = this.faults[this.asked.length];
    this.asked.push(asked);
    const gone = new Promise<Error>((resolve) =>
      init.signal?.addEventListener("abort", () => resolve(new Error("aborted"))),
    );
    const answer = (await (fault ? Promise.race([fault(asked), gone]) : null)) ?? this.store(asked);
    if (answer instanceof Error) throw answer;
    return answer;
  };

  store({ records }: Asked): Response {
    const items = records.map(({ id }) => {
      const found = this.stored.get(id);
      if (found === undefined) this.stored.set(id, this.stored.size);
      return { status: found === undefined ? "stored" : "duplicate", seq: this.stored.get(id) };
    });
    return json(200, { stored: 0, duplicates: 0, rejected: 0, items });
  }

  client(options = {}): Decklog {
    return new Decklog({ url: "https://audit.example/", key: "dlk_a_b", fetch: this.fetch, lingerMs: 0, ...options });
  }
}

function json(status: number, body: unknown, headers = {}): Response {
  return new Response(JSON.stringify(body), { status, headers });
}

function problem(status: number, code: string, headers = {}): () => Response {
  return () => json(status, { status, code, detail: `${code}.` }, headers);
}

test("records of one turn are one batch, in order, with ids and times", async () => {
  const server = new Server();
  const client = server.client();
  const ids = await Promise.all([1, 2, 3].map((n) => client.record({ ...RECORD, action: `a${n}` })));
  await client.commit();
  assert.equal(server.asked.length, 1);
  const [{ records, init }] = server.asked as [Asked];
  assert.deepEqual(
    records.map(({ id, action }) => [id, action]),
    ids.map((id, index) => [id, `a${index + 1}`]),
  );
  assert.ok(records.every(({ occurred_at }) => Math.abs(Date.parse(occurred_at) - Date.now()) < 60_000));
  assert.deepEqual(init.headers, { Authorization: "Bearer dlk_a_b", "Content-Type": "application/x-ndjson" });
  assert.equal(new Set(ids).size, 3);
});

test("a lost answer is followed by the same bytes, and the record is stored once", async () => {
  const server = new Server();
  server.faults[0] = (asked) => {
    server.store(asked);
    return new TypeError("socket hang up");
  };
  const retried: string[] = [];
  const client = server.client({ onRetry: (error: Error) => retried.push(error.message) });
  await client.record(RECORD);
  await client.commit();
  assert.equal(server.asked[0]?.init.body, server.asked[1]?.init.body);
  assert.equal(server.stored.size, 1);
  assert.deepEqual(retried, ["No answer: socket hang up."]);
  const { recorded, stored, duplicates, waiting, retries, lastError } = client.stats;
  assert.deepEqual(
    { recorded, stored, duplicates, waiting, retries, lastError },
    { recorded: 1, stored: 0, duplicates: 1, waiting: 0, retries: 1, lastError: null },
  );
});

test("an answer that is not Decklog's counts as lost", async () => {
  const server = new Server();
  server.faults[0] = () => new Response("<html>It works!</html>");
  server.faults[1] = () => json(200, { items: [] });
  const client = server.client();
  await client.record(RECORD);
  await client.commit();
  assert.equal(server.asked.length, 3);
  assert.equal(server.stored.size, 1);
});

test("Retry-After is waited for", async () => {
  const server = new Server();
  server.faults[0] = problem(429, "rate-limited", { "Retry-After": "1" });
  const pauses: number[] = [];
  const client = server.client({ onRetry: (_: Error, ms: number) => pauses.push(ms) });
  await client.record(RECORD);
  await client.commit();
  assert.ok((pauses[0] as number) >= 1000 && (pauses[0] as number) <= 1250, String(pauses));
});

test("a batch that is too large is sent in smaller ones, and a record that is too large is refused", async () => {
  const server = new Server();
  const tooLarge = ({ records }: Asked) =>
    records.length > 3 || records.some(({ action }) => action === "huge")
      ? problem(413, "body-too-large")()
      : server.store({ records, init: {} });
  for (let n = 0; n < 100; n += 1) server.faults[n] = tooLarge;
  const refused: string[] = [];
  const client = server.client({
    onRefused: ({ record }: { record: { action: string } }) => refused.push(record.action),
  });
  for (let n = 0; n < 20; n += 1) await client.record({ ...RECORD, action: n === 7 ? "huge" : `a${n}` });
  await assert.rejects(client.commit(), (error: unknown) => {
    assert.ok(error instanceof Refused);
    assert.deepEqual(
      error.refusals.map(({ code, record }) => [code, record.action]),
      [["body-too-large", "huge"]],
    );
    return true;
  });
  assert.deepEqual(refused, ["huge"]);
  assert.equal(server.stored.size, 19);
  await client.commit();
});

test("batches become smaller while no answer comes, for a line that is too slow for them", async () => {
  const server = new Server();
  const slow = (asked: Asked) => (asked.records.length > 2 ? new TypeError("terminated") : server.store(asked));
  for (let n = 0; n < 100; n += 1) server.faults[n] = slow;
  const client = server.client({ batchRecordsMax: 8 });
  for (let n = 0; n < 8; n += 1) await client.record(RECORD);
  await client.commit();
  const sizes = server.asked.map(({ records }) => records.length);
  assert.deepEqual(sizes.slice(0, 5), [8, 8, 8, 4, 2]);
  assert.equal(server.stored.size, 8);
});

test("refused records are reported, and those that were refused for now are sent again in order", async () => {
  const server = new Server();
  server.faults[0] = ({ records }) =>
    json(200, {
      items: records.map(({ id }, index) => {
        if (index === 1) return { status: "rejected", error: { code: "id-conflict", detail: "Other content." } };
        if (index >= 3) return { status: "rejected", error: { code: "rate-limited", detail: "Later." } };
        server.stored.set(id, index);
        return { status: "stored", seq: index };
      }),
    });
  const refused: string[] = [];
  const client = server.client({ onRefused: ({ code }: { code: string }) => refused.push(code) });
  for (let n = 0; n < 6; n += 1) void client.record({ ...RECORD, action: `a${n}` });
  await assert.rejects(client.commit(), /1 records were refused; the first for id-conflict: Other content./);
  assert.deepEqual(
    server.asked[1]?.records.map(({ action }) => action),
    ["a3", "a4", "a5"],
  );
  assert.deepEqual(refused, ["id-conflict"]);
  assert.equal(server.stored.size, 5);
  const { recorded, stored, refused: count } = client.stats;
  assert.deepEqual([recorded, stored, count], [6, 5, 1]);
});

test("a bulk of which every record is refused is not sent again", async () => {
  const server = new Server();
  const items = [{ status: "rejected", error: { code: "invalid-record", detail: "actor: is required.", errors: [] } }];
  server.faults[0] = () => json(422, { status: 422, code: "nothing-stored", detail: "Nothing.", items });
  const client = server.client();
  await assert.rejects(
    client.append(RECORD),
    (error: unknown) => error instanceof Refused && error.refusals[0]?.code === "invalid-record",
  );
  await client.commit(); // the caller of append() knows already
  assert.equal(server.asked.length, 1);
});

test("a refusal is not lost with a commit() that waited in vain", async () => {
  const server = new Server();
  server.faults[0] = ({ records }) =>
    json(200, {
      items: records.map((_, index) => ({
        status: "rejected",
        error: { code: index === 0 ? "id-conflict" : "overloaded", detail: "No." },
      })),
    });
  const client = server.client({ onRefused: () => {} });
  await Promise.all([client.record(RECORD), client.record(RECORD)]);
  await assert.rejects(client.commit({ timeoutMs: 40 }), NotCommitted);
  await assert.rejects(client.commit({ timeoutMs: Number.POSITIVE_INFINITY }), Refused);
  await client.commit();
  assert.equal(server.stored.size, 1);
});

test("append returns the number of its record", async () => {
  const server = new Server();
  const client = server.client({ lingerMs: 60_000 });
  const results = await Promise.all([client.append({ ...RECORD, id: "x" }), client.append({ ...RECORD, id: "y" })]);
  assert.deepEqual(results, [
    { id: "x", seq: 0, status: "stored" },
    { id: "y", seq: 1, status: "stored" },
  ]);
});

test("a full queue makes record() wait, and nothing is dropped", async () => {
  const server = new Server();
  const client = server.client({ queueRecordsMax: 10, batchRecordsMax: 4 });
  const most: number[] = [];
  for (let n = 0; n < 100; n += 1) {
    await client.record({ ...RECORD, id: String(n) });
    most.push(client.stats.waiting);
  }
  await client.commit();
  assert.ok(Math.max(...most) <= 10);
  assert.deepEqual(
    [...server.stored.keys()],
    Array.from({ length: 100 }, (_, n) => String(n)),
  );
});

test("commit waits for records that wait for room", async () => {
  const server = new Server();
  const client = server.client({ queueRecordsMax: 3 });
  const calls = [1, 2, 3, 4, 5, 6].map(() => client.record(RECORD));
  await client.commit();
  assert.equal(server.stored.size, 6);
  await Promise.all(calls);
});

test("a full queue makes record() throw where that is asked, and beyond the bound of waiting calls", async () => {
  const server = new Server();
  server.faults[0] = () => new Promise(() => {});
  const throwing = server.client({ queueRecordsMax: 2, whenFull: "throw" });
  await Promise.all([throwing.record(RECORD), throwing.record(RECORD)]);
  await assert.rejects(throwing.record(RECORD), QueueFull);
  assert.equal(throwing.stats.recorded, 2);
  const other = new Server();
  other.faults[0] = () => new Promise(() => {});
  const blocking = other.client({ queueRecordsMax: 1 });
  await blocking.record(RECORD);
  const waiting = blocking.record(RECORD);
  await assert.rejects(blocking.record(RECORD), QueueFull);
  const closed = assert.rejects(waiting, Closed);
  await assert.rejects(blocking.close({ timeoutMs: 1 }), NotCommitted);
  await closed;
  await assert.rejects(throwing.close({ timeoutMs: 1 }), NotCommitted);
});

test("a wrong key fails commit() at once, and the records are sent when the key is right", async () => {
  const server = new Server();
  server.faults[0] = problem(401, "unauthenticated");
  let key = "wrong";
  const client = server.client({ key: () => key });
  await client.record(RECORD);
  await assert.rejects(client.commit(), (error: unknown) => {
    assert.ok(error instanceof NotCommitted && error.cause instanceof Problem);
    assert.equal(error.cause.code, "unauthenticated");
    assert.equal(error.records().length, 1);
    return true;
  });
  key = "right";
  await client.commit();
  assert.deepEqual(
    server.asked.map(({ init }) => (init.headers as Record<string, string>).Authorization),
    ["Bearer wrong", "Bearer right"],
  );
});

test("close gives back what could not be stored, and takes nothing more", async () => {
  const server = new Server();
  for (let n = 0; n < 100; n += 1) server.faults[n] = problem(503, "overloaded", { "Retry-After": "1" });
  const client = server.client();
  const id = await client.record(RECORD);
  await assert.rejects(client.close({ timeoutMs: 20 }), (error: unknown) => {
    assert.ok(error instanceof NotCommitted);
    assert.deepEqual(
      error.records().map((record) => record.id),
      [id],
    );
    return true;
  });
  await assert.rejects(client.record(RECORD), Closed);
});

test("a record that is no JSON is refused by the call, and leaves no trace", async () => {
  const client = new Server().client();
  await assert.rejects(client.record({ ...RECORD, metadata: { big: 1n } }), TypeError);
  await client.commit();
  assert.equal(client.stats.recorded, 0);
});

test("callbacks that throw do not end the sending", async () => {
  const server = new Server();
  server.faults[0] = problem(503, "overloaded");
  const client = server.client({ onRetry: () => assert.fail("a fault of the application") });
  const { error } = console;
  console.error = () => {};
  await client.record(RECORD);
  await client.commit();
  console.error = error;
  assert.equal(server.stored.size, 1);
});

for (const options of [
  { url: "ftp://a" },
  { url: "https://me@a" },
  { url: "https://a?key=1" },
  { key: "" },
  { batchRecordsMax: 10_001 },
  { queueBytesMax: 0 },
]) {
  test(`an option that means nothing is refused: ${JSON.stringify(options)}`, () => {
    assert.throws(() => new Decklog({ url: "https://a", key: "k", ...options }), /url|key|Max/);
  });
}
