/** The look of the board: ink on paper. Colours and sizes stand in `tokens.css`; no style is injected, as the page's policy forbids it. */
import { createTheme, Drawer, Menu, Modal, Tooltip } from "@mantine/core";

const CLOSE = { "aria-label": "Close" };
/** The header of a dialog is no banner: the page has one. */
const PLAIN_HEADER = { header: { role: "presentation" } };

export const theme = createTheme({
  primaryColor: "blue",
  cursorType: "pointer",
  respectReducedMotion: true,
  components: {
    // Locking of the scroll position would inject a style element.
    Drawer: Drawer.extend({ defaultProps: { lockScroll: false, closeButtonProps: CLOSE, attributes: PLAIN_HEADER } }),
    Modal: Modal.extend({
      defaultProps: { lockScroll: false, centered: true, closeButtonProps: CLOSE, attributes: PLAIN_HEADER },
    }),
    Menu: Menu.extend({ defaultProps: { shadow: "md" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, withArrow: true } }),
  },
});
