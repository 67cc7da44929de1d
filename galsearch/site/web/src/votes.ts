// Votes of a knowledge base, worked out in the page: the nearest members vote, and who voted is shown.
import { asNumbers, Files } from "./files.ts";
import type { Base, Fit } from "./manifest.ts";
import type { VectorSpace } from "./search.ts";

export interface Voter {
  row: number;
  distance: number;
  weight: number;
  label: string;
}

export interface Votes {
  label: string | null; // null where no class wins
  shares: [string, number][]; // of the votes, the largest first
  value: number | null; // of a base of numbers
  uncertainty: number | null; // of it, as held-out members say
  voters: Voter[];
  reason: string | null;
  calibrated: boolean;
}

/** A base, ready to vote: its members in memory. */
export class Electorate {
  readonly base: Base;
  #members: Promise<{ rows: Uint32Array; codes: Int16Array | Uint32Array | null; values: Float64Array | null; mask: Uint8Array; at: Map<number, number>; priors: number[] }>;
  #space: VectorSpace;

  constructor(files: Files, base: Base, space: VectorSpace, rows: number) {
    this.base = base;
    this.#space = space;
    this.#members = (async () => {
      const [members, codes, values] = await Promise.all([
        files.whole(base.members),
        base.label_codes ? files.whole(base.label_codes) : null,
        base.values ? files.whole(base.values) : null,
      ]);
      const numbers = asNumbers(members, "uint32");
      const mask = new Uint8Array(rows);
      for (const row of numbers) mask[row] = 1;
      const classes = codes && asNumbers(codes, base.label_codes_type === "int32" ? "uint32" : "int16");
      const priors = (base.labels ?? []).map(() => 0);
      classes?.forEach((code) => (priors[code]! += 1 / numbers.length));
      return {
        rows: numbers,
        codes: classes,
        priors,
        values: values && asNumbers(values, "float64"),
        mask,
        at: new Map(Array.from(numbers, (row, at) => [row, at])),
      };
    })();
  }

  /** Return the votes on a galaxy, which never votes on itself; null where it has no vector. */
  async on(row: number): Promise<Votes | null> {
    const [members, vector] = await Promise.all([this.#members, this.#space.vectorOf(row)]);
    if (!vector) return null;
    const mask = members.mask.slice();
    mask[row] = 0;
    const found = await this.#space.search(vector, this.base.k, mask);
    const distances = Array.from(found.scores, (score) => Math.sqrt(Math.min(4, Math.max(0, 2 - 2 * score))));
    const weights = weightsOf(distances, this.base.weight, this.base.tau);
    const voters = Array.from(found.rows, (voter, n) => {
      const at = members.at.get(voter)!;
      const label = members.codes ? (this.base.labels?.[members.codes[at]!] ?? "?") : String(members.values?.[at] ?? "");
      return { row: voter, distance: distances[n]!, weight: weights[n]!, label };
    });
    return counted(voters, this.base, members.priors);
  }
}

/** Return how much each neighbor counts, nearest first (docs/knowledge.md). */
export function weightsOf(distances: number[], weight: string, tau: number): number[] {
  if (weight === "uniform") return distances.map(() => 1);
  if (weight === "rank") return distances.map((_, n) => 1 / (n + 1));
  if (weight === "inverse") {
    const same = distances.some((distance) => distance === 0);
    return distances.map((distance) => (same ? +(distance === 0) : 1 / distance));
  }
  const exponents = distances.map((distance) => (weight === "gaussian" ? distance ** 2 / (2 * tau ** 2) : distance / tau));
  const plain = exponents.map((exponent) => Math.exp(-exponent));
  return plain.reduce((a, b) => a + b, 0) < 1e-300 ? exponents.map((exponent) => Math.exp(exponents[0]! - exponent)) : plain;
}

const FAR = "its nearest member is farther than members are from each other";

/** Count votes: a winner has at least the share that the base demands, and no equal beside it; `priors` are of its labels. */
export function counted(voters: Voter[], base: Base, priors: number[]): Votes {
  const { far, fits } = base.calibration ?? {};
  const isFar = far !== undefined && voters.length > 0 && voters[0]!.distance > far;
  const fit = fits?.find((one) => one.k === base.k && one.weight === base.weight && one.tau === base.tau) ?? null;
  return base.kind === "number" ? averaged(voters, fit, isFar) : elected(voters, base, priors, fit, isFar);
}

function elected(voters: Voter[], base: Base, priors: number[], fit: Fit | null, isFar: boolean): Votes {
  const labels = base.labels ?? [];
  const total = voters.reduce((sum, voter) => sum + voter.weight, 0);
  const votes = labels.map((label) => voters.reduce((sum, voter) => sum + (voter.label === label ? voter.weight : 0), 0));
  const calibrated = fit?.pseudo !== undefined && fit.power !== undefined;
  const chance = calibrated ? probabilities(votes, priors, fit.pseudo!, fit.power!) : votes.map((one) => (total > 0 ? one / total : 0));
  const shares = labels.map((label, n): [string, number] => [label, chance[n]!]).filter(([, share]) => share > 0);
  shares.sort((a, b) => b[1] - a[1]);
  const [first, second] = shares;
  const wins = first && first[1] >= (base.least ?? 0) && !(second && Math.abs(first[1] - second[1]) <= 1e-12);
  return { label: wins && !isFar ? first[0] : null, shares, value: null, uncertainty: null, voters, reason: isFar ? FAR : wins ? null : "the votes are split", calibrated };
}

function averaged(voters: Voter[], fit: Fit | null, isFar: boolean): Votes {
  const total = voters.reduce((sum, voter) => sum + voter.weight, 0);
  const mean = voters.reduce((sum, voter) => sum + voter.weight * Number(voter.label), 0) / total;
  const effective = total ** 2 / voters.reduce((sum, voter) => sum + voter.weight ** 2, 0);
  const variance = voters.reduce((sum, voter) => sum + voter.weight * (Number(voter.label) - mean) ** 2, 0) / total;
  const spread = effective > 1 + 1e-9 ? Math.sqrt((variance * effective) / (effective - 1)) : NaN;
  const error = fit?.quantile !== undefined && fit.floor !== undefined ? fit.quantile * (spread + fit.floor) : spread;
  const isKnown = !isFar && Number.isFinite(mean);
  return {
    label: null,
    shares: [],
    value: isKnown ? mean : null,
    uncertainty: isKnown && Number.isFinite(error) ? error : null,
    voters,
    reason: isFar ? FAR : isKnown ? null : "no votes",
    calibrated: fit !== null,
  };
}

/** Return what votes are worth, as fitted on held-out members: ((share + pseudo · prior) / (1 + pseudo))^power, as shares. */
function probabilities(votes: number[], priors: number[], pseudo: number, power: number): number[] {
  const total = votes.reduce((a, b) => a + b, 0);
  const raised = votes.map((vote, n) => (((total > 0 ? vote / total : 0) + pseudo * priors[n]!) / (1 + pseudo)) ** power);
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((one) => one / sum);
}
