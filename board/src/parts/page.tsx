import { Group, Text, Title } from "@mantine/core";
import { type ReactNode, useEffect } from "react";
import classes from "./page.module.css";

/** The frame of a screen: its title (also the document's), one sentence, actions, and the content. */
export function Page({
  title,
  about,
  actions,
  children,
}: {
  title: string;
  about?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = `${title} · Decklog`;
  }, [title]);
  return (
    <div className={classes.page}>
      <Group justify="space-between" align="flex-start" className={classes.head}>
        <div>
          <Title order={1} size="h3">
            {title}
          </Title>
          {about && (
            <Text size="sm" className={classes.about}>
              {about}
            </Text>
          )}
        </div>
        {actions && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </div>
  );
}
