"""Best-first search for the k cheapest independent sets of a weighted graph, with an admissible bound.

Every state (S, C) holds chosen masks S and still possible masks C. It cannot end below w(S) plus, over a
greedy clique cover of {v in C: w_v < 0}, each clique's smallest weight, because at most one mask of a
clique can be taken. States are opened cheapest bound first, so sets come out in the order of their cost.
Components of the graph are searched apart and their lists summed.

Sets are rows of int64 words over masks sorted by weight, so "the cheapest mask left" is the lowest bit.
"""

import numpy as np

from engine.select.compiled import compiled, lowest_bit, popcount

UNLIMITED = 1 << 62
"""A budget no search uses up."""


@compiled
def _clique_bound(
    row: np.ndarray,
    negative: np.ndarray,
    neighbours: np.ndarray,
    weights: np.ndarray,
    rest: np.ndarray,
    clique: np.ndarray,
) -> float:
    """Lower bound of what the masks in `row` can still save; `rest` and `clique` are scratch."""
    n_words = len(row)
    for i in range(n_words):
        rest[i] = row[i] & negative[i]
    total = 0.0
    for i in range(n_words):
        while rest[i] != 0:
            # Ascending weights: the first mask of a clique is its cheapest.
            v = 64 * i + lowest_bit(rest[i])
            total += weights[v]
            rest[i] &= rest[i] - 1
            for j in range(i, n_words):
                clique[j] = rest[j] & neighbours[v, j]
            for j in range(i, n_words):
                while clique[j] != 0:
                    u = 64 * j + lowest_bit(clique[j])
                    rest[j] &= ~(1 << (u & 63))
                    for m in range(j, n_words):
                        clique[m] &= neighbours[u, m]
    return total


@compiled
def _before(keys: np.ndarray, a: int, b: int) -> bool:
    """Smaller key first; of equal keys the newer, deeper state, so that ties are completed, not collected."""
    return bool(keys[a] < keys[b] or (keys[a] == keys[b] and a > b))


@compiled
def _push(heap: np.ndarray, count: int, keys: np.ndarray, state: int) -> None:
    position = count
    while position > 0:
        parent = (position - 1) >> 1
        if not _before(keys, state, heap[parent]):
            break
        heap[position] = heap[parent]
        position = parent
    heap[position] = state


@compiled
def _pop(heap: np.ndarray, count: int, keys: np.ndarray) -> int:
    top = heap[0]
    last = heap[count - 1]
    position = 0
    while True:
        child = 2 * position + 1
        if child >= count - 1:
            break
        if child + 1 < count - 1 and _before(keys, heap[child + 1], heap[child]):
            child += 1
        if not _before(keys, heap[child], last):
            break
        heap[position] = heap[child]
        position = child
    heap[position] = last
    return int(top)


@compiled
def _first(row: np.ndarray) -> int:
    """Lowest member of a bit set, -1 when it is empty."""
    for i in range(len(row)):
        if row[i] != 0:
            return int(64 * i + lowest_bit(row[i]))
    return -1


@compiled
def _grown(array: np.ndarray, size: int) -> np.ndarray:
    out = np.empty(size, array.dtype)
    for i in range(len(array)):
        out[i] = array[i]
    return out


@compiled
def _grown_rows(array: np.ndarray, size: int) -> np.ndarray:
    out = np.empty((size, array.shape[1]), array.dtype)
    for i in range(len(array)):
        _copy(array[i], out[i])
    return out


@compiled
def _copy(row: np.ndarray, out: np.ndarray) -> None:
    # Loops instead of array assignment: they compile in a fraction of the time.
    for i in range(len(row)):
        out[i] = row[i]


@compiled
def _without(row: np.ndarray, v: int, neighbours: np.ndarray, out: np.ndarray) -> None:
    """`out` = row without v and everything that excludes it."""
    for i in range(len(row)):
        out[i] = row[i] & ~neighbours[v, i]
    out[v >> 6] &= ~(1 << (v & 63))


@compiled
def _search(
    component: np.ndarray,
    negative: np.ndarray,
    neighbours: np.ndarray,
    weights: np.ndarray,
    k: int,
    budget: int,
) -> tuple[np.ndarray, np.ndarray, float, bool, int]:
    """The k cheapest independent sets inside `component`.

    Returns costs, bit sets, the bound of the rest, whether the budget sufficed, and the states used.
    """
    n_words = len(component)
    capacity = 256
    keys = np.empty(capacity)
    costs = np.empty(capacity)
    extending = np.empty(capacity, np.bool_)
    chosen = np.empty((capacity, n_words), np.int64)
    open_ = np.empty((capacity, n_words), np.int64)
    heap = np.empty(capacity, np.int64)
    rest = np.empty(n_words, np.int64)
    clique = np.empty(n_words, np.int64)
    found_costs = np.empty(k)
    found = np.zeros((k, n_words), np.int64)

    for i in range(n_words):
        chosen[0, i] = 0
    _copy(component, open_[0])
    costs[0] = 0.0
    extending[0] = False
    keys[0] = _clique_bound(open_[0], negative, neighbours, weights, rest, clique)
    heap[0] = 0
    states, waiting, emitted, used = 1, 1, 0, 0
    while waiting > 0 and emitted < k and used < budget:
        if states + 2 > capacity:
            capacity *= 2
            keys = _grown(keys, capacity)
            costs = _grown(costs, capacity)
            extending = _grown(extending, capacity)
            chosen = _grown_rows(chosen, capacity)
            open_ = _grown_rows(open_, capacity)
            heap = _grown(heap, capacity)
        used += 1
        state = _pop(heap, waiting, keys)
        waiting -= 1
        v = _first(open_[state])
        improving = v >= 0 and weights[v] < 0.0
        if not improving and not extending[state]:
            # Nothing left can make it cheaper: S itself is the best of everything below this state.
            found_costs[emitted] = costs[state]
            _copy(chosen[state], found[emitted])
            emitted += 1
            if v >= 0:
                _copy(chosen[state], chosen[states])
                _copy(open_[state], open_[states])
                costs[states] = costs[state]
                extending[states] = True
                keys[states] = costs[state] + weights[v]
                _push(heap, waiting, keys, states)
                states += 1
                waiting += 1
            continue
        word, bit = v >> 6, 1 << (v & 63)
        # Skip v.
        _copy(chosen[state], chosen[states])
        _copy(open_[state], open_[states])
        open_[states, word] &= ~bit
        costs[states] = costs[state]
        extending[states] = extending[state]
        if improving:
            saving = _clique_bound(open_[states], negative, neighbours, weights, rest, clique)
            keys[states] = costs[states] + saving
            _push(heap, waiting, keys, states)
            states += 1
            waiting += 1
        else:
            following = _first(open_[states])
            if following >= 0:
                keys[states] = costs[states] + weights[following]
                _push(heap, waiting, keys, states)
                states += 1
                waiting += 1
        # Take v. A state that extends has only costly masks left, so each one it takes is an answer.
        _copy(chosen[state], chosen[states])
        chosen[states, word] |= bit
        _without(open_[state], v, neighbours, open_[states])
        costs[states] = costs[state] + weights[v]
        extending[states] = False
        keys[states] = costs[states]
        if improving:
            keys[states] += _clique_bound(open_[states], negative, neighbours, weights, rest, clique)
        _push(heap, waiting, keys, states)
        states += 1
        waiting += 1

    bound = keys[heap[0]] if waiting > 0 else np.inf
    finished = waiting == 0 or emitted == k
    while waiting > 0 and emitted < k:
        # Out of budget: finish the most promising states. Their subtrees share no set.
        state = _pop(heap, waiting, keys)
        waiting -= 1
        _copy(chosen[state], found[emitted])
        saving = _finish(open_[state], extending[state], neighbours, weights, found[emitted], rest)
        found_costs[emitted] = costs[state] + saving
        emitted += 1
        _sink(found_costs, found, emitted - 1)
    return found_costs[:emitted], found[:emitted], bound, finished, used


@compiled
def _finish(
    row: np.ndarray,
    extending: bool,
    neighbours: np.ndarray,
    weights: np.ndarray,
    chosen: np.ndarray,
    rest: np.ndarray,
) -> float:
    """Take the cheapest possible mask of `row` while that helps (once in any case when `extending`)."""
    _copy(row, rest)
    saving = 0.0
    while True:
        v = _first(rest)
        if v < 0 or (weights[v] >= 0.0 and not extending):
            return saving
        extending = False
        chosen[v >> 6] |= 1 << (v & 63)
        saving += weights[v]
        _without(rest, v, neighbours, rest)


@compiled
def _sink(costs: np.ndarray, sets: np.ndarray, position: int) -> None:
    """Move the last entry of a list to its place among the ascending ones before it."""
    while position > 0 and costs[position] < costs[position - 1]:
        costs[position], costs[position - 1] = costs[position - 1], costs[position]
        for i in range(sets.shape[1]):
            word = sets[position, i]
            sets[position, i] = sets[position - 1, i]
            sets[position - 1, i] = word
        position -= 1


@compiled
def _sum_lists(
    a_costs: np.ndarray, a_sets: np.ndarray, b_costs: np.ndarray, b_sets: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The k cheapest unions of one set of each sorted list, and whether any were left out."""
    if len(a_costs) > len(b_costs):
        a_costs, a_sets, b_costs, b_sets = b_costs, b_sets, a_costs, a_sets
    a, b = len(a_costs), len(b_costs)
    count = min(k, a * b)
    costs = np.empty(count)
    sets = np.empty((count, a_sets.shape[1]), np.int64)
    # One cursor per entry of a: row i has been used up to column cursor[i]. Only rows up to the first
    # untouched one can hold the next cheapest sum.
    cursor = np.zeros(a, np.int64)
    reach = 1
    for position in range(count):
        best = -1
        best_cost = np.inf
        for i in range(reach):
            if cursor[i] < b:
                cost = a_costs[i] + b_costs[cursor[i]]
                if best < 0 or cost < best_cost:
                    best, best_cost = i, cost
        costs[position] = best_cost
        for i in range(sets.shape[1]):
            sets[position, i] = a_sets[best, i] | b_sets[cursor[best], i]
        cursor[best] += 1
        if best == reach - 1 and reach < a:
            reach += 1
    return costs, sets, count < a * b


@compiled
def _component_of(v: int, neighbours: np.ndarray) -> np.ndarray:
    """Bit set of everything connected with v."""
    n_words = neighbours.shape[1]
    reached = np.zeros(n_words, np.int64)
    reached[v >> 6] = 1 << (v & 63)
    frontier = np.zeros(n_words, np.int64)
    frontier[v >> 6] = reached[v >> 6]
    while True:
        u = _first(frontier)
        if u < 0:
            return reached
        frontier[u >> 6] &= ~(1 << (u & 63))
        for i in range(n_words):
            frontier[i] |= neighbours[u, i] & ~reached[i]
            reached[i] |= neighbours[u, i]


@compiled
def enumerate_sets(
    weights: np.ndarray, order: np.ndarray, conflicts: np.ndarray, k: int, budget: int
) -> tuple[np.ndarray, np.ndarray, float, bool, int]:
    """The k cheapest independent sets.

    Args:
        weights: float64 [N], finite.
        order: int64 [N], `ascending(weights)`.
        conflicts: bool [N, N], symmetric, diagonal False.
        budget: search states over all components.

    Returns:
        costs float64 [M], ascending; members bool [M, N]; the bound of everything missing; whether the
        budget sufficed; states used.
    """
    n = len(weights)
    n_words = max(1, (n + 63) >> 6)
    sorted_weights = np.empty(n)
    neighbours = np.zeros((n, n_words), np.int64)
    negative = np.zeros(n_words, np.int64)
    for a in range(n):
        sorted_weights[a] = weights[order[a]]
        for b in range(n):
            if conflicts[order[a], order[b]]:
                neighbours[a, b >> 6] |= 1 << (b & 63)
        if sorted_weights[a] < 0.0:
            negative[a >> 6] |= 1 << (a & 63)

    costs = np.zeros(1)
    sets = np.zeros((1, n_words), np.int64)
    least = 0.0  # the cheapest sum any sets of the components seen so far can have
    missing = np.inf  # the same for sums with a set that no list holds
    used, done, finished = 0, 0, True
    seen = np.zeros(n_words, np.int64)
    for v in range(n):
        if seen[v >> 6] & (1 << (v & 63)):
            continue
        component = _component_of(v, neighbours)
        size = 0
        for i in range(n_words):
            seen[i] |= component[i]
            size += popcount(component[i])
        # Each component may use its share of what is left, so one hard tangle cannot starve the others.
        share = budget if budget == UNLIMITED else max(1, (budget - used) * size // (n - done))
        most = k if size > 60 else min(k, 1 << size)
        own_costs, own_sets, own_bound, own_finished, own_used = _search(
            component, negative, neighbours, sorted_weights, most, share
        )
        used += own_used
        done += size
        finished &= own_finished
        own_least = min(own_costs[0], own_bound)
        # A set is missing when its part in this component is missing, or its part in the others is.
        missing = min(missing + own_least, least + own_bound)
        least += own_least
        costs, sets, cut = _sum_lists(costs, sets, own_costs, own_sets, k)
        if cut:
            missing = min(missing, costs[-1])

    members = np.zeros((len(costs), n), np.bool_)
    for row in range(len(costs)):
        for v in range(n):
            members[row, order[v]] = (sets[row, v >> 6] >> (v & 63)) & 1
    return costs, members, missing, finished, used
