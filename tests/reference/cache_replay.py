"""Cache policies told slowly: every worth is summed afresh from the list of all picks.

Nothing is kept from step to step but who is there. `picks` of one layer: a list of lists of ids.
"""

import itertools
import math


def worth(picks, expert, *, span, recency, short_decay, slots):
    """Weighted mean of two faded counts; the last pick in the list counts 1."""
    decay = 1.0 if span is None else 1 - 1 / max(2.0, span * slots)
    ages = [len(picks) - 1 - token for token, ids in enumerate(picks) if expert in ids]
    long = math.fsum(decay**age for age in ages)
    short = math.fsum(short_decay**age for age in ages)
    return (long + recency * short) / (1 + recency)


def faded(span=None, recency=0.0, short_decay=0.7):
    """A worth function of (picks, expert, slots)."""
    return lambda picks, expert, slots: worth(
        picks, expert, span=span, recency=recency, short_decay=short_decay, slots=slots
    )


def last_pick(picks, expert, slots):
    """LRU: the number of the last token, from 1."""
    return max((token + 1 for token, ids in enumerate(picks) if expert in ids), default=0)


def replay(picks, experts, slots, worth_of, *, margin=0.0, bound=1):
    """Hits and promotions of each token."""
    inside, hits, promotions = set(), [], []
    for token, ids in enumerate(picks):
        hits.append(len(inside.intersection(ids)))
        seen = picks[: token + 1]
        value = {expert: worth_of(seen, expert, slots) for expert in range(experts)}
        moved = 0
        for newcomer in sorted(set(ids) - inside, key=lambda e: (-value[e], e)):
            leavers = sorted(inside - set(ids), key=lambda e: (value[e], -e))
            if moved == (slots if bound is None else bound):
                break
            if len(inside) >= slots:
                if not leavers or value[newcomer] <= value[leavers[0]] + margin + 1e-12:
                    break
                inside.remove(leavers[0])
            inside.add(newcomer)
            moved += 1
        promotions.append(moved)
    return hits, promotions


def replay_free(picks, experts, slots, worth_of):
    """Hits of each token where every miss is let in and then the worst leave."""
    inside, hits = set(), []
    for token, ids in enumerate(picks):
        hits.append(len(inside.intersection(ids)))
        seen = picks[: token + 1]
        value = {expert: worth_of(seen, expert, slots) for expert in range(experts)}
        inside = set(sorted(inside.union(ids), key=lambda e: (-value[e], e))[:slots])
    return hits


def most_hits(picks, slots):
    """The most hits that anyone could have, by trying everything."""
    best = {frozenset(): 0}
    for ids in picks:
        following = {}
        for inside, hits in best.items():
            found = hits + len(inside.intersection(ids))
            candidates = inside.union(ids)
            for size in range(min(slots, len(candidates)) + 1):
                for kept in itertools.combinations(sorted(candidates), size):
                    key = frozenset(kept)
                    following[key] = max(following.get(key, 0), found)
        best = following
    return max(best.values())


def global_lru(picks, slots):
    """Hits of an LRU list over all layers; `picks` is a list of tokens of layers of ids."""
    order, hits = {}, []
    for layers in picks:
        found = 0
        for layer, ids in enumerate(layers):
            for expert in ids:
                found += order.pop((layer, expert), None) is not None
                order[layer, expert] = True
                if len(order) > slots:
                    order.pop(next(iter(order)))
        hits.append(found)
    return hits
