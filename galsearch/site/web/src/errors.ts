/** What a person is told: what is wrong, and what helps. Everything else that is thrown is a mistake of ours. */
export class SiteError extends Error {
  override name = "SiteError";
}

/** What is wrong with a condition in SQL: it is told beside the box. */
export class ConditionError extends SiteError {
  override name = "ConditionError";
}

/** Thrown where somebody no longer waits. */
export class Canceled extends Error {
  override name = "Canceled";
}

/** Return what to tell of anything that was thrown. */
export function told(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  return String(error);
}
