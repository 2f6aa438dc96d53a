"""What must never be seen: keys, passwords and header values are taken out of errors and logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote
from weakref import WeakSet

__all__ = ["Secrets"]

_SHORTEST = 6
_MASK = "***"
_LOGGERS = (
    "openai",
    "openai._base_client",
    "openai._legacy_response",
    "openai._response",
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)
"""Who logs what our calls carry: the address at INFO, the headers of replies at DEBUG."""


class Secrets:
    """Texts to be hidden, in every form in which a server or a library may repeat them.

    As long as it lives they are hidden from the logs of the HTTP client, too.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        forms: set[str] = set()
        for text in texts:
            # Of `Bearer KEY` the key alone is the secret.
            for secret in {text, text.strip(), text.strip().rpartition(" ")[2], unquote(text)}:
                quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
                escaped = {json.dumps(secret)[1:-1], repr(secret)[1:-1]}
                forms |= {secret, *quoted, *escaped}
        # Short values are no secrets, and taking them out would garble every message.
        kept = [form for form in forms if len(form) >= _SHORTEST]
        self._forms = sorted(kept, key=len, reverse=True)
        if self._forms:
            _ALL.add(self)
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(_FILTER)

    def hidden_in(self, text: str) -> str:
        """The text with every secret replaced by stars."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text


class _Filter(logging.Filter):
    """Hides the secrets of all models that are in use from one logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a record that cannot be formatted is its logger's own matter
            return True
        hidden = message
        for secrets in list(_ALL):
            hidden = secrets.hidden_in(hidden)
        if hidden != message:
            record.msg, record.args = hidden, None
        return True


_ALL: WeakSet[Secrets] = WeakSet()
_FILTER = _Filter()
