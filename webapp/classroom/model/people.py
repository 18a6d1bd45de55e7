"""Finds the accounts that a text means: a number, a login, or part of a name or login."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from webapp.classroom.model.accounts import Role, User

# Marks a user id that is taken as it is: other applications log users that are no accounts here.
EXACT = "="


class People:
    """All accounts, by the texts that people type. The trail outlives accounts, so that any number
    is a user id too.
    """

    def __init__(self, users: Iterable[User]) -> None:
        self.by_key = {user.key: user for user in users}
        self._spelled = {
            key: (_plain(user.login), _plain(user.name)) for key, user in self.by_key.items()
        }

    def keys(self, text: str) -> tuple[str, ...]:
        """Returns the user ids that a text means, () if there are none.

        It is one id for a number, for a login, and for a text after EXACT; otherwise all accounts
        whose name or login contains the text, whatever its case and accents.
        """
        if text.startswith(EXACT):
            return (text[len(EXACT) :],) if len(text) > len(EXACT) else ()
        if text.isascii() and text.isdigit():
            return (text,)
        plain = _plain(text)
        for key, (login, _name) in self._spelled.items():
            if login == plain:
                return (key,)
        return tuple(
            key
            for key, (login, name) in self._spelled.items()
            if plain and (plain in login or plain in name)
        )

    def text_for(self, key: str) -> str:
        """Returns a text that means exactly this user id."""
        return key if key.isascii() and key.isdigit() else EXACT + key

    def name(self, key: str) -> str:
        """Returns the account's name with the id, or the id alone if there is no such account."""
        user = self.by_key.get(key)
        return f"#{key}" if user is None else f"{user.name} #{key}"

    def of_role(self, role: Role) -> frozenset[str]:
        return frozenset(key for key, user in self.by_key.items() if user.role is role)


def _plain(text: str) -> str:
    """Returns the text without case, accents and repeated spaces."""
    apart = unicodedata.normalize("NFKD", text)
    kept = "".join(char for char in apart if not unicodedata.combining(char))
    return " ".join(kept.casefold().split())
