// @vitest-environment node
import { expect, describe as group, test } from "vitest";
import { describe, hrefOf, parametersOf, queryOf } from "./places.ts";

group("a saved search opens in Search", () => {
  test("with its query, range and order", () => {
    const parameters = { q: "outcome:denied", from: "2026-01-01T00:00:00Z", sort: "occurred_at", order: "desc" };
    const address = new URL(hrefOf({ parameters }), "http://x");
    expect(address.pathname).toBe("/search");
    expect(Object.fromEntries(address.searchParams)).toEqual({
      q: "outcome:denied",
      range: "2026-01-01T00:00:00Z..",
      sort: "-occurred_at",
    });
    expect(hrefOf({ parameters: { order: "asc" } })).toBe("/search?range=all&sort=received_at");
  });

  test("with its filters as clauses of the query language", () => {
    const parameters = {
      q: "a OR b",
      actor: 'x "y"',
      action: "user.*",
      severity: ["ERROR", "CRITICAL"],
      "metadata.a b": "1",
    };
    expect(queryOf(parameters)).toBe(
      '(a OR b) actor.id:"x \\"y\\"" action:user.* severity:(ERROR OR CRITICAL) metadata.a\\ b:1',
    );
    expect(queryOf({ action: "create na*" })).toBe("action:create\\ na*");
  });

  test("or in the tail of the access log, which Search does not list", () => {
    expect(hrefOf({ parameters: { log: "access", action: "log.search" } })).toBe(
      "/live?q=action%3Alog.search&log=access",
    );
  });
});

group("what Search saves", () => {
  test("keeps a relative range relative", () => {
    const last = { kind: "last", amount: 24, unit: "h" } as const;
    expect(parametersOf({ q: "a OR b", range: last, sort: "-received_at" })).toEqual({ q: "(a OR b) since:24h" });
    expect(parametersOf({ q: "", range: last, sort: "-received_at" })).toEqual({ q: "since:24h" });
    expect(parametersOf({ q: " ", range: { kind: "all" }, sort: "-received_at" })).toEqual({});
  });

  test("keeps the ends of an absolute range, and an order", () => {
    const range = { kind: "between", from: "F", to: null } as const;
    expect(parametersOf({ q: "a", range, sort: "occurred_at" })).toEqual({ q: "a", from: "F", sort: "occurred_at" });
  });

  test("reads as one line", () => {
    expect(describe({})).toBe("All records");
    expect(describe({ q: "a", from: "F", to: "T", sort: "-occurred_at" })).toBe(
      "a, from F, until T, sorted by -occurred_at",
    );
  });
});
