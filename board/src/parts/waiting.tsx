import { Skeleton, Stack, VisuallyHidden } from "@mantine/core";

/** The place of a list that is being read. */
export function Waiting({ rows = 4 }: { rows?: number }) {
  return (
    <Stack gap="xs" role="status">
      <VisuallyHidden>Loading</VisuallyHidden>
      {Array.from({ length: rows }, (_, row) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the rows are alike
        <Skeleton key={row} height={34} />
      ))}
    </Stack>
  );
}
