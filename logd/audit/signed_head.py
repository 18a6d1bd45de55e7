"""`logd checkpoint`: signs a head of the instance's trail, to be kept outside of the machine."""

from __future__ import annotations

from contextlib import closing

from logd.audit.head_signer import HeadSigner, read_private_key
from logd.config.settings import Config
from logd.errors import EXIT_USAGE, KeyFileError, LogdError
from logd.storage import opening, wal
from logd.storage.database import Connection
from logd.storage.trail_id import read_trail_id
from logd.storage.tree import TILE_BATCHES, NotKept, Tree
from logd.storage.tree_head import Head, read_head


class NoSuchHead(LogdError):
    """The trail has no head of the given number of batches, or it cannot be computed any more."""

    exit_code = EXIT_USAGE


def signed_head(config: Config, size: int | None = None) -> str:
    """Returns the signed checkpoint of the newest head, or of the head after `size` batches.

    The head is read beside the daemon, and is on disk on return, since a head must not outlive its
    batch in a power cut. Raises a LogdError.
    """
    with closing(opening.open_for_events(config)) as connection:
        signer = _signer(config, connection)
        connection.execute("BEGIN")
        head, _ = read_head(connection)
        if size is not None:
            head = _earlier(connection, head, size)
    wal.flush_wal(config.database)
    return signer.note(head)


def public_key(config: Config) -> str:
    """Returns the public key (vkey) of the signatures of the trail's heads. Raises a LogdError."""
    with closing(opening.open_for_events(config)) as connection:
        return _signer(config, connection).vkey


def _signer(config: Config, connection: Connection) -> HeadSigner:
    private_key, trail_id = read_private_key(config), read_trail_id(connection)
    if private_key is None or trail_id is None:
        raise KeyFileError(
            f"{config.signing_key_file}: there is no key to sign with. `logd genkey` makes it; then"
            " restart logd, so that it signs the heads that it logs."
        )
    return HeadSigner(trail_id, private_key)


def _earlier(connection: Connection, newest: Head, size: int) -> Head:
    if size > newest.batch:
        raise NoSuchHead(f"{size:,}: the trail has {newest.batch:,} batches.")
    try:
        return Head(size, 0, Tree(connection).root_at(size))
    except NotKept as error:
        lower = size // TILE_BATCHES * TILE_BATCHES
        raise NoSuchHead(
            f"{size:,}: {error}: events of these batches have been removed. The head after"
            f" {lower or TILE_BATCHES:,} batches is kept, as after every {TILE_BATCHES}th."
        ) from error
