import { afterEach, describe, expect, test, vi } from "vitest";
import { Problem, request, withQuery } from "./client.ts";
import { type Identity, type Session, setSession } from "./session.ts";

const identity: Identity = {
  id: "k1",
  kind: "api_key",
  subject: "k1",
  issuer: null,
  tenant: "acme",
  display_name: null,
  state: "active",
  role: "auditor",
  permissions: ["read"],
  expires_at: null,
};
const session: Session = {
  id: "s1",
  csrf: "proof",
  identities: [identity, { ...identity, id: "k2", tenant: "other" }],
  created_at: "2026-01-01T00:00:00Z",
  last_used_at: "2026-01-01T00:00:00Z",
  idle_ends_at: "2026-01-01T08:00:00Z",
  ends_at: "2026-01-08T00:00:00Z",
};

function answering(response: Response) {
  const fetched = vi.fn<typeof fetch>(async () => response);
  vi.stubGlobal("fetch", fetched);
  return fetched;
}

afterEach(() => {
  vi.unstubAllGlobals();
  setSession(null);
});

describe("withQuery", () => {
  test("repeats lists and leaves out what is absent", () => {
    expect(withQuery("/x", { q: "a b", severity: ["INFO", "ERROR"], after: null })).toBe(
      "/x?q=a+b&severity=INFO&severity=ERROR",
    );
    expect(withQuery("/x", {})).toBe("/x");
  });
});

describe("request", () => {
  test("carries the identity of the tab, and the proof on unsafe methods alone", async () => {
    setSession(session);
    const fetched = answering(new Response("{}"));
    await request("/api/v1/logs");
    expect(fetched.mock.calls[0]?.[1]?.headers).toEqual({ "Decklog-Identity": "k1" });
    fetched.mockResolvedValue(new Response("{}"));
    await request("/api/v1/searches", { method: "POST", body: { name: "a" } });
    expect(fetched.mock.calls[1]?.[1]?.headers).toEqual({
      "Decklog-Identity": "k1",
      "Decklog-Csrf": "proof",
      "Content-Type": "application/json",
    });
  });

  test("throws the problem of a refusal with its code, members and wait", async () => {
    const body = JSON.stringify({ code: "invalid-query", title: "Invalid query", detail: "No.", column: 4 });
    answering(new Response(body, { status: 422, headers: { "Retry-After": "5" } }));
    const error = await request("/api/v1/logs").catch((each: unknown) => each);
    expect(error).toBeInstanceOf(Problem);
    expect(error).toMatchObject({ status: 422, code: "invalid-query", retryAfter: 5, message: "No." });
    expect((error as Problem).members.column).toBe(4);
  });

  test("names a server without an answer unreachable", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("failed to fetch")));
    await expect(request("/api/v1/logs")).rejects.toMatchObject({ code: "unreachable", status: 0 });
  });
});
