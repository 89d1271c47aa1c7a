import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./theme/tokens.css";
import { createRoot } from "react-dom/client";
import { App } from "./app.tsx";
import { reloadOnLostFiles } from "./reload.ts";

reloadOnLostFiles();
const root = document.getElementById("root");
if (root) createRoot(root).render(<App />);
