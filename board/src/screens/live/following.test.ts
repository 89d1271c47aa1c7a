// @vitest-environment node
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Problem } from "../../api/client.ts";
import { type Connection, Following, SILENCE_MAX, type Source, waitBefore } from "./following.ts";

class FakeSource implements Source {
  onerror: ((event: Event) => void) | null = null;
  closed = false;
  listeners = new Map<string, (event: MessageEvent<string>) => void>();
  after: string | null;
  constructor(after: string | null) {
    this.after = after;
  }
  addEventListener(name: string, listener: (event: MessageEvent<string>) => void) {
    this.listeners.set(name, listener);
  }
  close() {
    this.closed = true;
  }
  fire(name: string, data: unknown, lastEventId = "") {
    this.listeners.get(name)?.(new MessageEvent(name, { data: JSON.stringify(data), lastEventId }));
  }
}

function followed() {
  const sources: FakeSource[] = [];
  const connections: Connection[] = [];
  const opened: [string, number | null][] = [];
  const records: string[] = [];
  const state = { position: null as string | null, refusal: null as Problem | null };
  const ticket = vi.fn(async () => `t${sources.length}`);
  const following = new Following({
    ticket,
    open: (_, after) => {
      const source = new FakeSource(after);
      sources.push(source);
      return source;
    },
    refusal: async () => state.refusal,
    position: () => state.position,
    onOpened: (position, away) => {
      state.position = position;
      opened.push([position, away]);
    },
    onRecord: (position) => {
      state.position = position;
      records.push(position);
    },
    onHeartbeat: (position) => {
      state.position = position;
    },
    onConnection: (connection) => connections.push(connection),
  });
  const last = () => sources.at(-1) as FakeSource;
  return { following, sources, connections, opened, records, state, ticket, last };
}

const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("a broken stream continues after the last position, with a new ticket for each connection", async () => {
  const { following, sources, connections, opened, ticket, last } = followed();
  following.connect();
  await settle();
  last().fire("opened", { position: "0.10.4" });
  last().fire("record", {}, "0.11.5");
  last().fire("heartbeat", {}, "0.12.7");
  last().onerror?.(new Event("error"));
  expect(last().closed).toBe(true);
  expect(connections.at(-1)?.state).toBe("lost");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(sources.map((each) => each.after)).toEqual([null, "0.12.7"]);
  last().fire("opened", { position: "0.12.7" });
  expect(opened[1]?.[0]).toBe("0.12.7");
  expect(opened[1]?.[1]).toBeGreaterThan(0);
  expect(ticket).toHaveBeenCalledTimes(2);
  following.stop();
});

test("events of a connection that was given up are not taken", async () => {
  const { following, sources, records } = followed();
  following.connect();
  await settle();
  sources[0]?.fire("opened", { position: "0.1.0" });
  sources[0]?.onerror?.(new Event("error"));
  await vi.advanceTimersByTimeAsync(1_000);
  sources[0]?.fire("record", {}, "0.2.1");
  sources[1]?.fire("record", {}, "0.2.1");
  expect(records).toEqual(["0.2.1"]);
  following.stop();
});

test("a stream that the server ends is tried again, unless another attempt would be refused as well", async () => {
  const { following, sources, connections, last } = followed();
  following.connect();
  await settle();
  last().fire("opened", { position: "0.1.0" });
  last().fire("problem", { status: 503, code: "overloaded", detail: "This process is stopping." });
  expect(connections.at(-1)).toMatchObject({ state: "lost", why: "This process is stopping." });
  await vi.advanceTimersByTimeAsync(1_000);
  expect(sources).toHaveLength(2);
  last().fire("problem", { status: 403, code: "tenant-suspended", title: "Tenant suspended", detail: "It was." });
  expect(connections.at(-1)).toMatchObject({ state: "ended", problem: { code: "tenant-suspended" } });
  await vi.advanceTimersByTimeAsync(120_000);
  expect(sources).toHaveLength(2);
});

test("a stream that is refused before it opens says why", async () => {
  const { following, connections, state, last } = followed();
  state.refusal = new Problem(422, { code: "invalid-query", detail: "q: no field 'x'." });
  following.connect();
  await settle();
  last().onerror?.(new Event("error"));
  await settle();
  expect(connections.at(-1)).toMatchObject({ state: "ended", problem: { code: "invalid-query" } });
});

test("a connection without any event is given up after three heartbeats", async () => {
  const { following, sources, connections, last } = followed();
  following.connect();
  await settle();
  last().fire("opened", { position: "0.1.0" });
  await vi.advanceTimersByTimeAsync(SILENCE_MAX - 1);
  last().fire("heartbeat", {}, "0.1.0");
  await vi.advanceTimersByTimeAsync(SILENCE_MAX - 1);
  expect(sources).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(connections.at(-1)).toMatchObject({ state: "lost", why: "The server was silent." });
  following.stop();
});

test("a stopped tail neither connects nor listens", async () => {
  const { following, sources } = followed();
  following.connect();
  following.stop();
  await settle();
  following.connect();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(sources).toHaveLength(0);
});

test("waits double up to a bound, and are never shorter than the server asks", () => {
  expect([0, 1, 2, 3].map((attempt) => waitBefore(attempt, 0))).toEqual([500, 1_000, 2_000, 4_000]);
  expect(waitBefore(20, 1)).toBe(37_500);
  expect(waitBefore(0, 0, 5)).toBe(5_000);
});
