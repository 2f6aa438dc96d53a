"""What a name has to be like: one that every database can hold, and of signals one that shows."""

from __future__ import annotations

import unicodedata

from longthought.errors import InvalidInput

__all__ = ["check_signal_name", "check_text"]


def check_text(field: str, text: str) -> None:
    """Refuse what not every database can hold in a column of its own.

    Raises:
        InvalidInput: it cannot be encoded, or holds a NUL character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, f"{text!r} is no valid text") from error
    if "\0" in text:
        raise InvalidInput(field, f"{text!r} holds a NUL character")


def check_signal_name(field: str, name: str) -> None:
    """Refuse what cannot be the name of a signal, for those who send it and those who wait for it.

    Raises:
        InvalidInput: it is no text, is empty, or holds control characters.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInput(
            field, f"{name!r} is no name", "Give the name of the signal, as 'review'"
        )
    check_text(field, name)
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InvalidInput(field, f"{name!r} holds control characters", "Use a plain name")
