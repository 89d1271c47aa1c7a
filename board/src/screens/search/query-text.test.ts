import { describe, expect, test } from "vitest";
import {
  clausesOf,
  standingOf,
  tokensOf,
  withOpposite,
  withoutClause,
  withoutValue,
  withValue,
  writtenValue,
} from "./query-text.ts";

const texts = (query: string) => clausesOf(query)?.map((each) => each.text);

describe("tokensOf", () => {
  test.each(["", "alice", 'a:"b c" (x OR -y:[1 TO 5])', 'action:user.* "open', "a\\ b:c\\:d )) {", "ip:2001:db8::7"])(
    "covers %j whole",
    (query) => {
      expect(
        tokensOf(query)
          .map((each) => query.slice(each.start, each.end))
          .join(""),
      ).toBe(query);
    },
  );

  test("names fields, values, words and operators", () => {
    const query = 'action:user.* AND -actor.id:"a b" word';
    expect(
      tokensOf(query)
        .filter((each) => each.kind !== "blank")
        .map((each) => [each.kind, query.slice(each.start, each.end)]),
    ).toEqual([
      ["field", "action:"],
      ["value", "user.*"],
      ["operator", "AND"],
      ["field", "-actor.id:"],
      ["value", '"a b"'],
      ["word", "word"],
    ]);
  });
});

describe("clausesOf", () => {
  test("splits what must all hold, and keeps groups, ranges and NOT together", () => {
    expect(texts('alice "a b" AND action:(x OR y) NOT outcome:denied n:[1 TO 5] -(a b)')).toEqual([
      "alice",
      '"a b"',
      "action:(x OR y)",
      "NOT outcome:denied",
      "n:[1 TO 5]",
      "-(a b)",
    ]);
  });

  test("has none to take alone where alternatives stand at the top", () => {
    expect(clausesOf("alice OR bob")).toBeNull();
    expect(clausesOf("(alice OR bob) x:y")).toHaveLength(2);
  });

  test("knows fields by one name, and values without quotes and backslashes", () => {
    expect(clausesOf('actor:alice -ip:"10.0.0.1" metadata.tag\\ keys:"a\\"b" action:user.* exists:id')).toMatchObject([
      { field: "actor.id", values: ["alice"], negated: false },
      { field: "source.ip", values: ["10.0.0.1"], negated: true },
      { field: "metadata.tag keys", values: ['a"b'] },
      { field: "action", values: null },
      { field: "exists", values: ["id"] },
    ]);
  });
});

describe("withValue", () => {
  test("adds a condition, in quotes where it needs them", () => {
    expect(withValue("", "action", "user.login", false)).toBe("action:user.login");
    expect(withValue("alice", "action", "sts:AssumeRole", true)).toBe('alice -action:"sts:AssumeRole"');
    expect(writtenValue("or")).toBe('"or"');
    expect(writtenValue("-x")).toBe('"-x"');
  });

  test("takes the same condition away again, and turns the opposite one", () => {
    expect(withValue("action:a x", "action", "a", false)).toBe("x");
    expect(withValue("action:a x", "action", "a", true)).toBe("x -action:a");
    expect(withValue("-action:a", "action", "a", true)).toBe("");
  });

  test("makes a second value of a field an alternative, as a record has one", () => {
    expect(withValue("severity:ERROR", "severity", "CRITICAL", false)).toBe("severity:(ERROR OR CRITICAL)");
    expect(withValue("-actor.id:a x", "actor.id", "b", true)).toBe("-actor.id:(a OR b) x");
    expect(withValue("related.id:a", "related.id", "b", false)).toBe("related.id:a related.id:b");
  });

  test("keeps alternatives at the top together", () => {
    expect(withValue("alice OR bob", "action", "x", false)).toBe("(alice OR bob) action:x");
  });
});

describe("taking away", () => {
  test("removes a clause with the AND in front of it", () => {
    const query = "a AND b:c AND d";
    const clauses = clausesOf(query) ?? [];
    expect(clauses.map((each) => withoutClause(query, each))).toEqual(["b:c AND d", "a AND d", "a AND b:c"]);
  });

  test("removes one of several values", () => {
    expect(withoutValue("x action:(a OR b) y", "action", "a")).toBe("x action:b y");
    expect(withoutValue("x action:a y", "action", "a")).toBe("x y");
  });

  test("turns a clause into its opposite and back", () => {
    const [clause] = clausesOf("action:a") ?? [];
    if (!clause) throw new Error("no clause");
    const turned = withOpposite("action:a", clause);
    expect(turned).toBe("-action:a");
    expect(standingOf(clausesOf(turned), "action", "a")).toBe(-1);
  });
});
