/** The public names of `@decklog/client`. */
export { Decklog, type DecklogOptions } from "./client.ts";
export { Closed, NotCommitted, Problem, QueueFull, Refused, Unreachable } from "./errors.ts";
export type { Key } from "./http.ts";
export type { WhenFull } from "./queue.ts";
export type { Followed, FollowOptions, Parse, ReadOptions, Results } from "./reading.ts";
export type { CommitOptions, Refusal, SenderOptions, Stats, Stored } from "./sender.ts";
export type {
  ExportParameters,
  Fault,
  Page,
  ProblemDocument,
  Receipt,
  RecordInput,
  SearchParameters,
  StoredRecord,
  StreamParameters,
} from "./types.ts";
