/** Uses the client as its arguments say: `use.ts <verb> <number>`. Prints what came, as JSON. */
import { Decklog, Problem, type RecordInput } from "@decklog/client";

const [, , verb = "", count = "0"] = process.argv;
const client = new Decklog({
  url: process.env.DECKLOG_URL as string,
  key: process.env.DECKLOG_KEY as string,
  queueRecordsMax: 500,
  batchRecordsMax: 100,
});
const number = Number(count);

/** Send records through whatever happens. */
async function send(): Promise<unknown> {
  for (let n = 0; n < number; n += 1) {
    const record: RecordInput = { id: `r-${n}`, action: "order.approve", actor: { id: `u-${n % 7}` }, metadata: { n } };
    await client.record(record);
  }
  await client.close({ timeoutMs: 100_000 });
  const { lastError, ...counts } = client.stats;
  return { ...counts, lastError: lastError?.message ?? null };
}

/** Follow the log from its beginning until `number` records came. Each is written at once. */
async function tail(): Promise<unknown> {
  const seen: number[] = [];
  let connections = 1;
  for await (const { record } of client.tail({ after: "-1", q: "action:order.*" }, { onReconnect: () => connections++ })) {
    seen.push(record.seq);
    if (seen.length % 50 === 0) console.log(JSON.stringify({ seen: seen.length }));
    if (seen.length === number) break;
  }
  return { seen, connections };
}

async function exported(): Promise<unknown> {
  const ids: unknown[] = [];
  for await (const record of client.export({ action: "order.approve" })) ids.push(record.id);
  return { ids };
}

async function search(): Promise<unknown> {
  const stored = await client.append({ action: "document.delete", actor: { id: "alice" }, metadata: { reason: "a b&c", "k8s.io/x": { y: "z" } } });
  const seqs: number[] = [];
  for await (const record of client.search({ metadata: { reason: "a b&c", "k8s.io/x.y": "z" }, severity: ["INFO", "ERROR"] })) seqs.push(record.seq);
  const sizes: number[] = [];
  for await (const page of client.search({ q: "action:order.approve", limit: number, order: "asc" }).pages()) sizes.push(page.items.length);
  const exports: number[] = [];
  for await (const record of client.export({ metadata: { reason: "a b&c" }, from: "2026-01-01T00:00:00Z" })) exports.push(record.seq);
  const code = await client
    .search({ limit: 0 })
    [Symbol.asyncIterator]()
    .next()
    .catch((error: unknown) => (error instanceof Problem ? error.code : String(error)));
  return { seq: stored.seq, seqs, sizes, exports, code };
}

const verbs: Record<string, () => Promise<unknown>> = { send, tail, export: exported, search };
console.log(JSON.stringify(await verbs[verb]?.()));
