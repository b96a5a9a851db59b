/** One field at fault. */
export interface FieldProblem {
  /** Path of the field, with dots. */
  field: string;
  detail: string;
}

/** An error that the API answered with: problem details, RFC 9457. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  /** A URI that names the kind of problem. */
  readonly type: string;
  /** The HTTP status in words. */
  readonly title: string;
  readonly status: number;
  /** One sentence for a person; `message` is the same. */
  readonly detail: string;
  /** What a program switches on, such as `RUN_NOT_FOUND`; `HTTP_502` and the like where something else than the API answered. */
  readonly code: string;
  /** Names the request in the log of the site; empty where something else than the API answered. */
  readonly request_id: string;
  /** Each field at fault, where the request did not fit. */
  readonly errors: readonly FieldProblem[];
  /** After how many seconds another try could succeed, if the answer said so. */
  readonly retryAfterSeconds: number | undefined;
  /** The whole body, with the members that only some problems have. */
  readonly body: Readonly<Record<string, unknown>>;

  constructor(body: Readonly<Record<string, unknown>>, fallback: { status: number; title?: string; retryAfterSeconds?: number | undefined }) {
    const status = typeof body.status === "number" ? body.status : fallback.status;
    const title = textOf(body.title) || fallback.title || `HTTP ${status}`;
    const detail = textOf(body.detail) || title;
    super(detail);
    this.type = textOf(body.type) || "about:blank";
    this.title = title;
    this.status = status;
    this.detail = detail;
    this.code = textOf(body.code) || `HTTP_${status}`;
    this.request_id = textOf(body.request_id);
    this.errors = Array.isArray(body.errors) ? (body.errors as FieldProblem[]) : [];
    this.retryAfterSeconds = fallback.retryAfterSeconds;
    this.body = body;
  }

  /** Whether the same request could succeed later: the site or what stands before it is busy, away or slow. */
  get isTransient(): boolean {
    return this.status === 408 || this.status === 425 || this.status === 429 || (this.status >= 500 && this.status !== 501);
  }

  /** The error that an answer is, whoever made it: a proxy's page of HTML has no members. */
  static async fromResponse(response: Response): Promise<ProblemError> {
    let body: unknown;
    try {
      body = JSON.parse(await response.text());
    } catch {
      body = undefined;
    }
    return new ProblemError(isObject(body) ? body : {}, {
      status: response.status,
      title: response.statusText,
      retryAfterSeconds: readRetryAfter(response.headers.get("Retry-After")),
    });
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** Seconds, from either form that the header has. */
function readRetryAfter(value: string | null): number | undefined {
  if (!value) return undefined;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}
