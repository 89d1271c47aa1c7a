/** The keyboard: one registry of the keys that work now, which the help dialog lists. */
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useRef, useState } from "react";

export interface Binding {
  /** As `KeyboardEvent.key` has it ("j", "Enter", "?"), or two keys in a row ("g s"). */
  keys: string;
  description: string;
  /** Heading of the binding in the help dialog. */
  group: string;
}

interface Registered extends Binding {
  run: (event: KeyboardEvent) => void;
  inInputs: boolean;
}

interface Registry {
  add: (binding: Registered) => () => void;
  bindings: Binding[];
}

const CHORD_MILLISECONDS = 900;
const Keys = createContext<Registry | null>(null);

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

/** Return whether the element under the focus has a use of its own for Enter or the space bar, as buttons and links do. */
function isPressed(target: EventTarget | null, key: string): boolean {
  if (key !== "Enter" && key !== " ") return false;
  return (
    target instanceof Element && target.closest('button, a[href], summary, [role="option"], [role="menuitem"]') !== null
  );
}

/** Provide the registry and listen for keys. A binding that was added last wins. */
export function KeysProvider({ children }: { children: ReactNode }) {
  const registered = useRef<Registered[]>([]);
  const [bindings, setBindings] = useState<Binding[]>([]);

  const add = useCallback((binding: Registered) => {
    registered.current = [...registered.current, binding];
    setBindings(registered.current);
    return () => {
      registered.current = registered.current.filter((each) => each !== binding);
      setBindings(registered.current);
    };
  }, []);

  useEffect(() => {
    let first = "";
    let until = 0;
    const listen = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (isPressed(event.target, event.key)) return;
      const typing = isTyping(event.target);
      const chord = event.timeStamp < until ? `${first} ${event.key}` : null;
      const wanted = [...registered.current].reverse();
      const found =
        wanted.find((each) => each.keys === chord && !typing) ??
        wanted.find((each) => each.keys === event.key && (!typing || each.inInputs));
      if (found) {
        until = 0;
        event.preventDefault();
        found.run(event);
      } else if (!typing && wanted.some((each) => each.keys.startsWith(`${event.key} `))) {
        first = event.key;
        until = event.timeStamp + CHORD_MILLISECONDS;
      }
    };
    window.addEventListener("keydown", listen);
    return () => window.removeEventListener("keydown", listen);
  }, []);

  const registry = useMemo(() => ({ add, bindings }), [add, bindings]);
  return <Keys value={registry}>{children}</Keys>;
}

function useRegistry(): Registry {
  const registry = useContext(Keys);
  if (!registry) throw new Error("KeysProvider is missing.");
  return registry;
}

export interface KeyOptions {
  group?: string;
  /** False takes the key out of the registry. */
  when?: boolean;
  /** True for a key that works while somebody types, such as Escape. */
  inInputs?: boolean;
}

/** Bind a key as long as the calling component is drawn. */
export function useKey(
  keys: string,
  description: string,
  run: (event: KeyboardEvent) => void,
  { group = "This page", when = true, inInputs = false }: KeyOptions = {},
): void {
  const { add } = useRegistry();
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    if (!when) return;
    return add({ keys, description, group, inInputs, run: (event) => latest.current(event) });
  }, [add, keys, description, group, when, inInputs]);
}

/** Return the bindings that work now. */
export function useBindings(): Binding[] {
  return useRegistry().bindings;
}
