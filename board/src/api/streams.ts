/** Streams of a log: tickets, and addresses of a stream. */
import { Problem, type Query, request, send, withQuery } from "./client.ts";

const STREAM = "/api/v1/logs/stream";

/** Make a ticket that opens one stream of this tab's identity, once. */
export async function makeTicket(): Promise<string> {
  return (await request<{ ticket: string }>(`${STREAM}/tickets`, { method: "POST" })).ticket;
}

/** Open a stream by its ticket. Without `after` it begins with the next new record. */
export function openStream(ticket: string, query: Query, after: string | null): EventSource {
  return new EventSource(withQuery(STREAM, { ...query, after, ticket }));
}

/** Return why the API refuses a stream, which an EventSource does not say; null where it opens one. */
export async function streamRefusal(query: Query, after: string | null): Promise<Problem | null> {
  const asking = new AbortController();
  const headers = { Accept: "text/event-stream" };
  try {
    await send(STREAM, { query: { ...query, after }, headers, signal: asking.signal });
    return null;
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  } finally {
    asking.abort();
  }
}
