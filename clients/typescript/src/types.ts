/** Names for the shapes that are generated from the OpenAPI document of the service. */
import type { components, operations } from "./schema.ts";

type Schemas = components["schemas"];
type Query<Name extends "export_records" | "follow"> = NonNullable<operations[Name]["parameters"]["query"]>;
type SearchBody = operations["search_records"]["requestBody"]["content"]["application/json"];

/** A record as a program sends it; `action` and `actor.id` are required. */
export type RecordInput = Schemas["RecordInput"];
/** A record as the server stored it. */
export type StoredRecord = Schemas["Record"];
/** Position of a stored record. */
export type Receipt = Schemas["Receipt"];
/** One page of a search. */
export type Page = Schemas["Page"];
/** One fault of a record: `path`, `message`, and where they help `value`, `allowed` and `meant`. */
export type Fault = Schemas["Fault"];
/** Members of a refusal. */
export type ProblemDocument = Schemas["Problem"];
export type BulkAnswer = Schemas["BulkAnswer"];
export type BulkItem = Schemas["BulkItem"];

/** Filters, order and size of pages. `q` is a query in the query language. */
export type SearchParameters = Omit<SearchBody, "query" | "cursor"> & { q?: string };
/** Filters of a stream, and `after`: the position or number of the last record that is known. */
export type StreamParameters = Omit<Query<"follow">, "ticket">;
/** Filters of an export, and `after` and `fields`. */
export type ExportParameters = Omit<Query<"export_records">, "format" | "bom">;
