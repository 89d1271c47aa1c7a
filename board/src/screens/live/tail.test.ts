// @vitest-environment node
import { describe, expect, test } from "vitest";
import {
  arrived,
  CHARS_MAX,
  continued,
  durationText,
  emptyTail,
  type Item,
  paused,
  Rate,
  ROWS_MAX,
  rateText,
  reached,
  resumed,
  type Tail,
} from "./tail.ts";

function item(seq: number, epoch = 0, size = 10): Item<number> {
  return { position: `${epoch}.${1_000 + seq}.${seq}`, seq, record: seq, size };
}

function items(first: number, end: number): Item<number>[] {
  return Array.from({ length: end - first }, (_, index) => item(first + index));
}

function shown(tail: Tail<number>): (number | string)[] {
  return tail.rows.map((row) => row.item?.seq ?? row.mark?.kind ?? "");
}

describe("order", () => {
  test("records are drawn newest first, and the last one is the place to go on from", () => {
    const tail = arrived(emptyTail<number>(), items(4, 7), true);
    expect(shown(tail)).toEqual([6, 5, 4]);
    expect(tail.position).toBe("0.1006.6");
  });

  test("a record that comes twice is left out and counted", () => {
    const tail = arrived(arrived(emptyTail<number>(), items(0, 3), true), items(1, 5), true);
    expect(shown(tail)).toEqual([4, 3, 2, 1, 0]);
    expect([tail.doubled, tail.missing, tail.received]).toEqual([2, 0, 5]);
  });

  test("an unfiltered tail names the records that are missing, a filtered one skips what does not match", () => {
    const whole = arrived(emptyTail<number>(), [item(1), item(5)], true);
    expect(shown(whole)).toEqual([5, "gap", 1]);
    expect(whole.missing).toBe(3);
    expect(whole.rows[1]?.mark?.text).toBe("Records 2 to 4 did not arrive. Open them in Search.");
    expect(shown(arrived(emptyTail<number>(), [item(1), item(5)], false))).toEqual([5, 1]);
  });

  test("a heartbeat beyond the last record of an unfiltered tail is a gap, of a filtered one progress", () => {
    const tail = arrived(emptyTail<number>(), [item(1)], true);
    expect(reached(tail, "0.1003.3", true).missing).toBe(2);
    expect(reached(tail, "0.1003.3", false)).toMatchObject({ missing: 0, position: "0.1003.3" });
    expect(reached(tail, "0.999.0", true).position).toBe("0.1001.1");
  });

  test("a new epoch begins again at a smaller number without a gap", () => {
    const tail = arrived(arrived(emptyTail<number>(), [item(9)], true), [item(3, 1)], true);
    expect(shown(tail)).toEqual([3, "epoch", 9]);
    expect([tail.missing, tail.doubled]).toEqual([0, 0]);
  });
});

describe("a connection that was lost", () => {
  test("goes on from the place that was reached, so nothing was missed", () => {
    const before = arrived(emptyTail<number>(), items(0, 3), true);
    const after = arrived(resumed(before, "0.1002.2", 12_400), [item(3)], true);
    expect(shown(after)).toEqual([3, "resumed", 2, 1, 0]);
    expect(after.rows[1]?.mark?.text).toBe(
      "The connection was lost for 12 s. The tail went on after record 2: nothing was missed.",
    );
  });

  test("that goes on from another place does not say that nothing was missed", () => {
    const after = resumed(arrived(emptyTail<number>(), items(0, 3), true), "0.1009.9", 1_000);
    expect(after.rows[0]?.mark).toMatchObject({ kind: "gap" });
    expect(after.rows[0]?.mark?.text).not.toContain("nothing");
  });
});

describe("pause", () => {
  test("holds what comes, counts it, and draws it afterwards", () => {
    let tail = paused(arrived(emptyTail<number>(), items(0, 2), true));
    tail = arrived(tail, items(2, 144), true);
    expect(shown(tail)).toEqual([1, 0]);
    expect(tail.waiting).toBe(142);
    tail = continued(tail);
    expect(shown(tail)).toHaveLength(144);
    expect([tail.waiting, tail.paused, shown(tail)[0]]).toEqual([0, false, 143]);
  });

  test("keeps the newest within the bounds, drawn or held, and counts what went", () => {
    let tail = arrived(emptyTail<number>(), items(0, ROWS_MAX + 5), true);
    expect([tail.rows.length, tail.dropped]).toEqual([ROWS_MAX, 5]);
    tail = arrived(paused(tail), items(ROWS_MAX + 5, 2 * ROWS_MAX + 8), true);
    expect([tail.held.length, tail.dropped, tail.waiting]).toEqual([ROWS_MAX, 8, ROWS_MAX + 3]);
    tail = continued(tail);
    expect([tail.rows.length, tail.dropped]).toEqual([ROWS_MAX, 8 + ROWS_MAX]);
    expect(tail.received - tail.dropped).toBe(ROWS_MAX);
  });

  test("bounds memory by characters, but always draws the newest record", () => {
    const tail = arrived(emptyTail<number>(), [item(0, 0, 10), item(1, 0, 10), item(2, 0, CHARS_MAX)], true);
    expect(shown(tail)).toEqual([2]);
    expect(tail.dropped).toBe(2);
  });
});

test("a rate counts the arrivals of ten seconds", () => {
  const rate = new Rate();
  rate.add(50, 1_000);
  rate.add(50, 5_000);
  expect(rate.perSecond(5_500)).toBe(10);
  expect(rate.perSecond(12_000)).toBe(5);
  expect(rate.perSecond(60_000)).toBe(0);
  expect([0, 0.5, 1, 1_234.4].map(rateText)).toEqual([
    "no new records in 10 s",
    "0.5 records/s",
    "1 record/s",
    "1,234 records/s",
  ]);
});

test("durations are read as people say them", () => {
  expect([400, 12_000, 60_000, 200_000, 7_260_000].map(durationText)).toEqual([
    "0 s",
    "12 s",
    "1 min",
    "3 min 20 s",
    "2 h 1 min",
  ]);
});
