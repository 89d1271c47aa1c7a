/** The frame around every screen: navigation, the identity in use, colour scheme, keys. */
import {
  ActionIcon,
  Burger,
  Group,
  Kbd,
  Loader,
  Menu,
  NavLink,
  Select,
  Text,
  Tooltip,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { Keyboard, LogOut, Moon, Sun, UserRound } from "lucide-react";
import { Suspense, useEffect, useRef, useState } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";
import { can, chooseIdentity, type Identity, useIdentity, useSignedIn } from "./api/session.ts";
import { signOut } from "./api/signing.ts";
import { KeyHelp } from "./keys/help.tsx";
import { useKey } from "./keys/keys.tsx";
import { ErrorBoundary } from "./parts/boundary.tsx";
import { SCREENS, type Screen } from "./screens/screens.ts";
import classes from "./shell.module.css";
import mark from "./theme/mark.svg";

const GROUPS = ["Explore", "Evidence", "Manage"] as const;

function screensOf(identity: Identity): Screen[] {
  return SCREENS.filter(
    (each) => each.permission === null || [each.permission].flat().some((permission) => can(identity, permission)),
  );
}

function nameOf(identity: Identity): string {
  return `${identity.display_name ?? identity.tenant ?? "Platform"} · ${identity.role}`;
}

/** Choose among the identities of the session; a list of one is a label. */
function IdentityChoice({ label }: { label: string }) {
  const { session } = useSignedIn();
  const identity = useIdentity();
  const queries = useQueryClient();
  const identities = session?.identities ?? [];
  if (identities.length < 2) {
    return (
      <Text size="sm" fw={600} truncate>
        {nameOf(identity)}
      </Text>
    );
  }
  return (
    <Select
      size="xs"
      aria-label={label}
      className={classes.identity}
      data={identities.map((each) => ({ value: each.id, label: nameOf(each) }))}
      value={identity.id}
      allowDeselect={false}
      searchable
      onChange={(id) => {
        if (id) {
          chooseIdentity(id);
          queries.clear();
        }
      }}
    />
  );
}

function SchemeToggle() {
  // To suspend transitions, the library would write a style as HTML, which the policy of the page forbids.
  const { setColorScheme } = useMantineColorScheme({ keepTransitions: true });
  const dark = useComputedColorScheme("light") === "dark";
  const label = dark ? "Use light colours" : "Use dark colours";
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label={label}
        onClick={() => setColorScheme(dark ? "light" : "dark")}
      >
        {dark ? <Sun size={18} /> : <Moon size={18} />}
      </ActionIcon>
    </Tooltip>
  );
}

function AccountMenu() {
  const queries = useQueryClient();
  async function leave() {
    await signOut();
    queries.clear();
  }
  return (
    <Menu>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label="Account">
          <UserRound size={18} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item leftSection={<LogOut size={16} />} onClick={leave}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

/** Binds `g` and the letter of a screen; draws nothing. */
function ScreenKey({ screen }: { screen: Screen }) {
  const [, navigate] = useLocation();
  useKey(`g ${screen.chord}`, `Go to ${screen.title}`, () => navigate(screen.path), { group: "Everywhere" });
  return null;
}

function Navigation({ screens, onChoose }: { screens: Screen[]; onChoose: () => void }) {
  const [location] = useLocation();
  return (
    <nav aria-label="Screens">
      {GROUPS.map((group) => {
        const members = screens.filter((each) => each.group === group);
        if (members.length === 0) return null;
        return (
          <div key={group} className={classes.group}>
            <Text component="h2" size="xs" className={classes.groupName}>
              {group}
            </Text>
            {members.map((each) => (
              <NavLink
                key={each.path}
                component={Link}
                href={each.path}
                label={each.title}
                leftSection={<each.icon size={17} aria-hidden />}
                active={location === each.path}
                aria-current={location === each.path ? "page" : undefined}
                onClick={onChoose}
                className={classes.link}
              />
            ))}
          </div>
        );
      })}
    </nav>
  );
}

function NotFound({ screens }: { screens: Screen[] }) {
  const first = screens[0];
  return first ? (
    <Redirect to={first.path} replace />
  ) : (
    <Text>This identity has no screen: its role may not read.</Text>
  );
}

export function Shell() {
  const identity = useIdentity();
  const screens = screensOf(identity);
  const [location] = useLocation();
  const [open, { toggle, close }] = useDisclosure(false);
  const [help, setHelp] = useState(false);
  const main = useRef<HTMLElement>(null);

  // A new screen begins at its top, and with its heading next for a screen reader.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the effect belongs to the change of the place
  useEffect(() => {
    main.current?.scrollTo({ top: 0 });
  }, [location]);

  useKey("Escape", "Close the menu", close, { group: "Everywhere", when: open });

  useKey("Escape", "Close the menu", close, { group: "Everywhere", when: open });

  return (
    <div className={classes.shell}>
      <a href="#main" className={classes.skip}>
        Skip to content
      </a>
      <header className={classes.header}>
        <Group gap="sm" wrap="nowrap" className={classes.brand}>
          <Burger opened={open} onClick={toggle} className={classes.burger} size="sm" aria-label="Menu" />
          <img src={mark} alt="" width={26} height={26} />
          <Text fw={700} className={classes.name}>
            Decklog
          </Text>
          <IdentityChoice label="Identity" />
        </Group>
        <Group gap={4} wrap="nowrap">
          <Tooltip
            label={
              <>
                Keys <Kbd size="xs">?</Kbd>
              </>
            }
          >
            <ActionIcon variant="subtle" color="gray" aria-label="Keys" onClick={() => setHelp(true)}>
              <Keyboard size={18} />
            </ActionIcon>
          </Tooltip>
          <SchemeToggle />
          <AccountMenu />
        </Group>
      </header>
      <div className={`${classes.navbar} ${open ? classes.shown : ""}`}>
        <Navigation screens={screens} onChoose={close} />
      </div>
      <main id="main" ref={main} tabIndex={0} className={classes.main}>
        <ErrorBoundary key={`${location}|${identity.id}`}>
          <Suspense fallback={<Loader aria-label="Loading" />}>
            <Switch>
              {screens.map((each) => (
                <Route key={each.path} path={each.path} component={each.draw} />
              ))}
              <Route>
                <NotFound screens={screens} />
              </Route>
            </Switch>
          </Suspense>
        </ErrorBoundary>
      </main>
      {screens.map((each) => (
        <ScreenKey key={each.path} screen={each} />
      ))}
      <KeyHelp opened={help} onToggle={setHelp} />
    </div>
  );
}
