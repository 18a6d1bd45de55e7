"""Signed notes as in c2sp.org/signed-note: a text, and signatures of it by named keys (pure).

    Ognuno sta solo sul cuor della terra

    — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5dd...

A key is known by its name and its id, 4 bytes that depend on its name, its type and itself. What
keeps a key to check signatures with is its vkey, a line of text: `name+id+base64`. Two types of
keys are known: Ed25519 (0x01), and the cosignatures of witnesses (0x04, c2sp.org/tlog-cosignature),
which say when the witness saw the text. Signatures by other keys are kept and mean nothing.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import a2b_base64
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# The limits for a note that is parsed.
# The standard asks for at least 16 signatures, of up to 5 kB each.
NOTE_CHARS_MAX = 262_144
SIGNATURES_MAX = 64
NAME_BYTES_MAX = 255

KEY_ID_BYTES = 4
PRIVATE_KEY_BYTES = 32
ED25519 = 0x01
COSIGNATURE = 0x04
_PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = {ED25519: 64, COSIGNATURE: 8 + 64}
_TIME_BYTES = 8
_TIME_MAX = 2**63 - 1
_DASH = "— "
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


class BadSignature(ValueError):
    """A signature that names a known key is not by that key, or not over the note's text."""


@dataclass(frozen=True)
class Signature:
    """A signature line: the name and id of its key, and the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Note:
    """A text, which ends with a newline, and its signatures."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Verified:
    """The key that signed a text, and the time of a cosignature in seconds since 1970, or None."""

    name: str
    key_id: bytes
    time_s: int | None = None


def parse(text: str) -> Note:
    """Returns the note with this text form. Raises ValueError, which says what is wrong."""
    if len(text) > NOTE_CHARS_MAX:
        raise ValueError(f"the note is longer than {NOTE_CHARS_MAX:,} characters")
    check_text(text)
    end = text.rfind("\n\n")
    if end < 0:
        raise ValueError("the note has no empty line before its signatures")
    lines = text[end + 2 : -1].split("\n") if end + 2 < len(text) else []
    if not lines:
        raise ValueError("the note has no signatures")
    if len(lines) > SIGNATURES_MAX:
        raise ValueError(f"the note has more than {SIGNATURES_MAX} signatures")
    signatures = tuple(_parse_line(line) for line in lines)
    if len(set(signatures)) != len(signatures):
        raise ValueError("the note has the same signature twice")
    return Note(text[: end + 1], signatures)


def format(note: Note) -> str:
    """Returns the note as text. Raises ValueError if `parse` would refuse it."""
    lines = (
        f"{_DASH}{signature.name} {encode_base64(signature.key_id + signature.signature)}\n"
        for signature in note.signatures
    )
    text = f"{note.text}\n{''.join(lines)}"
    if parse(text) != note:
        raise ValueError("the note is not one text with its signatures")
    return text


def check_text(text: str) -> None:
    """Raises ValueError if the text cannot be the text of a note, or a whole note."""
    if not text.endswith("\n"):
        raise ValueError("the text does not end with a newline")
    if any(character < " " and character != "\n" for character in text):
        raise ValueError("the text has a control character other than newline")
    if not _is_unicode(text):
        raise ValueError("the text is not valid UTF-8")


def check_name(name: str) -> None:
    """Raises ValueError if the text cannot be the name of a key."""
    if not name or any(character.isspace() or character in "+\0" for character in name):
        raise ValueError("a key's name is empty, or has a space or a plus sign")
    if not _is_unicode(name) or len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"a key's name is longer than {NAME_BYTES_MAX} bytes, or not valid UTF-8")


def encode_base64(raw: bytes) -> str:
    """Returns the standard base64 of the bytes."""
    return b64encode(raw).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Returns the bytes of a base64 text. Raises ValueError unless it is their only base64 text."""
    try:
        raw = a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:  # binascii.Error is a ValueError too
        raise ValueError("not valid base64") from error
    if encode_base64(raw) != text:
        raise ValueError("not valid base64")
    return raw


def new_private_key() -> bytes:
    """Returns a new random private key."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


class Signer:
    """Signs texts with an Ed25519 key that has a name."""

    def __init__(self, name: str, private_key: bytes) -> None:
        check_name(name)
        self._name = name
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._public = self._key.public_key().public_bytes_raw()
        self._key_id = _key_id(name, ED25519, self._public)

    @property
    def vkey(self) -> str:
        """The public key that checks these signatures, as a line of text."""
        material = encode_base64(bytes([ED25519]) + self._public)
        return f"{self._name}+{self._key_id.hex()}+{material}"

    def sign(self, text: str) -> Signature:
        """Returns the signature of the text.

        Raises ValueError if the text cannot be that of a note.
        """
        check_text(text)
        return Signature(self._name, self._key_id, self._key.sign(text.encode()))


@dataclass(frozen=True)
class Verifier:
    """Checks the signatures of one key."""

    name: str
    key_id: bytes
    kind: int
    public_key: bytes

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Returns the verifier of a public key (vkey).

        Raises ValueError, which says what is wrong.
        """
        name, _, rest = vkey.partition("+")
        key_id, _, material = rest.partition("+")
        check_name(name)
        if not _KEY_ID.fullmatch(key_id):
            raise ValueError("expected a verifier key: name+id+base64, its id 8 hexadecimal digits")
        raw = decode_base64(material)
        kind, public_key = raw[:1], raw[1:]
        if not kind or kind[0] not in _SIGNATURE_BYTES:
            raise ValueError("the verifier key is neither of Ed25519 (1) nor of a witness (4)")
        if len(public_key) != _PUBLIC_KEY_BYTES:
            raise ValueError(f"the verifier key has {len(public_key)} bytes, not 32")
        if _key_id(name, kind[0], public_key) != bytes.fromhex(key_id):
            raise ValueError("the verifier key's id is not that of its name and key")
        return cls(name, bytes.fromhex(key_id), kind[0], public_key)

    def verify(self, note: Note) -> Verified | None:
        """Returns the verified signature by this key, the latest of several; None if there is none.

        Raises BadSignature if a signature names this key and does not verify: then the note is to
        be refused.
        """
        found = [
            self._verify(note.text, signature.signature)
            for signature in note.signatures
            if (signature.name, signature.key_id) == (self.name, self.key_id)
        ]
        return max(found, key=lambda verified: verified.time_s or 0, default=None)

    def _verify(self, text: str, signature: bytes) -> Verified:
        time_s = None
        signed = text.encode()
        if len(signature) == _SIGNATURE_BYTES[self.kind]:
            if self.kind == COSIGNATURE:
                time_s = int.from_bytes(signature[:_TIME_BYTES], "big")
                signed = b"cosignature/v1\ntime %d\n" % time_s + signed
            try:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature[-64:], signed)
                if time_s is None or time_s <= _TIME_MAX:
                    return Verified(self.name, self.key_id, time_s)
            except InvalidSignature:
                pass
        raise BadSignature(f"the signature by {self.name}+{self.key_id.hex()} does not verify")


def _key_id(name: str, kind: int, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:KEY_ID_BYTES]


def _is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates, which stand for bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parse_line(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH):
        raise ValueError("a line after the note's last empty line is not a signature")
    check_name(name)
    try:
        raw = decode_base64(encoded)
    except ValueError as error:
        raise ValueError(f"a signature by {name} is {error}") from error
    if len(raw) <= KEY_ID_BYTES:
        raise ValueError(f"a signature by {name} is too short")
    return Signature(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])
