/** Files of the page that cannot be loaded: a newer build took their place, or the connection broke. */

const RELOADED = "decklog.reloaded";
const PAUSE_MILLISECONDS = 30_000;

/** Load the page anew where a file of it is lost, but not again and again: then the screen shows the error. */
export function reloadOnLostFiles(): void {
  window.addEventListener("vite:preloadError", () => {
    const last = Number(sessionStorage.getItem(RELOADED) ?? 0);
    if (Date.now() - last < PAUSE_MILLISECONDS) return;
    sessionStorage.setItem(RELOADED, String(Date.now()));
    location.reload();
  });
}
