import { cleanup, fireEvent, render } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { KeysProvider, useKey } from "./keys.tsx";

afterEach(cleanup);

function Bound({ keys, run, inInputs = false }: { keys: string; run: () => void; inInputs?: boolean }) {
  useKey(keys, "does it", run, { inInputs });
  return null;
}

test("a key runs its binding, but not while somebody types", () => {
  const run = vi.fn();
  const leave = vi.fn();
  const { getByLabelText } = render(
    <KeysProvider>
      <Bound keys="j" run={run} />
      <Bound keys="Escape" run={leave} inInputs />
      <input aria-label="query" />
    </KeysProvider>,
  );
  fireEvent.keyDown(document.body, { key: "j" });
  fireEvent.keyDown(getByLabelText("query"), { key: "j" });
  fireEvent.keyDown(document.body, { key: "j", ctrlKey: true });
  expect(run).toHaveBeenCalledTimes(1);
  fireEvent.keyDown(getByLabelText("query"), { key: "Escape" });
  expect(leave).toHaveBeenCalledTimes(1);
});

test("two keys in a row run a chord, and the binding that was added last wins", () => {
  const first = vi.fn();
  const last = vi.fn();
  const plain = vi.fn();
  render(
    <KeysProvider>
      <Bound keys="g s" run={first} />
      <Bound keys="g s" run={last} />
      <Bound keys="s" run={plain} />
    </KeysProvider>,
  );
  fireEvent.keyDown(document.body, { key: "g" });
  fireEvent.keyDown(document.body, { key: "s" });
  expect([first, last, plain].map((each) => each.mock.calls.length)).toEqual([0, 1, 0]);
  fireEvent.keyDown(document.body, { key: "s" });
  expect(plain).toHaveBeenCalledTimes(1);
});

test("Enter and the space bar press the button that has the focus, and run no binding", () => {
  const run = vi.fn();
  const { getByText } = render(
    <KeysProvider>
      <Bound keys="Enter" run={run} />
      <Bound keys=" " run={run} />
      <button type="button">press</button>
    </KeysProvider>,
  );
  for (const key of ["Enter", " "]) {
    expect(fireEvent.keyDown(getByText("press"), { key })).toBe(true);
    expect(run).not.toHaveBeenCalled();
  }
  fireEvent.keyDown(document.body, { key: "Enter" });
  expect(run).toHaveBeenCalledTimes(1);
});

test("a binding ends with its component", () => {
  const run = vi.fn();
  const { rerender } = render(
    <KeysProvider>
      <Bound keys="x" run={run} />
    </KeysProvider>,
  );
  rerender(<KeysProvider>{null}</KeysProvider>);
  fireEvent.keyDown(document.body, { key: "x" });
  expect(run).not.toHaveBeenCalled();
});
