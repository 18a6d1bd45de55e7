"""Signs the heads of a trail, and recognises signatures that the daemon has not made.

A head is signed as the checkpoint of its tree (`logd.audit.checkpoint`). The signing key is not the
database's key: whoever has only the database's key can build another trail, but cannot sign its
head.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

from logd.audit import checkpoint, signed_note
from logd.audit.anchors import Anchor
from logd.audit.checkpoint import Checkpoint
from logd.audit.signed_note import KEY_ID_BYTES, BadSignature, Note, Signature, Signer, Verifier
from logd.config.settings import Config
from logd.errors import KeyFileError
from logd.storage import keyfile
from logd.storage.tree_head import Head

_TRAILS_MAX = 8


def read_private_key(config: Config) -> bytes | None:
    """Reads the key that signs the instance's heads; None if there is none. Raises KeyFileError."""
    private_key = keyfile.read_signing_key(config.signing_key_file)
    key = None
    with suppress(KeyFileError):  # code that needs the database's key reports a problem with it
        key = keyfile.read(config.key_file)
    if private_key is not None and private_key == key:
        raise KeyFileError(
            f"{config.signing_key_file}: is the database's key, and must be another. Remove it, and"
            " make one with `logd genkey`."
        )
    return private_key


def checkpoint_text(trail_id: str, head: Head) -> str:
    """Returns the text of a head that the signature is made over."""
    return checkpoint.format(Checkpoint(checkpoint.origin(trail_id), head.batch, head.hash))


class HeadSigner:
    """Signs the heads of one trail."""

    def __init__(self, trail_id: str, private_key: bytes) -> None:
        self._trail_id = trail_id
        self._signer = Signer(checkpoint.origin(trail_id), private_key)

    @property
    def vkey(self) -> str:
        """The public key with which others check the signatures."""
        return self._signer.vkey

    def note(self, head: Head) -> str:
        """Returns the signed checkpoint of the head."""
        return self.sign(checkpoint_text(self._trail_id, head))

    def sign(self, text: str) -> str:
        """Returns the text as a note with a signature by the trail's key."""
        return signed_note.format(Note(text, (self._signer.sign(text),)))

    def signature(self, head: Head) -> bytes:
        """Returns the key's id followed by the signature, in the form that an anchor has."""
        signed = self._signer.sign(checkpoint_text(self._trail_id, head))
        return signed.key_id + signed.signature


class AnchorSignatures:
    """Checks the signatures of anchors against the instance's own key, under each trail's name."""

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key
        # Only a few verifiers are kept, since whoever
        # writes the log decides how many trails it names.
        self._verifier = lru_cache(maxsize=_TRAILS_MAX)(self._verifier_of)

    def _verifier_of(self, trail_id: str) -> Verifier:
        return Verifier.from_vkey(HeadSigner(trail_id, self._private_key).vkey)

    def is_false(self, anchor: Anchor) -> bool:
        """Whether the anchor has a signature by the instance's key that is not over its head.

        A signature by another key, such as the one before a change of keys, is not false; nor is a
        missing signature.
        """
        if anchor.signature is None or anchor.trail_id is None:
            return False
        key_id, signature = anchor.signature[:KEY_ID_BYTES], anchor.signature[KEY_ID_BYTES:]
        name = checkpoint.origin(anchor.trail_id)
        text = checkpoint_text(anchor.trail_id, anchor.head)
        try:
            note = Note(text, (Signature(name, key_id, signature),))
            self._verifier(anchor.trail_id).verify(note)
        except BadSignature:
            return True
        return False
