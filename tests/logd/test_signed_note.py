"""Signed notes: the published examples, and every other byte refused."""

from __future__ import annotations

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from logd.audit import signed_note
from logd.audit.signed_note import BadSignature, Note, Signature, Signer, Verified, Verifier

# Of the documentation of golang.org/x/mod/sumdb/note.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_PRIVATE = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
NO_BREAK = "Peter\u00a0N"
TEXT = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.
"""
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZ"
    "b6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33"
    "WWd1RvMc+QQ=\n"
)
# Of c2sp.org/signed-note, whose text has an empty line.
POEM = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0\
xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
# Signed by aics-tlog 0.2.1, with the private keys 00..1f and 20..3f.
LOG = "logd/9f1c00112233aabb+b750fbc2+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
WITNESS = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"
COSIGNED = """\
logd/9f1c00112233aabb
812
SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=

— logd/9f1c00112233aabb t1D7wlFfWzBBHJ/x+WDhHTk2cucQj20OcHeB+y7+QxzbwS0Xq2nK/FYZmfMsRWvL46+D3Sxv\
xSUKRI7YYC0Gc/FiqQA=
— witness.example/w1 IDJKvgAAAABkGFDL8Kv6ySf0dPAaNLlCgP9r66wYNn/8ipkMiEuPxqPLXRykVGTBGUXT0gnfq113\
rxjjVyhTOT7sAsNFsy/QB7AqCA==
"""


def test_the_example_of_go_is_signed_and_verified_to_the_byte() -> None:
    signer = Signer("PeterNeumann", PETER_PRIVATE)
    assert signer.vkey == PETER
    note = Note(TEXT, (signer.sign(TEXT),))
    assert signed_note.format(note) == f"{TEXT}\n{PETER_LINE}"
    both = signed_note.parse(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}")
    assert (both.text, both.signatures[0]) == (TEXT, note.signatures[0])
    for vkey in (PETER, ENOCH):
        verifier = Verifier.from_vkey(vkey)
        assert verifier.verify(both) == Verified(vkey.split("+")[0], verifier.key_id)
    assert Verifier.from_vkey(ENOCH).verify(note) is None


def test_the_text_of_a_note_ends_at_its_last_empty_line() -> None:
    note = signed_note.parse(POEM)
    assert note.text.endswith("di sole:\n\ned è subito sera.\n")
    assert [s.name for s in note.signatures] == ["quasimodo.example/salvatore"]
    assert signed_note.format(note) == POEM


def test_a_cosignature_says_when_the_witness_saw_the_text() -> None:
    note = signed_note.parse(COSIGNED)
    assert signed_note.format(note) == COSIGNED
    log, witness = Verifier.from_vkey(LOG), Verifier.from_vkey(WITNESS)
    assert log.verify(note) == Verified("logd/9f1c00112233aabb", log.key_id)
    assert witness.verify(note) == Verified("witness.example/w1", witness.key_id, 1679315147)
    assert Signer("logd/9f1c00112233aabb", bytes(range(32))).vkey == LOG


@pytest.mark.parametrize(("time_s", "is_valid"), [(0, True), (2**63 - 1, True), (2**63, False)])
def test_a_cosignature_of_a_time_that_no_clock_has_is_refused(time_s: int, is_valid: bool) -> None:
    witness = Verifier.from_vkey(WITNESS)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
    signed = key.sign(f"cosignature/v1\ntime {time_s}\n{TEXT}".encode())
    signature = Signature(witness.name, witness.key_id, time_s.to_bytes(8, "big") + signed)
    note = Note(TEXT, (signature,))
    if is_valid:
        assert witness.verify(note) == Verified(witness.name, witness.key_id, time_s)
    else:
        with pytest.raises(BadSignature):
            witness.verify(note)


def test_of_several_cosignatures_the_latest_counts_and_all_must_be_valid() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
    witness = Verifier.from_vkey(WITNESS)
    signatures = tuple(
        Signature(
            witness.name,
            witness.key_id,
            time_s.to_bytes(8, "big") + key.sign(b"cosignature/v1\ntime %d\nx\n" % time_s),
        )
        for time_s in (5, 9, 7)
    )
    assert witness.verify(Note("x\n", signatures)) == Verified(witness.name, witness.key_id, 9)
    with pytest.raises(BadSignature):
        witness.verify(Note("y\n", signatures))


def test_a_changed_text_or_signature_of_a_known_key_is_refused() -> None:
    note = signed_note.parse(COSIGNED)
    for vkey in (LOG, WITNESS):
        verifier = Verifier.from_vkey(vkey)
        (own,) = [s for s in note.signatures if s.name == verifier.name]
        other_texts = [Note(note.text.replace("812", "813"), note.signatures)]
        for index in range(len(own.signature)):
            changed = bytearray(own.signature)
            changed[index] ^= 1
            other_texts.append(
                Note(note.text, (Signature(own.name, own.key_id, bytes(changed)), own))
            )
        for length in (1, 8, 63, 64, 71):
            if length < len(own.signature):
                short = Signature(own.name, own.key_id, own.signature[:length])
                other_texts.append(Note(note.text, (short,)))
        for longer in (b"\0" + own.signature, own.signature[:8] + own.signature, bytes(64)):
            other_texts.append(Note(note.text, (Signature(own.name, own.key_id, longer),)))
        for other in other_texts:
            with pytest.raises(BadSignature, match=r"the signature by \S+ does not verify"):
                verifier.verify(other)


def test_a_signature_by_another_key_of_that_name_or_id_means_nothing() -> None:
    note = signed_note.parse(COSIGNED)
    log = Verifier.from_vkey(LOG)
    own = note.signatures[0]
    for other in (
        Signature("logd/0000000000000000", own.key_id, own.signature),
        Signature(own.name, b"\0\0\0\0", own.signature),
    ):
        assert log.verify(Note(note.text, (other,))) is None


def test_every_part_and_every_changed_byte_of_a_vkey_is_refused() -> None:
    for vkey in (PETER, LOG, WITNESS):
        for start in range(len(vkey)):
            for end in range(start + 1, len(vkey) + 1):
                if end - start < len(vkey):
                    with pytest.raises(ValueError, match=r"key|base64"):
                        Verifier.from_vkey(vkey[start:end])
        for index, character in enumerate(vkey):
            with pytest.raises(ValueError, match=r"key|base64"):
                Verifier.from_vkey(f"{vkey[:index]}{chr(ord(character) + 1)}{vkey[index + 1 :]}")
    # The id is that of a longer key, and of an unknown type.
    for bad in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        f"{PETER}\n",
        PETER.replace("c74f20a3", "C74F20A3"),
    ):
        with pytest.raises(ValueError, match=r"key|base64"):
            Verifier.from_vkey(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not end with a newline"),
        ("\n", "no empty line before its signatures"),
        (TEXT, "no empty line before its signatures"),
        (f"{TEXT}\n", "has no signatures"),
        (f"{TEXT}{PETER_LINE}", "no empty line before its signatures"),
        (f"{TEXT}\n{PETER_LINE[:-1]}", "does not end with a newline"),
        (f"{TEXT}\n{PETER_LINE}\n", "has no signatures"),
        (f"{TEXT}\n{PETER_LINE}\n\n", "has no signatures"),
        (f"{TEXT}\nand more\n{PETER_LINE}", "is not a signature"),
        (f"{TEXT}\n{PETER_LINE.replace('—', '-')}", "is not a signature"),
        (f"{TEXT}\n{PETER_LINE[1:]}", "is not a signature"),
        (f"{TEXT}\n{PETER_LINE}{PETER_LINE}", "the same signature twice"),
        (f"{TEXT}\n{PETER_LINE.replace('PeterNeumann ', ' ')}", "key's name"),
        (f"{TEXT}\n{PETER_LINE.replace('PeterN', 'Peter+N')}", "key's name"),
        (f"{TEXT}\n{PETER_LINE.replace('PeterN', NO_BREAK)}", "key's name"),
        (f"{TEXT}\n{PETER_LINE.replace('PeterN', 'P' * 256)}", "longer than 255 bytes"),
        (f"{TEXT}\n{PETER_LINE.replace('=', '')}", "not valid base64"),
        (f"{TEXT}\n{PETER_LINE.replace('=', '==')}", "not valid base64"),
        (f"{TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}", "not valid base64"),
        (f"{TEXT}\n{PETER_LINE.replace('x08g', 'x08 g')}", "not valid base64"),
        (f"{TEXT}\n{PETER_LINE.replace('x08g', '-08g')}", "not valid base64"),
        (f"{TEXT}\n{PETER_LINE.replace('x08g', 'é08g')}", "not valid base64"),
        (f"{TEXT}\n— PeterNeumann x08goA==\n", "too short|not valid"),
        (f"{TEXT}\n— PeterNeumann x08gow==\n", "too short"),
        (f"{TEXT}\n— PeterNeumann \n", "too short"),
        (f"{TEXT}\r\n{PETER_LINE}", "control character"),
        (f"{TEXT}\n{PETER_LINE}".replace("\n", "\r\n"), "control character"),
        (f"\0{TEXT}\n{PETER_LINE}", "control character"),
        (f"\x1b[2J{TEXT}\n{PETER_LINE}", "control character"),
        (f"\udcff{TEXT}\n{PETER_LINE}", "not valid UTF-8"),
        (f"{'a' * signed_note.NOTE_CHARS_MAX}\n\n{PETER_LINE}", "longer than 262,144 characters"),
    ],
)
def test_what_is_not_a_note_is_refused_by_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signed_note.parse(text)


def test_a_note_with_any_character_changed_is_not_verified_by_both_keys() -> None:
    """And what is read as a note has no other text than the one that was read."""
    verifiers = [Verifier.from_vkey(vkey) for vkey in (LOG, WITNESS)]
    read = 0
    for index, character in enumerate(COSIGNED):
        for new in ("", "A", "\n", " ", "=", "—", character * 2):
            text = f"{COSIGNED[:index]}{new}{COSIGNED[index + 1 :]}"
            if text == COSIGNED:
                continue
            try:
                note = signed_note.parse(text)
            except ValueError:
                continue
            read += 1
            assert signed_note.format(note) == text
            with contextlib.suppress(BadSignature):
                assert None in [verifier.verify(note) for verifier in verifiers]
    assert read > 300


def test_a_note_has_at_most_sixty_four_signatures() -> None:
    lines = [
        f"— k{number} {base64.b64encode(bytes(68)).decode()}\n"
        for number in range(signed_note.SIGNATURES_MAX + 1)
    ]
    assert len(signed_note.parse(f"{TEXT}\n{''.join(lines[:-1])}").signatures) == 64
    with pytest.raises(ValueError, match="more than 64 signatures"):
        signed_note.parse(f"{TEXT}\n{''.join(lines)}")


def test_what_would_not_be_read_again_is_not_signed_or_written() -> None:
    signer = Signer("PeterNeumann", PETER_PRIVATE)
    signature = signer.sign(TEXT)
    for text in ("", "no newline", "a\tb\n", "\udc80\n"):
        with pytest.raises(ValueError, match="the text"):
            signer.sign(text)
        with pytest.raises(ValueError, match=r"the text|the note"):
            signed_note.format(Note(text, (signature,)))
    with pytest.raises(ValueError, match="no signatures"):
        signed_note.format(Note(TEXT, ()))
    for name in ("", "a b", "a+b", "a\nb", "é" * 128):
        with pytest.raises(ValueError, match="key's name"):
            Signer(name, PETER_PRIVATE)
        with pytest.raises(ValueError, match=r"key's name|a signature"):
            signed_note.format(Note(TEXT, (Signature(name, bytes(4), bytes(64)),)))


def test_new_private_keys_differ_and_sign() -> None:
    keys = {signed_note.new_private_key() for _ in range(4)}
    assert len(keys) == 4
    for key in keys:
        signer = Signer("name", key)
        note = Note(TEXT, (signer.sign(TEXT),))
        assert Verifier.from_vkey(signer.vkey).verify(note) is not None
        assert key.hex() not in f"{signer!r}{signer.vkey}"
