import { describe, expect, test } from "vitest";
import { DEFAULT_COLUMNS } from "./columns.ts";
import { parseView, writtenView } from "./view.ts";

describe("the address of a view", () => {
  test("leaves defaults out", () => {
    expect(writtenView(parseView(""))).toBe("");
  });

  test.each([
    'q=action%3A"a+b"&range=24h&sort=occurred_at&columns=seq%2Caction%2Cmetadata.reason&seq=17',
    "range=all",
    "q=%3Cscript%3E",
  ])("keeps %s", (search) => {
    const view = parseView(search);
    expect(parseView(writtenView(view))).toEqual(view);
    expect(new URLSearchParams(writtenView(view)).toString()).toBe(new URLSearchParams(search).toString());
  });

  test("has the default where it is not understood", () => {
    expect(parseView("range=soon&sort=up&columns=nope,__proto__&seq=-1")).toEqual(parseView(""));
    expect(parseView("").columns).toBe(DEFAULT_COLUMNS);
    expect(parseView("", ["seq"]).columns).toEqual(["seq"]);
  });
});
