/** The stories that a record belongs to: everything of its request, session, actor and resource. */
import type { LogRecord } from "../../api/records.ts";

export const STORY_KINDS = ["correlation_id", "session_id", "actor", "resource_id"] as const;
export type StoryKind = (typeof STORY_KINDS)[number];

export interface StoryLink {
  label: string;
  href: string;
}

/** Return the place of a story. The names of kinds are those of the parameters of a list. */
export function storyPath(kind: StoryKind, value: string, type?: string): string {
  const search = new URLSearchParams({ [kind]: value, ...(type ? { resource_type: type } : {}) });
  return `/story?${search}`;
}

export function storiesOf(record: LogRecord): StoryLink[] {
  const { resource } = record;
  return [
    ...(record.correlation_id
      ? [{ label: "This request", href: storyPath("correlation_id", record.correlation_id) }]
      : []),
    ...(record.session_id ? [{ label: "This session", href: storyPath("session_id", record.session_id) }] : []),
    { label: "This actor", href: storyPath("actor", record.actor.id) },
    ...(resource?.id ? [{ label: "This resource", href: storyPath("resource_id", resource.id, resource.type) }] : []),
  ];
}
