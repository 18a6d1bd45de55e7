"""The Merkle tree of `logd.storage.merkle` is that of RFC 9162, section 2.1.

It is compared with the RFC's own recursive definitions, written here as in its text, and with the
vectors of the reference implementation of Certificate Transparency (RFC 6962 has the same trees).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.storage import merkle

SIZES = range(34)
# The leaves of the reference trees, in hexadecimal digits, and the roots over the first 0 to 8.
VECTORS = (
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
)
LEAVES = [bytes.fromhex(digits) for digits in VECTORS]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, C, D, E, F = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
)


# -- RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1, word for word: nothing of the program is used --


def left(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: Sequence[bytes]) -> bytes:
    """MTH(D_n): the Merkle tree hash of a list of data."""
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = left(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D_n): the inclusion proof of the leaf m."""
    if len(d) == 1:
        return []
    k = left(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: Sequence[bytes], b: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b): PROOF(m, D_n) = SUBPROOF(m, D_n, true)."""
    if m == len(d):
        return [] if b else [mth(d)]
    k = left(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


# ------------------------------------------------------------------------------------------------


class Made:
    """A tree of that many leaves with random data."""

    def __init__(self, size: int, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.data = [rng.randbytes(rng.randrange(40)) for _ in range(size)]
        self.leaves = [merkle.leaf_hash(data) for data in self.data]

    def block(self, level: int, position: int) -> bytes:
        first, end = position << level, (position + 1) << level
        assert 0 <= first < end <= len(self.data), "only complete blocks are asked for"
        return mth(self.data[first:end])


TREE = Made(SIZES[-1])


def mutations(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Each hash changed at each end, left out, repeated, exchanged, cut; one more at each place."""
    for place, digest in enumerate(proof):
        for byte in (0, 31):
            changed = bytearray(digest)
            changed[byte] ^= 1
            yield [*proof[:place], bytes(changed), *proof[place + 1 :]]
        yield [*proof[:place], *proof[place + 1 :]]
        yield [*proof[: place + 1], *proof[place:]]
        yield [*proof[:place], digest[:-1], *proof[place + 1 :]]
        yield [*proof[:place], digest + b"\x00", *proof[place + 1 :]]
        yield [*proof[:place], b"", *proof[place + 1 :]]
    for place, (one, other) in enumerate(pairwise(proof)):
        yield [*proof[:place], other, one, *proof[place + 2 :]]
        # The same bytes, cut elsewhere.
        yield [*proof[:place], one + other[:1], other[1:], *proof[place + 2 :]]
        yield [*proof[:place], one[:-1], one[-1:] + other, *proof[place + 2 :]]
    for place in range(len(proof) + 1):
        yield [*proof[:place], bytes(32), *proof[place:]]
        yield [*proof[:place], merkle.EMPTY, *proof[place:]]
        yield [*proof[:place], b"", *proof[place:]]


def included(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    try:
        return merkle.root_by_inclusion(index, size, leaf, proof) == root
    except ValueError:
        return False


@pytest.mark.parametrize("size", range(9))
def test_the_reference_trees_have_the_known_roots(size: int) -> None:
    leaves = [merkle.leaf_hash(data) for data in LEAVES[:size]]
    growing = merkle.Growing()
    for leaf in leaves:
        growing.append(leaf)
    assert merkle.root(leaves).hex() == growing.root().hex() == ROOTS[size]
    assert mth(LEAVES[:size]).hex() == ROOTS[size], "the definition of this test too"


@pytest.mark.parametrize(
    ("index", "size", "expected"),
    [
        (0, 1, []),
        (0, 8, [A, B, C]),
        (5, 8, [D, E, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], B, D]),
    ],
)
def test_the_reference_trees_have_the_known_inclusion_proofs(
    index: int, size: int, expected: list[str]
) -> None:
    leaves = [merkle.leaf_hash(data) for data in LEAVES]
    tree = Made(0)
    tree.data = LEAVES[:size]
    proof = merkle.inclusion_proof(index, size, tree.block)
    assert [digest.hex() for digest in proof] == expected
    assert merkle.root_by_inclusion(index, size, leaves[index], proof).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, E, ROOTS[4]]), (2, 5, [B, D])],
)
def test_the_reference_trees_have_the_known_consistency_proofs(
    old: int, new: int, expected: list[str]
) -> None:
    tree = Made(0)
    tree.data = LEAVES[:new]
    proof = merkle.consistency_proof(old, new, tree.block)
    assert [digest.hex() for digest in proof] == expected
    roots = [bytes.fromhex(digits) for digits in ROOTS]
    assert merkle.is_consistent(old, new, roots[old], roots[new], proof)


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_are_those_of_the_definition(size: int) -> None:
    data, leaves = TREE.data[:size], TREE.leaves[:size]
    expected = mth(data)
    assert merkle.root(leaves) == expected
    assert merkle.root(tuple(leaves)) == expected
    assert merkle.root_of(0, size, TREE.block) == expected
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, TREE.block)
        assert proof == path(index, data)
        assert merkle.root_by_inclusion(index, size, leaves[index], proof) == expected
    for old in range(size + 1):
        proof = merkle.consistency_proof(old, size, TREE.block)
        assert proof == (subproof(old, data, True) if old else [])
        assert merkle.is_consistent(old, size, mth(data[:old]), expected, proof)


@given(size=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_so_are_those_of_larger_trees(size: int, seed: int) -> None:
    tree, rng = Made(size, seed), random.Random(seed)
    expected = mth(tree.data)
    index, old = rng.randrange(size), rng.randrange(1, size + 1)
    assert merkle.root(tree.leaves) == expected
    inclusion = merkle.inclusion_proof(index, size, tree.block)
    assert inclusion == path(index, tree.data)
    assert merkle.root_by_inclusion(index, size, tree.leaves[index], inclusion) == expected
    consistency = merkle.consistency_proof(old, size, tree.block)
    assert consistency == subproof(old, tree.data, True)
    assert merkle.is_consistent(old, size, mth(tree.data[:old]), expected, consistency)


@pytest.mark.parametrize("size", range(1, 18))
def test_a_changed_proof_of_inclusion_is_refused(size: int) -> None:
    root = mth(TREE.data[:size])
    for index in range(size):
        leaf, proof = TREE.leaves[index], path(index, TREE.data[:size])
        assert included(index, size, leaf, proof, root)
        for mutated in mutations(proof):
            assert mutated == proof or not included(index, size, leaf, mutated, root)
        for other in range(size + 2):
            if other != index:
                assert not included(other, size, leaf, proof, root), "another place"
                assert not included(index, size, TREE.leaves[other], proof, root), "another leaf"
        for wrong in range(size + 4):
            if wrong != size:
                assert not included(index, wrong, leaf, proof, mth(TREE.data[:wrong]))
            if index < wrong and len(path(index, TREE.data[:wrong])) != len(proof):
                assert not included(index, wrong, leaf, proof, root), "of another length there"


@pytest.mark.parametrize("new", range(18))
def test_a_changed_proof_of_consistency_is_refused(new: int) -> None:
    roots = [mth(TREE.data[:size]) for size in SIZES]
    for old in range(new + 1):
        proof = subproof(old, TREE.data[:new], True) if old else []
        assert merkle.is_consistent(old, new, roots[old], roots[new], proof)
        for mutated in mutations(proof):
            assert mutated == proof or not merkle.is_consistent(
                old, new, roots[old], roots[new], mutated
            )
        for wrong in range(new + 4):
            if wrong != old:
                assert not merkle.is_consistent(old, new, roots[wrong], roots[new], proof)
                if wrong and old:
                    assert not merkle.is_consistent(wrong, new, roots[wrong], roots[new], proof)
            if old <= wrong and old and len(subproof(old, TREE.data[:wrong], True)) != len(proof):
                assert not merkle.is_consistent(old, wrong, roots[old], roots[new], proof)
            if wrong != new and old:
                assert not merkle.is_consistent(old, new, roots[old], roots[wrong], proof)
                assert not merkle.is_consistent(old, wrong, roots[old], roots[wrong], proof)


@pytest.mark.parametrize("size", range(2, 18))
def test_a_tree_with_one_leaf_changed_is_not_consistent(size: int) -> None:
    """The proof that an honest log would give of its changed tree is refused for the old head."""
    for old in range(1, size):
        for changed in range(old):
            data = [*TREE.data[:size]]
            data[changed] += b"x"
            before, after = mth(TREE.data[:old]), mth(data)
            for proof in (subproof(old, data, True), subproof(old, TREE.data[:size], True)):
                assert not merkle.is_consistent(old, size, before, after, proof)


def test_a_place_that_is_not_in_the_tree_has_no_proof() -> None:
    for index, size in ((-1, 5), (5, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"no leaf {index} in a tree of {size}"):
            merkle.inclusion_proof(index, size, TREE.block)
        with pytest.raises(ValueError, match=f"no leaf {index} in a tree of {size}"):
            merkle.root_by_inclusion(index, size, TREE.leaves[0], [])
    for old, new in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match=f"a tree of {old} leaves is not the beginning"):
            merkle.consistency_proof(old, new, TREE.block)
        assert not merkle.is_consistent(old, new, merkle.EMPTY, merkle.EMPTY, [])
    root = mth(TREE.data[:8])
    assert not merkle.is_consistent(8, 5, root, root, []), "a tree that has shrunk"
    with pytest.raises(ValueError, match="too long"):
        merkle.root_by_inclusion(0, 1, TREE.leaves[0], [bytes(32)])
    with pytest.raises(ValueError, match="too short"):
        merkle.root_by_inclusion(0, 2, TREE.leaves[0], [])


@pytest.mark.parametrize("size", SIZES)
def test_a_growing_tree_returns_each_block_that_a_leaf_completes(size: int) -> None:
    growing = merkle.Growing()
    for number, leaf in enumerate(TREE.leaves[:size], start=1):
        completed = growing.append(leaf)
        levels = [level for level in range(8) if number % (1 << level) == 0]
        assert completed == [TREE.block(level, (number >> level) - 1) for level in levels]
        assert (growing.size, growing.root()) == (number, mth(TREE.data[:number]))
        assert growing.blocks == [TREE.block(*place) for place in merkle.blocks(0, number)]


@given(seed=st.integers(0, 2**32))
def test_whatever_blocks_it_grows_by_the_tree_is_the_same(seed: int) -> None:
    rng, size, growing = random.Random(seed), len(TREE.data), merkle.Growing()
    while growing.size < size:
        fitting = [
            level
            for level in range(6)
            if growing.size % (1 << level) == 0 and growing.size + (1 << level) <= size
        ]
        level, first = rng.choice(fitting), growing.size
        before, apart = growing.root(), growing.copy()
        completed = growing.append_block(level, TREE.block(level, first >> level))
        assert completed == [
            TREE.block(one, (growing.size >> one) - 1)
            for one in range(level, level + len(completed))
        ]
        assert growing.size == first + (1 << level)
        assert growing.size % (1 << (level + len(completed))) != 0, "and no larger one"
        assert growing.root() == mth(TREE.data[: growing.size])
        assert (apart.size, apart.root()) == (first, before)


def test_a_block_is_appended_only_where_one_of_its_level_can_begin() -> None:
    growing = merkle.Growing()
    growing.append(TREE.leaves[0])
    for level in (1, 2, 3):
        with pytest.raises(ValueError, match=f"a block of level {level} cannot begin at leaf 1"):
            growing.append_block(level, bytes(32))
    assert (growing.size, growing.root()) == (1, TREE.leaves[0]), "nothing has changed"


@given(st.integers(0, 10**12), st.integers(0, 10**6))
def test_a_range_is_made_up_of_the_largest_blocks(first: int, leaves: int) -> None:
    place = first
    made = list(merkle.blocks(first, first + leaves))
    for level, position in made:
        assert position << level == place, "each follows the one before"
        place += 1 << level
        double = 1 << (level + 1)
        fits = (position << level) % double == 0 and (position << level) + double <= first + leaves
        assert not fits, "no larger one fits"
    assert place == first + leaves
    assert len(made) <= 2 * max(1, leaves.bit_length())


def test_the_hash_of_a_part_of_the_tree_is_that_of_its_leaves() -> None:
    for level in range(5):
        for first in range(0, 32, 1 << level):
            for end in range(first, min(first + (1 << level), 33) + 1):
                part = merkle.root_of(first, end, TREE.block)
                assert part == mth(TREE.data[first:end])
