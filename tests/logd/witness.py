"""A witness as in c2sp.org/tlog-cosignature, which cosigns whatever it is given."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from logd.audit.signed_note import Note, Signature

COSIGNATURE = b"\x04"


class Witness:
    """Cosigns heads under a name."""

    def __init__(self, name: str) -> None:
        self._name, self._key = name, Ed25519PrivateKey.generate()
        self._public = self._key.public_key().public_bytes_raw()
        self._id = sha256(name.encode() + b"\n" + COSIGNATURE + self._public).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self._name}+{self._id.hex()}+{b64encode(COSIGNATURE + self._public).decode()}"

    def cosign(self, note: Note, time_s: int) -> Note:
        """The note with the witness's signature of that time besides."""
        signature = self._key.sign(f"cosignature/v1\ntime {time_s}\n{note.text}".encode())
        signed = Signature(self._name, self._id, time_s.to_bytes(8, "big") + signature)
        return Note(note.text, (*note.signatures, signed))
