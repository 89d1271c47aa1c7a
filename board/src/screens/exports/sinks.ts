/** Where the bytes of an export go: into a file that the browser writes as they come, or into memory and then into a download. */

export interface Sink {
  write: (bytes: Uint8Array) => Promise<void>;
  /** Complete the file. */
  close: () => Promise<void>;
  /** Leave no file behind, where the browser can. */
  abort: () => Promise<void>;
}

/** Bytes that are held in memory, where the browser cannot write into a file. */
export const MEMORY_MAX = 256 * 1024 * 1024;

export class TooLargeError extends Error {
  constructor() {
    super(
      "The file is larger than 256 MiB, which is the most that this browser may hold. Export with curl, or a shorter time.",
    );
  }
}

interface Writable {
  write: (bytes: Uint8Array) => Promise<void>;
  close: () => Promise<void>;
  abort: () => Promise<void>;
}
interface Picking {
  showSaveFilePicker?: (options: { suggestedName: string }) => Promise<{ createWritable: () => Promise<Writable> }>;
}

export function writesFiles(): boolean {
  return typeof (window as Picking).showSaveFilePicker === "function";
}

/** Ask where to write. Returns null where the person thinks better of it. Must be called by a click. */
export async function pickFile(name: string): Promise<Sink | null> {
  try {
    const file = await (window as Picking).showSaveFilePicker?.({ suggestedName: name });
    return file ? await file.createWritable() : null;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return null;
    throw error;
  }
}

/** A sink in memory, whose file the browser downloads when it is complete. */
export function memorySink(name: () => string, most: number = MEMORY_MAX): Sink {
  let parts: BlobPart[] = [];
  let size = 0;
  return {
    write: async (bytes) => {
      size += bytes.length;
      if (size > most) throw new TooLargeError();
      parts.push(bytes.slice());
    },
    close: async () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(parts));
      link.download = name();
      link.click();
      parts = [];
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    abort: async () => {
      parts = [];
    },
  };
}

/** Compress what is written with gzip. */
export function gzipped(inner: Sink): Sink {
  const coding = new CompressionStream("gzip");
  const writer = coding.writable.getWriter();
  const reader = coding.readable.getReader();
  let failure: unknown = null;
  const pumped = (async () => {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) await inner.write(piece.value);
  })().catch((error: unknown) => {
    failure = error;
    void writer.abort(error).catch(() => undefined);
  });
  const check = () => {
    if (failure) throw failure;
  };
  return {
    write: async (bytes) => {
      check();
      await writer.write(bytes as Uint8Array<ArrayBuffer>).catch((error: unknown) => {
        throw failure ?? error;
      });
    },
    close: async () => {
      check();
      await writer.close();
      await pumped;
      check();
      await inner.close();
    },
    abort: async () => {
      await writer.abort().catch(() => undefined);
      await inner.abort();
    },
  };
}
