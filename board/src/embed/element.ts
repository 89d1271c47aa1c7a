/**
 * `<decklog-viewer src="https://decklog.example">`: shows the records of a viewer token in a frame of Decklog.
 *
 * The token is a property. It goes to the frame as a message to the exact origin of `src`, never into an address. Before the token ends,
 * the element fires `token-wanted`; the page around it sets `token` anew. Built as a classic script without imports.
 */
import type { Scheme, Show, StyleName, Told } from "./messages.ts";

(() => {
  const STYLE: readonly StyleName[] = ["accent", "background", "text", "quiet", "line", "font", "radius"];
  const SCHEMES: readonly string[] = ["auto", "light", "dark"];

  class DecklogViewer extends HTMLElement {
    static readonly observedAttributes = ["src", "scheme", "label"];
    #token = "";
    #ready = false;
    #frame: HTMLIFrameElement | null = null;
    readonly #root = this.attachShadow({ mode: "closed" });

    constructor() {
      super();
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(":host{display:block;height:32rem}iframe{border:0;width:100%;height:100%;display:block}");
      this.#root.adoptedStyleSheets = [sheet];
    }

    /** The viewer token. Reading it gives nothing back. */
    set token(token: string) {
      this.#token = token;
      this.#show();
    }

    connectedCallback(): void {
      if (Object.hasOwn(this, "token")) {
        // Set before the element was defined: the property would hide the setter.
        const token = Reflect.get(this, "token") as string;
        Reflect.deleteProperty(this, "token");
        this.token = token;
      }
      window.addEventListener("message", this.#told);
      this.#open();
    }

    disconnectedCallback(): void {
      window.removeEventListener("message", this.#told);
      this.#close();
    }

    attributeChangedCallback(name: string): void {
      if (name === "src" && this.isConnected) this.#open();
      else this.#show();
    }

    /** The origin of Decklog, null where `src` is no address by HTTP. */
    get #origin(): string | null {
      const url = URL.parse(this.getAttribute("src") ?? "", document.baseURI);
      return url && /^https?:$/.test(url.protocol) ? url.origin : null;
    }

    #close(): void {
      this.#frame?.remove();
      this.#frame = null;
      this.#ready = false;
    }

    #open(): void {
      this.#close();
      const origin = this.#origin;
      if (!origin) return;
      const frame = document.createElement("iframe");
      frame.src = `${origin}/board/embed`;
      frame.title = this.getAttribute("label") ?? "Audit log";
      frame.referrerPolicy = "no-referrer";
      frame.sandbox.add("allow-scripts", "allow-same-origin", "allow-forms");
      this.#frame = frame;
      this.#root.append(frame);
    }

    /** Send token and looks to the frame, once it has said that it is there. */
    #show(): void {
      const origin = this.#origin;
      if (!this.#ready || !this.#token || !origin) return;
      const looks = getComputedStyle(this);
      const found = STYLE.map((name) => [name, looks.getPropertyValue(`--decklog-${name}`).trim()]).filter(
        ([, value]) => value,
      );
      const scheme = this.getAttribute("scheme") ?? "auto";
      const message: Show = {
        type: "decklog:show",
        token: this.#token,
        scheme: (SCHEMES.includes(scheme) ? scheme : "auto") as Scheme,
        style: Object.fromEntries(found),
      };
      this.#frame?.contentWindow?.postMessage(message, origin);
    }

    readonly #told = (event: MessageEvent<Told | null>): void => {
      if (event.source !== this.#frame?.contentWindow || event.origin !== this.#origin) return;
      if (event.data?.type === "decklog:ready") {
        this.#ready = true;
        this.#show();
      } else if (event.data?.type === "decklog:token-wanted") {
        this.dispatchEvent(new Event("token-wanted", { bubbles: true, composed: true }));
      }
    };
  }

  if (!customElements.get("decklog-viewer")) customElements.define("decklog-viewer", DecklogViewer);
})();
