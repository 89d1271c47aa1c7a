// @vitest-environment node
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Download, parametersOf, type Wanted } from "./download.ts";
import { gzipped, memorySink, type Sink, TooLargeError } from "./sinks.ts";

const WANTED: Wanted = { query: { q: "a", log: null }, format: "ndjson", fields: [], bom: false, gzip: false };
const encoder = new TextEncoder();

const decoder = new TextDecoder();

function line(seq: number): string {
  return `{"seq":${seq},"text":"é"}\n`;
}

/** Answer with lines; `cut` breaks the transfer after so many bytes. */
function answer(
  seqs: number[],
  { cut, total, head = 9 }: { cut?: number; total?: number; head?: number } = {},
): Response {
  const bytes = encoder.encode(seqs.map(line).join(""));
  let given = false;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (!given) controller.enqueue(bytes.slice(0, cut ?? bytes.length));
      else if (cut === undefined) controller.close();
      else controller.error(new TypeError("network error"));
      given = true;
    },
  });
  const headers = new Headers({
    "Decklog-Position": `0.1.${head}`,
    "Content-Disposition": 'attachment; filename="a-events-10.ndjson"',
  });
  if (total !== undefined) headers.set("Decklog-Total", String(total));
  return new Response(body, { headers });
}

function refusal(status: number, code: string): Response {
  return new Response(JSON.stringify({ code, title: code, detail: `It is ${code}.` }), { status });
}

function kept() {
  const written: Uint8Array[] = [];
  const state = { closed: false, aborted: false };
  const sink: Sink = {
    write: async (bytes) => {
      written.push(bytes);
    },
    close: async () => {
      state.closed = true;
    },
    abort: async () => {
      state.aborted = true;
    },
  };
  return { sink, state, text: () => written.map((each) => decoder.decode(each, { stream: true })).join("") };
}

function exporting(answers: (Response | Error)[], wanted = WANTED) {
  const asked: { url: URL; headers: Record<string, string> }[] = [];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    asked.push({ url: new URL(url, "http://x"), headers: init.headers as Record<string, string> });
    const next = answers.shift();
    if (next === undefined || next instanceof Error) throw next ?? new TypeError("failed");
    return next;
  });
  const file = kept();
  const download = new Download(wanted, file.sink, "k1", () => undefined);
  return { asked, file, download };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("an export is written as it comes, and is done when all that was counted came", async () => {
  const { asked, file, download } = exporting([answer([1, 3, 9], { total: 3 })]);
  await download.run();
  expect(file.text()).toBe([1, 3, 9].map(line).join(""));
  expect(file.state).toEqual({ closed: true, aborted: false });
  expect(download.state).toMatchObject({ phase: "done", records: 3, total: 3, name: "a-events-10.ndjson" });
  expect(asked[0]?.url.searchParams.toString()).toBe("q=a&format=ndjson&count=exact");
  expect(asked[0]?.headers["Decklog-Identity"]).toBe("k1");
});

test("a broken export continues after its last whole record, and leaves out what came since", async () => {
  const { asked, file, download } = exporting([
    answer([1, 3, 9], { total: 3, cut: encoder.encode(line(1)).length + 7 }),
    new TypeError("failed"),
    answer([3, 9, 10, 12], { head: 12 }),
  ]);
  await download.run();
  expect(download.state).toMatchObject({ phase: "waiting", records: 1, after: 1 });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked.map(({ url }) => [url.searchParams.get("after"), url.searchParams.get("count")])).toEqual([
    [null, "exact"],
    ["1", null],
    ["1", null],
  ]);
  expect(file.text()).toBe([1, 3, 9].map(line).join(""));
  expect(download.state).toMatchObject({ phase: "done", records: 3, continued: 1 });
});

test("a refusal that stays ends the export and leaves no file", async () => {
  for (const code of ["record-damaged", "unauthenticated", "invalid-query"]) {
    const { file, download } = exporting([answer([1, 3], { cut: 40 }), refusal(500, code)]);
    await download.run();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(download.state).toMatchObject({ phase: "failed", error: { code } });
    expect(file.state).toEqual({ closed: false, aborted: true });
  }
});

test("a file with fewer records than were counted is never completed", async () => {
  const { file, download } = exporting([answer([1], { total: 2 })]);
  await download.run();
  expect(download.state.phase).toBe("failed");
  expect(String(download.state.error)).toContain("1 records came, and 2 were counted");
  expect(file.state.closed).toBe(false);
});

test("without seq among its fields a broken export says that it must begin again", async () => {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encoder.encode('{"action":"a"}\n{"act')),
    pull: (controller) => controller.error(new TypeError("network error")),
  });
  const { download } = exporting([new Response(body)], { ...WANTED, fields: ["action"] });
  await download.run();
  expect(download.state.phase).toBe("failed");
  expect(String(download.state.error)).toContain("Without the field seq");
});

test("attempts without progress end in a pause, from which a person goes on", async () => {
  const { asked, download } = exporting([]);
  await download.run();
  await vi.advanceTimersByTimeAsync(600_000);
  expect(download.state.phase).toBe("paused");
  const before = asked.length;
  download.resume();
  await vi.advanceTimersByTimeAsync(0);
  expect(asked.length).toBe(before + 1);
});

test("an export without a count goes on where counting takes too long", async () => {
  const { asked, download } = exporting([refusal(503, "search-unavailable"), answer([1])]);
  await download.run();
  expect(download.state).toMatchObject({ phase: "done", records: 1, total: null });
  expect(asked.map(({ url }) => url.searchParams.get("count"))).toEqual(["exact", null]);
});

test("a cancelled export leaves no file and does not continue", async () => {
  const { asked, file, download } = exporting([answer([1, 3], { cut: 40 })]);
  await download.run();
  await download.cancel();
  await vi.advanceTimersByTimeAsync(60_000);
  expect([download.state.phase, file.state.aborted, asked.length]).toEqual(["cancelled", true, 1]);
});

test("the byte order mark begins a file once", () => {
  const wanted: Wanted = { ...WANTED, format: "csv", bom: true, fields: ["seq", "action"] };
  expect(parametersOf(wanted, null, true)).toMatchObject({ bom: true, fields: "seq,action", count: "exact" });
  expect(parametersOf(wanted, 5, false)).toMatchObject({ bom: null, after: 5, count: null });
  expect(parametersOf({ ...wanted, format: "json" }, null, true)).toMatchObject({ bom: null });
});

test("memory has a bound, and gzip passes its refusal on", async () => {
  vi.useRealTimers();
  await expect(memorySink(() => "x", 10).write(new Uint8Array(11))).rejects.toBeInstanceOf(TooLargeError);
  const file = kept();
  const sink = gzipped(file.sink);
  await sink.write(encoder.encode("a".repeat(5_000)));
  await sink.close();
  expect(file.text().length).toBeLessThan(200);
  expect(file.state.closed).toBe(true);
});
