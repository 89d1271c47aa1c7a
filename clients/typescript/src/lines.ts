/** Lines of an answer while it arrives, and the events of a stream in them. */
import { Unreachable } from "./errors.ts";
import { reason } from "./http.ts";

/** A longer line is no record: the server bounds a record to 4 MiB, and escapes at most double that. */
const LINE_CHARS_MAX = 64 * 1024 * 1024;

export interface ServerSentEvent {
  name: string;
  data: string;
  /** The last id that the stream sent. */
  id: string | null;
}

/** Yield whole lines, without their ends. A rest without an end is not a line.
 *
 * Throws Unreachable if the transfer breaks, or nothing arrives for `silenceMs`; a slow consumer does not count as silence.
 */
export async function* lines(response: Response, silenceMs: number, signal?: AbortSignal): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await arriving(reader, silenceMs, signal);
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop() as string;
      if (rest.length > LINE_CHARS_MAX) throw new Unreachable("The answer has a line that is too long.");
      for (const part of parts) yield part.endsWith("\r") ? part.slice(0, -1) : part;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function arriving(reader: ReadableStreamDefaultReader<Uint8Array>, silenceMs: number, signal?: AbortSignal) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let abort = () => {};
  const ended = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing arrived within ${silenceMs} ms`)), silenceMs);
    abort = () => reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
  });
  try {
    signal?.throwIfAborted();
    return await Promise.race([reader.read(), ended]);
  } catch (error) {
    signal?.throwIfAborted();
    throw new Unreachable(`The answer broke off: ${reason(error)}.`, { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** Yield the events of a stream (WHATWG HTML, section 9.2.6). An event that was not ended by an empty line is none. */
export async function* serverSentEvents(source: AsyncIterable<string>): AsyncGenerator<ServerSentEvent> {
  let name = "";
  let data: string[] = [];
  let id: string | null = null;
  for await (const line of source) {
    if (line === "") {
      if (data.length > 0) yield { name: name || "message", data: data.join("\n"), id };
      name = "";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
  }
}
