// Hits as files, and the same question as code.
import type { Card, Value } from "./cards.ts";
import type { Column, Site } from "./manifest.ts";
import type { Query } from "./query.ts";

export interface Table {
  names: string[];
  columns: (Column | null)[];
  rows: Value[][];
}

/** Return hits as a table: object_id, score where there is one, the shown columns, the caption where there is one. */
export function tableOf(site: Site, cards: Card[], scores: number[] | null): Table {
  const shown = site.columns.filter((column) => column.shown && column.name !== "object_id");
  const hasCaption = cards.some((card) => card.caption);
  const names = ["object_id", ...(scores ? ["score"] : []), ...shown.map((column) => column.name), ...(hasCaption ? ["caption"] : [])];
  const of = (name: string) => site.columns.find((column) => column.name === name) ?? null;
  const rows = cards.map((card, n) => [
    card.id,
    ...(scores ? [Number(scores[n]!.toFixed(6))] : []),
    ...shown.map((column) => card.columns[column.name] ?? null),
    ...(hasCaption ? [card.caption] : []),
  ]);
  return { names, columns: names.map(of), rows };
}

/** Return a table as CSV (RFC 4180); a text that a spreadsheet would run as a formula gets an apostrophe before it. */
export function toCsv({ names, rows }: Table): string {
  const cell = (value: Value): string => {
    if (value === null) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function toJson(site: Site, query: Query, table: Table): string {
  const { terms, where, ranges, near } = query;
  const hits = table.rows.map((row) => Object.fromEntries(table.names.map((name, n) => [name, row[n]])));
  return JSON.stringify({ atlas: site.title, bundle: site.bundle?.name ?? null, sha256: site.bundle?.sha256 ?? null, query: { terms: terms.map(({ kind, value, weight }) => ({ kind, value, weight })), where, ranges, near }, hits }, null, 1);
}

const DATATYPES: [RegExp, string][] = [
  [/BOOL/i, "boolean"],
  [/BIGINT|UINTEGER/i, "long"],
  [/INT/i, "int"],
  [/DOUBLE|DECIMAL|FLOAT|REAL/i, "double"],
];

/** Return a table as VOTable 1.4, TABLEDATA. */
export function toVotable(site: Site, table: Table): string {
  const fields = table.names.map((name, n) => {
    const column = table.columns[n];
    const type = name === "score" ? "double" : (DATATYPES.find(([pattern]) => pattern.test(column?.type ?? ""))?.[1] ?? "unicodeChar");
    const size = type === "unicodeChar" ? ' arraysize="*"' : "";
    const more = [column?.unit ? ` unit="${xml(column.unit)}"` : "", column?.ucd ? ` ucd="${xml(column.ucd)}"` : ""].join("");
    const description = name === "score" ? "Cosine with the query; more is better" : column?.description;
    return { type, text: `<FIELD name="${xml(name)}" ID="c${n}" datatype="${type}"${size}${more}>${description ? `<DESCRIPTION>${xml(description)}</DESCRIPTION>` : ""}</FIELD>` };
  });
  const cell = (value: Value, n: number): string => {
    if (value === null) return fields[n]!.type === "double" ? "<TD>NaN</TD>" : "<TD/>";
    return `<TD>${xml(String(value))}</TD>`;
  };
  const rows = table.rows.map((row) => `<TR>${row.map(cell).join("")}</TR>`).join("\n");
  return `<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">
<DESCRIPTION>${xml(site.title)}, searched with ${xml(site.software)}</DESCRIPTION>
<TABLE>
${fields.map((field) => field.text).join("\n")}
<DATA><TABLEDATA>
${rows}
</TABLEDATA></DATA>
</TABLE>
</RESOURCE>
</VOTABLE>
`;
}

function xml(text: string): string {
  const clean = text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "�");
  return clean.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** Return the condition of a query in SQL, "" for none: that of the box, and those of the sliders. */
export function condition({ where, ranges }: Query): string {
  const parts = Object.entries(ranges).flatMap(([name, [low, high]]) => {
    const column = /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
    return [...(low === null ? [] : [`${column} >= ${low}`]), ...(high === null ? [] : [`${column} <= ${high}`])];
  });
  if (where) parts.push(parts.length ? `(${where})` : where);
  return parts.join(" AND ");
}

/** Return the question as Python. */
export function toPython(site: Site, query: Query, address: string): string {
  const text = (value: string) => JSON.stringify(value);
  const terms = query.terms.filter((term) => term.kind !== "image");
  const by = query.space && query.space !== site.spaces[0]?.name ? query.space : null;
  const one = ({ kind, value }: Query["terms"][number]) => (kind === "object" ? `atlas[${text(value)}]` : text(value));
  const embedded = terms.map((term, n) => {
    const sign = term.weight < 0 ? (n ? " - " : "-") : n ? " + " : "";
    const weight = Math.abs(term.weight);
    return `${sign}${weight === 1 ? "" : `${weight} * `}atlas.embed(${one(term)}${by ? `, by=${text(by)}` : ""})`;
  });
  const what = !terms.length ? [] : terms.length === 1 && terms[0]!.weight === 1 ? [one(terms[0]!)] : [embedded.join("")];
  const where = condition(query);
  const options = [
    ...what,
    ...(by && terms.length ? [`by=${text(by)}`] : []),
    ...(where ? [`where=${text(where)}`] : []),
    ...(query.near ? [`near=(${query.near.ra}, ${query.near.dec})`, `radius_arcsec=${query.near.radius_arcsec}`] : []),
    `k=${query.k}`,
  ];
  return `import galsearch\n\natlas = galsearch.open(${text(address)})\nhits = atlas.search(${options.join(", ")})\n`;
}

/** Return how the same file is read by DuckDB alone. */
export function toSql(query: Query, address: string): string {
  const quoted = (value: string) => `'${value.replaceAll("'", "''")}'`;
  const where = condition(query);
  const near = query.near ? `separation_arcsec(ra, dec, ${query.near.ra}, ${query.near.dec}) <= ${query.near.radius_arcsec}` : "";
  const all = [where && near ? `(${where})` : where, near].filter(Boolean).join(" AND ");
  const first = query.terms.length === 1 ? query.terms[0]! : null;
  const attach = `${/^https?:/.test(address) ? "INSTALL httpfs; LOAD httpfs;\n" : ""}ATTACH ${quoted(address)} AS atlas (READ_ONLY); USE atlas;\n`;
  if (!first || first.kind === "image") return `${attach}SELECT * FROM galaxies${all ? ` WHERE ${all}` : ""} LIMIT ${query.k};\n`;
  const vector = first.kind === "object" ? `like_object(${quoted(first.value)})` : `concept(${quoted(first.value)})`;
  return `${attach}SELECT * FROM nearest(${vector}, k := ${query.k}${all ? `, cut := ${all}` : ""})\nJOIN galaxies USING (object_id) ORDER BY score DESC;\n`;
}
