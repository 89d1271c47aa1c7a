import { Kbd, Modal, Table, Title } from "@mantine/core";
import classes from "./help.module.css";
import { type Binding, useBindings, useKey } from "./keys.tsx";

function byGroup(bindings: Binding[]): Map<string, Binding[]> {
  const groups = new Map<string, Binding[]>();
  for (const each of bindings) {
    const known = groups.get(each.group) ?? [];
    if (!known.some((other) => other.keys === each.keys)) groups.set(each.group, [...known, each]);
  }
  return groups;
}

/** The dialog of `?`: every key that works on this page. */
export function KeyHelp({ opened, onToggle }: { opened: boolean; onToggle: (opened: boolean) => void }) {
  const bindings = useBindings();
  useKey("?", "Show the keys", () => onToggle(!opened), { group: "Everywhere" });
  return (
    <Modal opened={opened} onClose={() => onToggle(false)} title="Keys" size="lg">
      {[...byGroup(bindings)].map(([group, each]) => (
        <section key={group} className={classes.group}>
          <Title order={3} size="h6">
            {group}
          </Title>
          <Table verticalSpacing={4} aria-label={group}>
            <Table.Tbody>
              {each.map((binding) => (
                <Table.Tr key={binding.keys}>
                  <Table.Td className={classes.keys}>
                    {binding.keys.split(" ").map((key) => (
                      <Kbd key={key}>{key}</Kbd>
                    ))}
                  </Table.Td>
                  <Table.Td>{binding.description}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </section>
      ))}
    </Modal>
  );
}
