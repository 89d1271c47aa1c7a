/** Every screen of the board: its place, its name, who may open it, and the chunk that draws it. */
import {
  Bookmark,
  Building2,
  CalendarDays,
  Download,
  Eye,
  FileX2,
  KeyRound,
  type LucideIcon,
  MessageCircleQuestion,
  MonitorSmartphone,
  Radio,
  ScrollText,
  Search,
} from "lucide-react";
import { type ComponentType, type LazyExoticComponent, lazy } from "react";
import type { Permission } from "../api/session.ts";

export interface Screen {
  /** Path below `/board`. */
  path: string;
  title: string;
  icon: LucideIcon;
  group: "Explore" | "Evidence" | "Manage";
  /** Permission that an identity needs, or several of which one is enough. */
  permission: Permission | readonly Permission[] | null;
  /** Second key of the chord that opens the screen, after `g`. */
  chord: string;
  draw: LazyExoticComponent<ComponentType>;
}

/** Declare a screen; `load` imports its module, whose default export draws it. */
export function screen(facts: Omit<Screen, "draw">, load: () => Promise<{ default: ComponentType }>): Screen {
  return { ...facts, draw: lazy(load) };
}

export const SCREENS: Screen[] = [
  screen(
    { path: "/search", title: "Search", icon: Search, group: "Explore", permission: "read", chord: "s" },
    () => import("./search/index.tsx"),
  ),
  screen(
    { path: "/ask", title: "Ask", icon: MessageCircleQuestion, group: "Explore", permission: "read", chord: "q" },
    () => import("./ask/index.tsx"),
  ),
  screen(
    { path: "/story", title: "Story", icon: ScrollText, group: "Explore", permission: "read", chord: "y" },
    () => import("./story/index.tsx"),
  ),
  screen(
    { path: "/live", title: "Live", icon: Radio, group: "Explore", permission: "read", chord: "l" },
    () => import("./live/index.tsx"),
  ),
  screen(
    {
      path: "/access",
      title: "Access",
      icon: Eye,
      group: "Evidence",
      permission: ["read", "read-platform-log"],
      chord: "a",
    },
    () => import("./access/index.tsx"),
  ),
  screen(
    { path: "/exports", title: "Exports", icon: Download, group: "Evidence", permission: "read", chord: "e" },
    () => import("./exports/index.tsx"),
  ),
  screen(
    { path: "/rejected", title: "Rejected", icon: FileX2, group: "Evidence", permission: "manage", chord: "r" },
    () => import("./rejected/index.tsx"),
  ),
  screen(
    { path: "/saved", title: "Saved searches", icon: Bookmark, group: "Explore", permission: "read", chord: "v" },
    () => import("./saved/index.tsx"),
  ),
  screen(
    { path: "/retention", title: "Retention", icon: CalendarDays, group: "Evidence", permission: "read", chord: "n" },
    () => import("./retention/index.tsx"),
  ),
  screen(
    { path: "/tenants", title: "Tenants", icon: Building2, group: "Manage", permission: null, chord: "t" },
    () => import("./tenants/index.tsx"),
  ),
  screen(
    { path: "/keys", title: "Keys", icon: KeyRound, group: "Manage", permission: "manage", chord: "k" },
    () => import("./keys/index.tsx"),
  ),
  screen(
    { path: "/sessions", title: "Sessions", icon: MonitorSmartphone, group: "Manage", permission: null, chord: "o" },
    () => import("./sessions/index.tsx"),
  ),
];
