"""Figures with confidence intervals: measures over draws of candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from galsearch.evaluation.judged import Judged
from galsearch.evaluation.resampling import Sets, draws, matched_sets, resampled, shuffled
from galsearch.evaluation.systems import FIRST, RANDOM, TEXT, System, names
from galsearch.science.metrics import Ranked, bootstrap_interval, recall_ceiling

K, RECALL_K = 10, 100
BOOTSTRAPS = 1000  # draws of all candidates
SET_BOOTSTRAPS = 400  # draws of the candidates, from each of which up to MOST_SETS sets of a prevalence are taken
SETS_ROUNDS = 20  # shuffles of the candidates from which the sets of the estimate are taken
MEASURED: dict[str, Callable[[Ranked, np.ndarray], np.ndarray]] = {
    "ndcg_exp_10": lambda ranking, drawn: ranking.ndcg_exp(K, drawn),
    "ndcg_lin_10": lambda ranking, drawn: ranking.ndcg_lin(K, drawn),
    "precision_10": lambda ranking, drawn: ranking.precision(K, drawn),
    "recall_100": lambda ranking, drawn: ranking.recall(RECALL_K, drawn),
    "auroc": lambda ranking, drawn: ranking.auroc(drawn),
}
Values = dict[tuple[str, str], np.ndarray]  # (system, measure) -> (rankings, rounds), each the mean over a round's sets


def measured(judged: Judged, systems: list[System], fold: np.ndarray, seed: int) -> Iterator[dict]:
    """Yield a row for each system and prevalence: all candidates first, then the sets of each prevalence."""
    whole = Sets(int(judged.relevant.sum()), int((~judged.relevant).sum()))
    every = np.ones((1, 1, len(judged.rows)), np.int32)
    point = _values(systems, [every], dict.fromkeys(names(systems), tuple(MEASURED)))
    wanted: dict[str, tuple[str, ...]] = {
        name: ("ndcg_exp_10", "auroc") if name in (TEXT, FIRST) else ("ndcg_exp_10",) for name in names(systems)
    }
    drawn = draws(judged.relevant, whole, rounds=BOOTSTRAPS, pick=resampled, seed=seed)
    boots = _values(_resampling(systems), drawn, wanted)
    for system in systems:
        yield _row(system, whole, None, point, boots, seed=seed) | _folds(judged, system, fold)
    for prevalence in judged.target.prevalences:
        sets = matched_sets(whole.relevant, whole.others, prevalence)
        if sets is None:
            continue
        measures = tuple(name for name in MEASURED if name != "auroc")  # which does not depend on the prevalence
        drawn = draws(judged.relevant, sets, rounds=SETS_ROUNDS, pick=shuffled, seed=seed)
        point = _values(systems, drawn, dict.fromkeys(names(systems), measures))
        drawn = draws(judged.relevant, sets, rounds=SET_BOOTSTRAPS, pick=resampled, seed=seed)
        boots = _values(_resampling(systems), drawn, dict.fromkeys(names(systems), ("ndcg_exp_10",)))
        for system in systems:
            yield _row(system, sets, prevalence, point, boots, seed=seed)


def _resampling(systems: Sequence[System]) -> list[System]:
    """Return the systems whose interval is a bootstrap over candidates: chance needs none, examples are drawn."""
    return [system for system in systems if system.name != RANDOM and system.left_out is None]


def _values(systems: Sequence[System], blocks: Iterable[np.ndarray], wanted: dict[str, tuple[str, ...]]) -> Values:
    """Return the wanted measures of systems on every block of draws."""
    result: dict[tuple[str, str], list[np.ndarray]] = {}
    for block in blocks:
        for system in systems:
            for name in wanted[system.name]:
                result.setdefault((system.name, name), []).append(_means(system, MEASURED[name], block))
    return {key: np.concatenate(parts, axis=1) for key, parts in result.items()}


def _means(system: System, measure: Callable, block: np.ndarray) -> np.ndarray:
    """Return a measure of draws `(rounds, each, n)` by ranking and round, the mean over the sets of the round."""
    flat = block.reshape(-1, block.shape[-1])
    values = [_of(system, number, measure, flat) for number in range(len(system.rankings))]
    return np.array(values).reshape(len(values), *block.shape[:2]).mean(axis=2)


def _of(system: System, number: int, measure: Callable, drawn: np.ndarray) -> np.ndarray:
    if system.left_out is None:
        return measure(system.rankings[number], drawn)
    one = system.left_out[number]
    kept = drawn[:, one].copy()
    drawn[:, one] = 0
    values = measure(system.rankings[number], drawn)
    drawn[:, one] = kept
    return values


def _row(system: System, sets: Sets, requested: float | None, point: Values, boots: Values, *, seed: int) -> dict:
    """Return the figures of a system on candidate sets: means over sets, then over rankings, and their intervals."""
    mean = {name: float(values.mean()) for (whose, name), values in point.items() if whose == system.name}
    each, prevalence = point[system.name, "ndcg_exp_10"].mean(axis=1), sets.relevant / (sets.relevant + sets.others)
    row = mean | {
        "system": system.name,
        "asked_prevalence": requested,
        "prevalence": prevalence,
        "n": sets.relevant + sets.others,
        "relevant": sets.relevant,
        "queries": len(system.rankings),
        "lift_10": mean["precision_10"] / prevalence,
        "recall_100_ceiling": recall_ceiling(sets.relevant, RECALL_K),
    }
    for (whose, name), values in boots.items():
        if whose == system.name:
            low, high = np.nanquantile(values.mean(axis=0), [0.025, 0.975]).tolist()
            row |= {f"{name}_low": low, f"{name}_high": high}
    if system.left_out is not None:
        low, high = bootstrap_interval(each, seed=seed) or (None, None)
        row |= {"ndcg_exp_10_low": low, "ndcg_exp_10_high": high}
    elif len(each) > 1:
        row |= {"ndcg_exp_10_worst": float(each.min()), "worst_query": system.queries[int(each.argmin())]}
    return row


def _folds(judged: Judged, system: System, fold: np.ndarray) -> dict:
    """Return nDCG@10 within each fold, as mean and standard deviation over the folds that have a relevant object."""
    if system.left_out is not None:
        return {}
    held = [fold == number for number in np.unique(fold[judged.relevant])]
    drawn = np.array(held).astype(np.int32)[:, None, :]
    values = _means(system, MEASURED["ndcg_exp_10"], drawn).mean(axis=0)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"folds": len(values), "fold_mean": float(values.mean()), "fold_std": spread}


def query_rows(judged: Judged, system: System) -> list[dict]:
    """Return the figures of each query on all candidates."""
    every = np.ones((1, len(judged.rows)), np.int32)
    return [
        {"target": judged.target.name, "query": words}
        | {name: float(measure(ranking, every)[0]) for name, measure in MEASURED.items()}
        for words, ranking in zip(system.queries, system.rankings, strict=True)
    ]


def best_of(judged: Judged, system: System) -> list[tuple[str, list[str], list[float], list[float]]]:
    """Return what the first and the worst query find: words, then ids, scores and relevances of the first ranks."""
    worst = int(np.argmin([ranking.ndcg_exp(K)[0] for ranking in system.rankings]))
    result = []
    for number in sorted({0, worst}):
        ranking = system.rankings[number]
        top = ranking.order[:K]
        scores = ranking.scores[top].tolist()
        result.append((system.queries[number], [judged.ids[i] for i in top], scores, judged.relevance[top].tolist()))
    return result
