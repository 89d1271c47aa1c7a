/** The tail of a log as React state: records are taken in batches, so that a flood of them draws a bounded number of times a second. */
import { useCallback, useEffect, useRef, useState } from "react";
import { Problem, type Query } from "../../api/client.ts";
import { type LogRecord, listRecords } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { loadSession } from "../../api/signing.ts";
import { makeTicket, openStream, streamRefusal } from "../../api/streams.ts";
import { type Connection, Following, isFinal } from "./following.ts";
import { arrived, continued, emptyTail, type Item, paused, Rate, reached, resumed, type Tail } from "./tail.ts";

/** Records that are there already and are drawn below the first new one. */
const BEFORE = 50;
const BATCH_MILLISECONDS = 150;
/** Changes after which a batch is taken at once: timers of a tab in the background run rarely. */
const BATCH_MAX = 500;

type Change =
  | { kind: "record"; item: Item<LogRecord> }
  | { kind: "place"; position: string; away: number | null | undefined };

function itemOf(record: LogRecord, position: string, size: number): Item<LogRecord> {
  return { position, seq: record.seq, record, size };
}

/** Return the tail after changes in the order of their arrival. */
function changed(tail: Tail<LogRecord>, changes: readonly Change[], unfiltered: boolean): Tail<LogRecord> {
  let next = tail;
  let batch: Item<LogRecord>[] = [];
  const flush = () => {
    if (batch.length > 0) next = arrived(next, batch, unfiltered);
    batch = [];
  };
  for (const change of changes) {
    if (change.kind === "record") {
      batch.push(change.item);
      continue;
    }
    flush();
    const again = change.away !== null && change.away !== undefined && next.position !== null;
    next = again ? resumed(next, change.position, change.away ?? 0) : reached(next, change.position, unfiltered);
  }
  flush();
  return next;
}

export interface TailView {
  tail: Tail<LogRecord>;
  connection: Connection;
  /** Records per second over the last ten seconds. */
  rate: number;
  pause: () => void;
  resume: () => void;
  reconnect: () => void;
  restart: () => void;
}

/** Follow a log. `query` must keep its identity while it is the same. */
export function useTail(query: Query, unfiltered: boolean): TailView {
  const identity = useIdentity();
  const [tail, setTail] = useState<Tail<LogRecord>>(emptyTail);
  const [connection, setConnection] = useState<Connection>({ state: "connecting" });
  const [rate, setRate] = useState(0);
  const [turn, setTurn] = useState(0);
  const following = useRef<Following | null>(null);

  // biome-ignore lint/correctness/useExhaustiveDependencies: another identity or another turn begins another tail
  useEffect(() => {
    let changes: Change[] = [];
    let position: string | null = null;
    const arrivals = new Rate();
    const asking = new AbortController();
    setTail(emptyTail());
    setConnection({ state: "connecting" });

    const flush = () => {
      if (changes.length > 0) {
        const batch = changes;
        changes = [];
        setTail((before) => changed(before, batch, unfiltered));
      }
      setRate(arrivals.perSecond(Date.now()));
    };
    const place = (at: string, away?: number | null) => {
      position = at;
      changes.push({ kind: "place", position: at, away });
    };
    const made = new Following({
      ticket: makeTicket,
      open: (ticket, after) => openStream(ticket, query, after),
      refusal: (after) => streamRefusal(query, after),
      position: () => position,
      onOpened: (at, away) => place(at, away),
      onHeartbeat: (at) => place(at),
      onRecord: (at, text) => {
        position = at;
        arrivals.add(1, Date.now());
        changes.push({ kind: "record", item: itemOf(JSON.parse(text) as LogRecord, at, text.length) });
        if (changes.length >= BATCH_MAX) flush();
      },
      onConnection: (next) => {
        flush();
        setConnection(next);
        if (next.state === "ended" && next.problem.code === "unauthenticated")
          void loadSession().catch(() => undefined);
      },
    });
    following.current = made;

    /** Draw what is there, and follow from its end: nothing falls between the list and the stream. */
    const begin = async () => {
      try {
        const page = await listRecords({ ...query, limit: BEFORE }, asking.signal);
        const rows = page.items.map((record) => ({
          item: itemOf(record, `before-${record.epoch}-${record.seq}`, JSON.stringify(record).length),
        }));
        setTail((before) => ({ ...before, rows }));
        position = String(page.head - 1);
      } catch (error) {
        if (error instanceof Problem && isFinal(error)) setConnection({ state: "ended", problem: error });
        // The stream goes on without what was there before.
        if (asking.signal.aborted || (error instanceof Problem && isFinal(error))) return;
      }
      if (!asking.signal.aborted) made.connect();
    };
    void begin();

    const timer = setInterval(flush, BATCH_MILLISECONDS);
    const online = () => made.connect();
    window.addEventListener("online", online);
    return () => {
      asking.abort();
      made.stop();
      clearInterval(timer);
      window.removeEventListener("online", online);
    };
  }, [query, unfiltered, identity.id, turn]);

  return {
    tail,
    connection,
    rate,
    pause: useCallback(() => setTail(paused), []),
    resume: useCallback(() => setTail(continued), []),
    reconnect: useCallback(() => following.current?.connect(), []),
    restart: useCallback(() => setTurn((before) => before + 1), []),
  };
}
