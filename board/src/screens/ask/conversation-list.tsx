/** The conversations of the person: open one, delete one. */
import { ActionIcon, Text } from "@mantine/core";
import { Trash2 } from "lucide-react";
import { useState } from "react";
import { type ConversationHead, useConversations, useDeleteConversation } from "../../api/asking.ts";
import { Confirm } from "../../parts/confirm.tsx";
import { ProblemNotice } from "../../parts/notices.tsx";
import { agoText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import classes from "./ask.module.css";

interface Props {
  current: string | null;
  onOpen: (id: string) => void;
  onDeleted: (id: string) => void;
}

export function ConversationList({ current, onOpen, onDeleted }: Props) {
  const found = useConversations();
  const deleting = useDeleteConversation();
  const [doomed, setDoomed] = useState<ConversationHead | null>(null);
  const items = found.data ?? [];
  return (
    <aside className={classes.side} aria-label="Conversations">
      <h2 className={classes.sideHead}>Your conversations</h2>
      {found.isPending && <Waiting rows={3} />}
      {found.isError && <ProblemNotice error={found.error} onRetry={() => void found.refetch()} />}
      {found.isSuccess && items.length === 0 && (
        <Text size="sm" c="dimmed">
          None is kept yet. Only you can read and delete yours.
        </Text>
      )}
      <ul className={classes.conversations}>
        {items.map((each) => (
          <li key={each.id} className={classes.conversation} data-current={each.id === current}>
            <button
              type="button"
              className={classes.opener}
              aria-current={each.id === current ? "true" : undefined}
              onClick={() => onOpen(each.id)}
            >
              <span className={classes.title}>{each.title}</span>
              <span className={classes.facts}>
                {each.length === 1 ? "1 question" : `${each.length} questions`}, {agoText(each.last_at)}
              </span>
            </button>
            <ActionIcon
              variant="subtle"
              color="gray"
              aria-label={`Delete the conversation ${each.title}`}
              onClick={() => setDoomed(each)}
            >
              <Trash2 size={15} />
            </ActionIcon>
          </li>
        ))}
      </ul>
      {doomed && (
        <Confirm
          title="Delete the conversation?"
          action="Delete"
          onConfirm={async () => {
            await deleting.mutateAsync(doomed.id);
            onDeleted(doomed.id);
          }}
          onClose={() => setDoomed(null)}
        >
          <Text size="sm">“{doomed.title}” is gone then. What was asked stays in the access log.</Text>
        </Confirm>
      )}
    </aside>
  );
}
