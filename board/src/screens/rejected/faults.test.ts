// @vitest-environment node
import { expect, test } from "vitest";
import { Problem } from "../../api/client.ts";
import { faultsOf, jsonFault, readable } from "./faults.ts";

test("the faults of a refusal are told with their fields", () => {
  const errors = [{ path: "actor.id", message: "missing" }, { path: "", message: "too deep" }, null, { path: "x" }];
  expect(faultsOf(new Problem(422, { code: "invalid-record", errors }))).toEqual(["actor.id: missing", "too deep"]);
  expect(faultsOf(new Problem(409, { code: "id-conflict" }))).toEqual([]);
  expect(faultsOf(new Error("x"))).toEqual([]);
});

test("kept content is indented without changing a digit", () => {
  expect(readable('{"n":1180591620717411303424,"x":1.0}')).toBe('{\n  "n": 1180591620717411303424,\n  "x": 1.0\n}');
  expect(readable("{oops")).toBe("{oops");
});

test("a mended record must be a JSON object before it is sent", () => {
  expect(jsonFault('{"action":"a"}')).toBeNull();
  expect(jsonFault("[1]")).toBe("A record is a JSON object.");
  expect(jsonFault("{")).not.toBeNull();
});
