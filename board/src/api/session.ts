/** The session of this browser and the identity that this tab uses. No credential is kept: the cookie is out of reach of scripts. */
import { useSyncExternalStore } from "react";

export type Permission = "append" | "read" | "manage" | "list-tenants" | "create-tenants" | "read-platform-log";

export interface Identity {
  id: string;
  kind: string;
  subject: string;
  issuer: string | null;
  tenant: string | null;
  display_name: string | null;
  state: string | null;
  role: string;
  permissions: Permission[];
  expires_at: string | null;
}

export interface Session {
  id: string;
  csrf: string;
  identities: Identity[];
  created_at: string;
  last_used_at: string;
  idle_ends_at: string;
  ends_at: string;
}

/** Why there is no session any more: the person signed out, or the server refused it. */
export type Ending = "left" | "ended";

export interface SignedIn {
  /** undefined until the first answer, null where nobody is signed in. */
  session: Session | null | undefined;
  identity: Identity | null;
  /** null where there was no session in this page. */
  ending: Ending | null;
}

const CHOSEN = "decklog.identity";

let now: SignedIn = { session: undefined, identity: null, ending: null };
const listeners = new Set<() => void>();

function publish(next: SignedIn): void {
  now = next;
  for (const listener of listeners) listener();
}

export function sessionNow(): SignedIn {
  return now;
}

/** Take over the session that the API answered, or null where there is none. The tab keeps its identity if the session still has it. */
export function setSession(session: Session | null, ending: Ending = "ended"): void {
  const wanted = sessionStorage.getItem(CHOSEN);
  const identities = session?.identities ?? [];
  const identity = identities.find((each) => each.id === wanted) ?? identities[0] ?? null;
  publish({ session, identity, ending: session ? null : now.session ? ending : now.ending });
}

/** Use another identity of the session in this tab. */
export function chooseIdentity(id: string): void {
  const identity = now.session?.identities.find((each) => each.id === id);
  if (!identity) return;
  sessionStorage.setItem(CHOSEN, id);
  publish({ ...now, identity });
}

export function useSignedIn(): SignedIn {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => now,
  );
}

/** Return the identity of this tab. Only for screens, which are drawn after sign-in. */
export function useIdentity(): Identity {
  const { identity } = useSignedIn();
  if (!identity) throw new Error("This part of the board needs an identity.");
  return identity;
}

export function can(identity: Identity | null, permission: Permission): boolean {
  return identity?.permissions.includes(permission) ?? false;
}
