"""A vectorised counter-based generator: any number of any stream without drawing those before it.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in NumPy. Seed, stream, index and
draw go in, four 32-bit words come out, the same on every machine, in every process and in either framework, so a view
is known from its number alone and runs resume or shard at any step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# One name per independent use, so that a change in how many numbers one part draws never moves another part's.
STREAMS = {
    "order": 0,
    "base": 1,
    "augmentation": 2,
    "mixing": 3,
    "teacher_training": 4,
    "stored_order": 5,
    "masks": 6,
    "neurons": 7,
}

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox on many counters at once.

    Args:
        counter: uint64 [4, n], each value below 2**32: the four counter words.
        key: the two key words, each below 2**32.

    Returns:
        uint64 [4, n], each value below 2**32: four independent random words for every counter.
    """
    c0, c1, c2, c3 = (np.array(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c1 ^= p1 >> _SHIFT
        c1 ^= np.uint64(k0)
        c3 ^= p0 >> _SHIFT
        c3 ^= np.uint64(k1)
        p1 &= _LOW
        p0 &= _LOW
        c0, c1, c2, c3 = c1, p1, c3, p0
        k0 = (k0 + _WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def uniforms(seed: int, stream: str, index: np.ndarray, count: int) -> np.ndarray:
    """`count` uniform numbers for each index.

    Args:
        seed: 0 ≤ seed < 2**64.
        stream: a key of `STREAMS`.
        index: integers [n], 0 ≤ index < 2**63: the number of the view, step, ….
        count: how many numbers each index gets.

    Returns:
        float64 [count, n] in the open interval (0, 1); row k of an index never depends on `count`.
    """
    index = np.asarray(index, dtype=np.uint64)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed (={seed}) must be in [0, 2**64).")
    blocks = -(-count // 4)
    shape = (blocks, index.size)
    counter = np.empty((4, *shape), dtype=np.uint64)
    counter[0] = index & _LOW
    counter[1] = index >> _SHIFT
    counter[2] = np.arange(blocks, dtype=np.uint64)[:, None]
    counter[3] = np.uint64(STREAMS[stream])
    words = philox4x32(counter.reshape(4, -1), (seed & 0xFFFFFFFF, seed >> 32))
    words = words.reshape(4, *shape).transpose(1, 0, 2).reshape(4 * blocks, index.size)[:count]
    return (words + 0.5) * 2.0**-32


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int, stream: str = "order") -> np.ndarray:
    """The order in which pass number `epoch` visits `size` views: int64 [size], read-only.

    A sort of one 64-bit key per view; 150 ms for 1.28 million, kept for the epochs at hand. Another `stream` (a key of
    `STREAMS`) gives orders independent of these, for what is not views.
    """
    rows = np.arange(size, dtype=np.uint64)
    counter = np.empty((4, size), dtype=np.uint64)
    counter[0] = rows
    counter[1] = np.uint64(epoch & 0xFFFFFFFF)
    counter[2] = np.uint64(epoch >> 32)
    counter[3] = np.uint64(STREAMS[stream])
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    order = np.argsort((words[0] << _SHIFT) | words[1], kind="stable")
    order.flags.writeable = False
    return order


def shuffled_index(seed: int, n: np.ndarray, views: int | None) -> np.ndarray:
    """The base view that sample `n` shows: perm(seed, n div views)[n mod views], or `n` itself for endless views.

    Args:
        n: int64 [k], sample numbers.
        views: size of the finite set, or None.

    Returns:
        int64 [k] in [0, views).
    """
    n = np.asarray(n, dtype=np.int64)
    if views is None:
        return n
    epochs, rows = np.divmod(n, views)
    out = np.empty_like(n)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = permutation(seed, int(epoch), views)[rows[here]]
    return out
