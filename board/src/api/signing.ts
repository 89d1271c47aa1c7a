/** Sign in and out. */
import { Problem, request } from "./client.ts";
import { type Session, setSession } from "./session.ts";

/** The reason why a sign-in did not work: the server's words about a link, or the code of a problem at the provider. */
export type Refused = { link: string } | { provider: string };

/** Ask who is signed in. A server that cannot be reached throws. */
export async function loadSession(): Promise<void> {
  try {
    setSession(await request<Session>("/api/v1/session"));
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    setSession(null);
  }
}

/** Sign in with a key or a token, which is sent once and not kept. */
export async function signInWithKey(key: string): Promise<void> {
  const headers = { Authorization: `Bearer ${key.trim()}` };
  setSession(await request<Session>("/api/v1/sessions", { method: "POST", body: {}, headers }));
}

/** Sign in with the code of a one-time link. */
export async function signInWithLink(code: string): Promise<void> {
  setSession(await request<Session>("/api/v1/sessions", { method: "POST", body: { link: code } }));
}

export async function signOut(): Promise<void> {
  await request("/api/v1/session", { method: "DELETE" });
  setSession(null, "left");
}

/** Facts that the board may know before sign-in. */
export interface BoardConfig {
  version: string;
  /** The provider of single sign-on; null where there is none. */
  oidc: { name: string } | null;
}

export function loadConfig(signal: AbortSignal): Promise<BoardConfig> {
  return request<BoardConfig>("/board/config.json", { signal });
}

/** Take the code of a one-time link out of the address, so that neither history nor a bookmark keeps it. */
export function takeLinkCode(): string | null {
  return takeFromFragment("link");
}

/** Take the code of the problem that ended a sign-in at a provider out of the address. */
export function takeRefusal(): string | null {
  return takeFromFragment("refused");
}

function takeFromFragment(name: string): string | null {
  const found = new URLSearchParams(location.hash.slice(1)).get(name);
  if (found !== null) history.replaceState(null, "", location.pathname + location.search);
  return found;
}
