import { Component, type ReactNode } from "react";
import { ProblemNotice } from "./notices.tsx";

/** Shows the error of a screen in its place, so that the rest of the page goes on working. */
export class ErrorBoundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return <ProblemNotice error={this.state.error} onRetry={() => this.setState({ error: null })} />;
  }
}
