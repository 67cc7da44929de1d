// A condition in SQL is checked before the engine sees it: one expression, nothing that reads, writes or never ends.
import { ConditionError } from "./errors.ts";
import { MOST_WHERE } from "./query.ts";

const FORBIDDEN = new Set(
  ("select from with union intersect except values table insert update delete merge create alter drop attach detach use copy export import install load " +
    "pragma set reset call prepare execute deallocate explain analyze vacuum checkpoint begin commit rollback describe summarize show pivot unpivot " +
    "window over qualify recursive exists into returning").split(" "),
);
// What may be called: numbers, texts, dates. What builds endless values, runs text as SQL or tells of the machine is not here.
const FUNCTIONS = new Set(
  ("abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees exp floor fmod gamma greatest isfinite isinf isnan least lgamma ln log log10 log2 mod pi " +
    "pow power radians round sign sin sqrt tan trunc bit_count xor hash if ifnull nullif coalesce typeof " +
    "ascii char_length chr concat concat_ws contains damerau_levenshtein ends_with hamming instr jaccard jaro_similarity jaro_winkler_similarity lcase left " +
    "length len levenshtein lower ltrim prefix position regexp_extract regexp_full_match regexp_matches regexp_replace replace reverse right rtrim split_part " +
    "starts_with strip_accents strlen strpos substr substring suffix trim ucase unicode upper " +
    "date_part date_diff date_trunc day hour make_date make_timestamp minute month second year dayofyear epoch strftime strptime " +
    "list_contains list_has list_position array_contains separation_arcsec").split(" "),
);
const OPERATORS = new Set("and or not in between like ilike case when then else is cast try_cast similar to escape any all interval as decimal numeric varchar".split(" "));

interface Token {
  kind: "word" | "quoted" | "text" | "number" | "sign";
  text: string;
  at: number;
}

/** Return the condition as it goes to the engine; ConditionError with what is wrong with it. */
export function checkedCondition(text: string): string {
  const where = text.trim();
  if (!where) throw new ConditionError("The condition is empty. Write one such as z < 0.05 AND mag_r < 17.");
  if (where.length > MOST_WHERE) throw new ConditionError(`The condition has ${where.length} characters, at most ${MOST_WHERE} are taken.`);
  const tokens = tokensOf(where);
  let depth = 0;
  tokens.forEach((token, n) => {
    if (token.text === "(" || token.text === "[") depth++;
    if (token.text === ")" || token.text === "]") depth--;
    if (depth < 0) throw new ConditionError("A bracket closes that was not opened.");
    if (depth > 60) throw new ConditionError("The condition is nested too deeply; at most 60 brackets may be open at once.");
    if (token.kind === "sign" && token.text === ";") throw new ConditionError("Only one condition is taken, without “;”.");
    if (token.kind === "sign" && /[{}\\$?]/.test(token.text)) throw new ConditionError(`“${token.text}” does not belong in a condition.`);
    const called = tokens[n + 1]?.text === "(";
    if (token.kind === "word" && FORBIDDEN.has(token.text.toLowerCase())) {
      const fix = token.text.toLowerCase() === "from" ? "x IS DISTINCT FROM y is written as x <> y here" : "write what a galaxy must have, such as z < 0.05";
      throw new ConditionError(`“${token.text}” does not belong in a condition: ${fix}.`);
    }
    const name = token.text.toLowerCase();
    if (called && (token.kind === "word" || token.kind === "quoted") && !FUNCTIONS.has(name) && !(token.kind === "word" && OPERATORS.has(name))) {
      throw new ConditionError(`The function “${token.text}” is not available in a condition.`);
    }
  });
  if (depth) throw new ConditionError("A bracket is not closed.");
  return where;
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < text.length; ) {
    const rest = text.slice(at);
    const sign = text[at]!;
    if (/\s/.test(sign)) {
      at++;
      continue;
    }
    if (/^(--|\/\*)/.test(rest)) throw new ConditionError("Comments are not taken in a condition.");
    if (/^e'/i.test(rest)) throw new ConditionError("Texts with escapes (e'…') are not taken; write '…' and double a quote inside it.");
    const found =
      match("text", /^'(?:[^']|'')*'/, rest) ??
      match("quoted", /^"(?:[^"]|"")*"/, rest) ??
      match("number", /^(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?/i, rest) ??
      match("word", /^[\p{L}_][\p{L}\p{N}_]*/u, rest);
    if (!found && (sign === "'" || sign === '"')) throw new ConditionError(`A quote (${sign}) is not closed.`);
    const [kind, length] = found ?? (["sign", 1] as const);
    const raw = text.slice(at, at + length);
    tokens.push({ kind, text: kind === "quoted" ? raw.slice(1, -1).replaceAll('""', '"') : raw, at });
    at += length;
  }
  return tokens;
}

function match(kind: Token["kind"], pattern: RegExp, rest: string): [Token["kind"], number] | null {
  const found = pattern.exec(rest);
  return found ? [kind, found[0].length] : null;
}
