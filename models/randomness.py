"""Randomness as a pure function of (seed, purpose, index): Philox4x32-10, vectorised in numpy.

Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (doi:10.1145/2063384.2063405). The 64-bit seed
is the key; the 128-bit counter is (block, index low, index high, purpose). A block yields four 32-bit words. Nothing here has
state: the same arguments give the same numbers in any order, batch or process, and no global generator is used or changed.

Normals are computed in float64 and rounded to float32, which hides the last-bit differences between math libraries.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Uint32 = npt.NDArray[np.uint32]
Uint64 = npt.NDArray[np.uint64]
Integers = int | Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.uint64]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, as in the paper
_LOW = 0xFFFFFFFF
_SHIFT = 32
_ROUNDS = 10
# Ready made: numpy takes as long to turn a number into an array as to do a small sum.
_MASK64, _SHIFT64 = np.array(_LOW, np.uint64), np.array(_SHIFT, np.uint64)
_MULTIPLIERS64 = np.array([_MULTIPLIERS, _MULTIPLIERS[::-1]] * (_ROUNDS // 2), np.uint64)  # [rounds, 2]
_WEYL64 = np.arange(_ROUNDS, dtype=np.uint64)[:, None] * np.array(_WEYL, np.uint64)  # [rounds, 2]


class Purpose(IntEnum):
    """What a stream of numbers is for. The values are part of every model's address: append, never renumber."""

    INIT_GENERATOR = 0
    INIT_DISCRIMINATOR = 1
    ORDER = 2
    LATENT = 3
    GRID = 4
    SAMPLE = 5
    SAMPLE_CLASS = 6
    AUGMENT_REAL = 7
    AUGMENT_FAKE = 8
    FLIP = 9
    CLASS_DROPOUT = 10
    PENALTY = 11
    ENCODING = 12
    EVALUATION = 13
    EVALUATION_CLASS = 14
    SUBSET = 15
    INIT_FEATURES = 16
    PENALTY_FAKE = 17
    PENALTY_MIX = 18
    DIVISION = 19


def philox(counter: Uint64, key: Uint64) -> Uint32:
    """Philox4x32-10: the words of counters, [4, ...], and of keys, [2, ...], to uint32 [..., 4]."""
    even, odd = counter[0::2].copy(), counter[1::2].copy()
    # Both halves of a round in one array, and nothing allocated in it: for few samples the calls of numpy are what costs. The
    # halves change places in every round; instead of being moved they are met, every other round, by what belongs to them.
    product = np.empty_like(even)
    multipliers = _MULTIPLIERS64.reshape(_ROUNDS, 2, *(1,) * (even.ndim - 1))
    for multiplier, round_key in zip(multipliers, _round_keys(key), strict=True):
        np.multiply(even, multiplier, out=product)
        np.right_shift(product, _SHIFT64, out=even)
        np.bitwise_xor(even, odd[::-1], out=even)
        np.bitwise_xor(even, round_key, out=even)
        np.bitwise_and(product, _MASK64, out=odd)
    result = np.empty((*even.shape[1:], 4), np.uint32)
    result[..., 0], result[..., 2] = even
    result[..., 1], result[..., 3] = odd
    return result


def _round_keys(key: Uint64) -> Uint64:
    """[rounds, 2, ...] of keys [2, ...] that grow round by round, turned around in those rounds where the halves are."""
    keys = (key + _WEYL64.reshape(_ROUNDS, 2, *(1,) * (key.ndim - 1))) & _MASK64
    keys[0::2] = keys[0::2, ::-1].copy()
    return keys


def philox_block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """`philox` of one block in plain integers, many times as fast for one."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniform_bits(seeds: Integers, index: Integers, purpose: Purpose, n: int) -> Uint32:
    """uint32 [rows, n] of uniform bits; `seeds` and `index` (0 .. 2**64 - 1) broadcast to the rows."""
    seed, place = _column(seeds), _column(index)
    rows, blocks = max(len(seed), len(place)), -(-n // 4)
    counter = np.empty((4, rows, blocks), np.uint64)
    counter[0], counter[1] = np.arange(blocks, dtype=np.uint64), place & _MASK64
    counter[2], counter[3] = place >> _SHIFT64, int(purpose)
    key = np.array((seed & _MASK64, seed >> _SHIFT64))
    return philox(counter, key).reshape(rows, blocks * 4)[:, :n]


def _column(numbers: Integers) -> Uint64:
    return np.array(numbers, np.uint64).reshape(-1, 1)


def normals(seeds: Integers, index: Integers, purpose: Purpose, n: int) -> npt.NDArray[np.float32]:
    """float32 [rows, n] of independent standard normals by Box and Muller's transform; |value| < 6.8."""
    pairs = -(-n // 2)
    bits = uniform_bits(seeds, index, purpose, 2 * pairs).reshape(-1, pairs, 2)
    uniform = bits.astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-32  # strictly inside (0, 1)
    radius = np.sqrt(-2.0 * np.log(uniform[..., 0]))
    angle = 2.0 * np.pi * uniform[..., 1]
    both = np.empty((len(bits), pairs, 2), np.float32)
    both[..., 0] = radius * np.cos(angle)
    both[..., 1] = radius * np.sin(angle)
    return both.reshape(len(bits), 2 * pairs)[:, :n]


def permutation(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    """int64 [n]: the order in which the examples of this epoch are visited."""
    words = uniform_bits(seed, epoch, Purpose.ORDER, 2 * n)[0].astype(np.uint64)
    return np.argsort((words[0::2] << _SHIFT) | words[1::2], kind="stable")


def shuffled(seed: int, index: int, purpose: Purpose, n: int) -> npt.NDArray[np.int64]:
    """int64 [n]: 0 .. n - 1 as they come out of the hat, of which the first few are a subset drawn without repetition.

    Ordered by 32 bits each: of millions some are equal, and then stay in order.
    """
    return np.argsort(uniform_bits(seed, index, purpose, n)[0], kind="stable")


def sample_latents(seeds: Sequence[int], z_dim: int) -> npt.NDArray[np.float32]:
    """float32 [len(seeds), z_dim]: the latent vector that each sample seed stands for."""
    return normals(seeds, 0, Purpose.SAMPLE, z_dim)


def sample_classes(seeds: Sequence[int], n_classes: int) -> npt.NDArray[np.int64]:
    """int64 [len(seeds)] in [0, n_classes): the class that each sample seed gets when none is asked for."""
    bits = uniform_bits(seeds, 0, Purpose.SAMPLE_CLASS, 1)[:, 0].astype(np.uint64)
    return ((bits * np.uint64(n_classes)) >> _SHIFT).astype(np.int64)


def sample_class(seed: int, n_classes: int) -> int:
    """`sample_classes` of one seed, as an address is asked for."""
    first, *_ = philox_block((0, 0, 0, Purpose.SAMPLE_CLASS), (seed & _LOW, seed >> _SHIFT))
    return first * n_classes >> _SHIFT
