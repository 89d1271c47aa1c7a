/** The look of the board: ink on paper. Colours and sizes stand in `tokens.css`; no style is injected, as the page's policy forbids it. */
import { createTheme, Drawer, Menu, Modal, Tooltip } from "@mantine/core";

export const theme = createTheme({
  primaryColor: "blue",
  cursorType: "pointer",
  respectReducedMotion: true,
  components: {
    // Locking of the scroll position would inject a style element.
    Drawer: Drawer.extend({ defaultProps: { lockScroll: false } }),
    Modal: Modal.extend({ defaultProps: { lockScroll: false, centered: true } }),
    Menu: Menu.extend({ defaultProps: { shadow: "md" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, withArrow: true } }),
  },
});
