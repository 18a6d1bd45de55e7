"""Merkle trees as in RFC 9162, section 2.1: hashes, proofs of inclusion and of consistency (pure).

    leaf    SHA-256(0x00 || data)
    node    SHA-256(0x01 || left || right)

A block is a complete subtree: `(level, position)` has the 2**level leaves from
`position << level` on. Blocks never change as the tree grows, so that a tree is kept as the hashes
of blocks; every other hash is computed from them. Proofs are lists of hashes, from the leaf upward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

HASH_BYTES = 32
EMPTY = sha256(b"").digest()  # the root of a tree without leaves, as RFC 9162 defines it

# A function that returns the hash of the block at a level and position.
Block = Callable[[int, int], bytes]

# Hashes that have begun: a copy takes less time than a new one.
LEAF = sha256(b"\x00")
_NODE = sha256(b"\x01")


def leaf_hash(data: bytes) -> bytes:
    """Returns the hash of a leaf with the given data."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of a node with the two given children."""
    return sha256(b"\x01" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """Returns the root of the tree over the given hashes of leaves."""
    if not hashes:
        return EMPTY
    level, begin = hashes, _NODE.copy
    while len(level) > 1:
        pairs = iter(level)
        # This is `node_hash` inlined, since it runs once for each event.
        nodes = [
            (node := begin()).update(left + right) or node.digest()  # type: ignore[func-returns-value] # None
            for left, right in zip(pairs, pairs, strict=False)
        ]
        if len(level) & 1:
            nodes.append(level[-1])
        level = nodes
    return level[0]


@dataclass
class Growing:
    """The right edge of a tree: its largest complete blocks, from the left."""

    size: int = 0
    # One block for each 1 in the size's binary form.
    blocks: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> list[bytes]:
        """Appends a leaf's hash; returns the blocks that it completes, from level 0 on."""
        return self.append_block(0, leaf)

    def append_block(self, level: int, block: bytes) -> list[bytes]:
        """Appends a block; returns the blocks that it completes.

        Raises ValueError unless the number of leaves so far is a multiple of the block's.
        """
        if self.size & ((1 << level) - 1):
            raise ValueError(f"a block of level {level} cannot begin at leaf {self.size}")
        completed = [block]
        while self.size >> level & 1:
            completed.append(node_hash(self.blocks.pop(), completed[-1]))
            level += 1
        self.blocks.append(completed[-1])
        self.size += 1 << (level - len(completed) + 1)
        return completed

    def copy(self) -> Growing:
        """Returns a copy, which grows independently of this tree."""
        return Growing(self.size, [*self.blocks])

    def root(self) -> bytes:
        """Returns the root of the tree."""
        return _fold(self.blocks)


def _fold(blocks: Sequence[bytes]) -> bytes:
    """Returns the hash of adjacent blocks, each smaller than the one before it."""
    if not blocks:
        return EMPTY
    digest = blocks[-1]
    for block in reversed(blocks[:-1]):
        digest = node_hash(block, digest)
    return digest


def blocks(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the largest blocks that make up the leaves from `first` to before `end`, in order."""
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield level, first >> level
        first += 1 << level


def root_of(first: int, end: int, block: Block) -> bytes:
    """Returns the hash of a subtree of RFC 9162, the leaves from `first` to before `end`.

    `first` is a multiple of the power of two that is not below their number; 0 for the whole tree.
    """
    return _fold([block(*place) for place in blocks(first, end)])


def inclusion_proof(index: int, size: int, block: Block) -> list[bytes]:
    """Returns the proof that the leaf at `index` is in the tree of `size` leaves."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    proof, first, end = [], 0, size
    while end - first > 1:
        middle = first + _left_leaves(end - first)
        if index < middle:
            proof.append(root_of(middle, end, block))
            end = middle
        else:
            proof.append(root_of(first, middle, block))
            first = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, block: Block) -> list[bytes]:
    """Returns the proof that the tree of `old` leaves is the beginning of the tree of `new`."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in (0, new):
        return []
    # The whole old tree, whose root is known, is left out of the proof.
    proof, first, end, whole = [], 0, new, True
    while old != end:
        middle = first + _left_leaves(end - first)
        if old <= middle:
            proof.append(root_of(middle, end, block))
            end = middle
        else:
            proof.append(root_of(first, middle, block))
            first, whole = middle, False
    if not whole:
        proof.append(root_of(first, end, block))
    proof.reverse()
    return proof


def root_by_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Returns the root that a leaf and its proof give. Raises ValueError if the proof is malformed.

    The algorithm is that of RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    place, last, digest = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if place & 1 or place == last:
            digest = node_hash(sibling, digest)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return digest


def is_consistent(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the proof shows that the old tree is the beginning of the new tree.

    The algorithm is that of RFC 9162, section 2.1.4.2.
    """
    if not 0 <= old <= new:
        return False
    if old == new:
        return old_root == new_root and not proof
    if old == 0:
        return old_root == EMPTY and not proof
    hashes = list(proof)
    if not old & (old - 1):
        hashes.insert(0, old_root)
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _left_leaves(leaves: int) -> int:
    """Returns the largest power of two below the number."""
    return 1 << ((leaves - 1).bit_length() - 1)
