import { describe, expect, test } from "vitest";
import { completed, knownValues, nameOptions, placeAt, valueOptions } from "./completion.ts";

/** Reads a text whose caret is a `|`. */
function at(marked: string) {
  const caret = marked.indexOf("|");
  return placeAt(marked.replace("|", ""), caret);
}

describe("placeAt", () => {
  test.each([
    ["|", "name", "", ""],
    ["act|", "name", "act", ""],
    ["-act|", "name", "act", ""],
    ["x act|ion", "name", "act", ""],
    ["action:|", "value", "", "action"],
    ["action:us|", "value", "us", "action"],
    ["-actor:al|", "value", "al", "actor.id"],
    ['action:"a b|', "value", '"a b', "action"],
    ["severity:(ERROR OR CR|)", "value", "CR", "severity"],
    ["severity:(|)", "value", "", "severity"],
    ["(a OR act|)", "name", "act", ""],
    ["action:x |", "name", "", ""],
    ["metadata.tag\\ keys:|", "value", "", "metadata.tag keys"],
  ])("%s", (marked, kind, typed, field) => {
    expect(at(marked)).toMatchObject({ kind, typed, field });
  });
});

describe("options", () => {
  test("names that begin with the text come before names that hold it", () => {
    const labels = nameOptions("id", ["metadata.bid"]).map((each) => each.label);
    expect(labels[0]).toBe("id");
    expect(labels).toContain("metadata.bid");
    expect(labels).toContain("actor.id");
  });

  test("operators are offered in capitals", () => {
    expect(nameOptions("an", []).map((each) => each.insert)).toContain("AND ");
  });

  test("values are written in quotes where they need them, with their counts", () => {
    expect(
      valueOptions("sts", [
        { value: "sts:AssumeRole", count: 1200 },
        { value: "x", count: 1 },
      ]),
    ).toEqual([{ insert: '"sts:AssumeRole" ', label: "sts:AssumeRole", about: "1,200", open: false }]);
  });

  test("choices are known, other values are not", () => {
    expect(knownValues("outcome", "2026-01-01", [])?.map((each) => each.label)).toEqual([
      "success",
      "failure",
      "denied",
      "unknown",
    ]);
    expect(knownValues("occurred_at", "2026-01-01", [])?.[0]?.label).toBe("2026-01-01");
    expect(knownValues("actor.id", "2026-01-01", [])).toBeNull();
  });

  test("a choice replaces what is typed, and leaves one blank", () => {
    expect(completed("x act y", { kind: "name", from: 2, to: 5, typed: "act", field: "" }, "action:")).toEqual({
      text: "x action: y",
      caret: 9,
    });
    expect(completed("action:us y", at("action:us| y"), "user ")).toEqual({ text: "action:user y", caret: 11 });
  });
});
