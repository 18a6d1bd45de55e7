"""Checkpoints: the published example, and no other text of the same head."""

from __future__ import annotations

import base64

import pytest

from logd.audit import checkpoint, signed_note
from logd.audit.checkpoint import Checkpoint

# Of c2sp.org/tlog-cosignature.
EXAMPLE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gG\
zGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin\
1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


def test_the_example_of_the_standard_is_read_and_written_to_the_byte() -> None:
    note = signed_note.parse(EXAMPLE)
    assert signed_note.format(note) == EXAMPLE
    assert len(note.signatures) == 2
    assert checkpoint.parse(note.text) == Checkpoint(
        "example.com/behind-the-sofa", 20852163, base64.b64decode(ROOT)
    )
    assert checkpoint.format(checkpoint.parse(note.text)) == note.text


def test_the_origin_of_a_trail_is_a_name_that_a_key_can_have() -> None:
    assert checkpoint.origin("9f1c00112233aabb") == "logd/9f1c00112233aabb"
    signed_note.check_name(checkpoint.origin("9f1c00112233aabb"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "three lines"),
        (f"log\n7\n{ROOT}", "three lines"),
        (f"log\n7\n{ROOT}\nextension\n", "three lines"),
        (f"log\n7\n{ROOT}\n\n", "three lines"),
        ("log\n7\n", "three lines"),
        (f"\n7\n{ROOT}\n", "name is empty"),
        (f"a log\n7\n{ROOT}\n", "has a space"),
        (f"log\n07\n{ROOT}\n", "size"),
        (f"log\n+7\n{ROOT}\n", "size"),
        (f"log\n-7\n{ROOT}\n", "size"),
        (f"log\n 7\n{ROOT}\n", "size"),
        (f"log\n\n{ROOT}\n", "size"),
        (f"log\n7_0\n{ROOT}\n", "size"),
        (f"log\n\u0667\n{ROOT}\n", "size"),
        (f"log\n{'9' * 19}\n{ROOT}\n", "size"),
        (f"log\n7\n{ROOT[:-1]}\n", "root is not valid base64"),
        (f"log\n7\n{ROOT[:-2]}J=\n", "root is not valid base64"),
        (f"log\n7\n{ROOT[4:]}\n", "root has 29 bytes, not 32"),
        ("log\n7\n\n", "root has 0 bytes, not 32"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused_by_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoint.parse(text)


def test_a_tree_may_be_empty_and_as_large_as_a_trail_can_be() -> None:
    for size in ("0", "1", "9" * 18):
        assert checkpoint.parse(f"log\n{size}\n{ROOT}\n").size == int(size)
