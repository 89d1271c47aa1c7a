/** Questions in plain words, and conversations of the person who asks. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { request } from "./client.ts";
import type { LogRecord } from "./records.ts";
import { useIdentity } from "./session.ts";

/** A part of a question, in characters. `meaning` is absent where the part is not understood. */
export interface Part {
  start: number;
  end: number;
  text: string;
  meaning?: string;
}

export type Expert = "find" | "count" | "compare" | "timeline" | "story" | "top";

export interface Answer {
  query: string;
  expert: Expert;
  log: "events" | "access";
  zone: string;
  understood: Part[];
  not_understood: Part[];
  answer: string;
  /** Words of a model beside the answer; empty without one. */
  comment: string;
  notes: string[];
  engine: string;
  records: LogRecord[];
  counts: { value: string; count: number }[];
  by: string | null;
  total: number | null;
  other: number;
  missing: number;
  conversation: string | null;
}

export interface Question {
  question: string;
  conversation: string | null;
  zone: string;
}

export interface Turn {
  asked_at: string;
  question: string;
  query: string;
  expert: Expert;
  log: "events" | "access";
  zone: string;
  not_understood: string[];
  answer: string;
  engine: string;
  records: number[];
}

export interface ConversationHead {
  id: string;
  title: string;
  length: number;
  started_at: string;
  last_at: string;
  ends_at: string;
}

const PATH = "/api/v1/conversations";

/** Ask a question. The records come with the answer as they are listed; the drawer reads each one again, checked. */
export function useAsk() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ conversation, ...body }: Question) =>
      request<Answer>("/api/v1/logs/ask", { method: "POST", body: conversation ? { ...body, conversation } : body }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["conversations"] }),
  });
}

export function useConversations() {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["conversations", identity.id],
    queryFn: async ({ signal }) => (await request<{ items: ConversationHead[] }>(PATH, { signal })).items,
  });
}

export function readConversation(id: string): Promise<ConversationHead & { turns: Turn[] }> {
  return request(`${PATH}/${id}`);
}

export function useDeleteConversation() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => request(`${PATH}/${id}`, { method: "DELETE" }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["conversations"] }),
  });
}
