// @vitest-environment node
import { expect, test } from "vitest";
import { queryOf, wantedOf, writtenWanted } from "./use-access.ts";

const NOW = Date.parse("2026-01-31T12:00:00Z");

test("what is wanted survives the address", () => {
  const wanted = { actor: "k1", action: "log.export.*", concerns: true, others: true, range: "24h" };
  expect(wantedOf(writtenWanted(wanted))).toEqual(wanted);
  expect(writtenWanted(wantedOf(new URLSearchParams("range=nonsense"))).toString()).toBe("");
});

test("filters become parameters of the list, and the own subject is quoted", () => {
  const wanted = wantedOf(new URLSearchParams("action=log.search&concerns=true&others=true&range=1h"));
  expect(queryOf(wanted, { subject: 'a"b\\c' }, NOW)).toEqual({
    log: "access",
    actor: null,
    action: "log.search",
    q: 'outcome:(denied OR failure) NOT actor.id:"a\\"b\\\\c"',
    from: "2026-01-31T11:00:00.000Z",
    to: null,
  });
});
