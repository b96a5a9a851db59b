export {
  AgentRuntimeClient,
  type CallOptions,
  type ClientOptions,
  type CreateRunOptions,
  type VisibilityOptions,
  type WatchOptions,
} from "./client.js";
export { ProblemError, type FieldProblem } from "./problem.js";
export { SseParser, type SseMessage } from "./sse.js";
export { RunFailedError, Transcript, type TranscriptState, type TranscriptStatus } from "./transcript.js";
export * from "./types.js";
export type { KeepUpOptions, WatchNotice } from "./watch.js";
