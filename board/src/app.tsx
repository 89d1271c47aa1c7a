/** The board: who is signed in decides between the sign-in page and the screens. */
import { Center, Loader, MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { Router } from "wouter";
import { Problem } from "./api/client.ts";
import { setSession, useSignedIn } from "./api/session.ts";
import { loadSession, type Refused, signInWithLink, takeLinkCode, takeRefusal } from "./api/signing.ts";
import { KeysProvider } from "./keys/keys.tsx";
import { ProblemNotice } from "./parts/notices.tsx";
import { Shell } from "./shell.tsx";
import { theme } from "./theme/theme.ts";

const SignIn = lazy(() => import("./screens/signin/index.tsx"));

/** A refused session ends the page's own idea of it, so that the sign-in page appears. */
function onError(error: unknown): void {
  if (error instanceof Problem && error.code === "unauthenticated") setSession(null);
}

const queries = new QueryClient({
  queryCache: new QueryCache({ onError }),
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      refetchOnWindowFocus: false,
      retry: (count, error) => count < 2 && error instanceof Problem && (error.status === 0 || error.status === 503),
    },
  },
});

function Start() {
  const { session, ending } = useSignedIn();
  const [failure, setFailure] = useState<unknown>(null);
  const [refused, setRefused] = useState<Refused | null>(null);

  const load = useCallback(async () => {
    setFailure(null);
    const code = takeLinkCode();
    const refusal = takeRefusal();
    if (refusal !== null) setRefused({ provider: refusal });
    try {
      if (code !== null) {
        await signInWithLink(code).catch(async (error) => {
          setRefused({ link: error instanceof Error ? error.message : String(error) });
          await loadSession();
        });
      } else {
        await loadSession();
      }
    } catch (error) {
      setFailure(error);
    }
  }, []);

  useEffect(() => {
    void load();
    // A link that is opened in a tab that shows the board changes only the part behind `#`.
    const changed = () => location.hash.includes("link=") && void load();
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, [load]);

  if (failure !== null) {
    return (
      <Center mih="100vh" p="md">
        <ProblemNotice error={failure} onRetry={load} />
      </Center>
    );
  }
  if (session === undefined) return <Waiting />;
  return (
    <Suspense fallback={<Waiting />}>{session ? <Shell /> : <SignIn refused={refused} ending={ending} />}</Suspense>
  );
}

function Waiting() {
  return (
    <Center mih="100vh">
      <Loader aria-label="Loading" />
    </Center>
  );
}

export function App() {
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto" withCssVariables={false} withGlobalClasses={false}>
      <QueryClientProvider client={queries}>
        <KeysProvider>
          <Router base="/board">
            <Start />
          </Router>
        </KeysProvider>
        <Notifications position="bottom-right" />
      </QueryClientProvider>
    </MantineProvider>
  );
}
