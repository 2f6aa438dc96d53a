"""The many characters people and models write for the same few signs.

Written as escapes, because several look like their ASCII counterparts.
"""

from __future__ import annotations

__all__ = ["ARITHMETIC", "FRACTION_SLASH", "MINUS", "QUOTES", "TIMES"]

TIMES = "\u00d7\u00b7\u22c5\u2217"
"""Multiplication sign, middle dot, dot operator, asterisk operator."""

MINUS = "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"
"""Minus sign, hyphen, non-breaking hyphen, figure dash, en dash, small and full-width hyphen."""

FRACTION_SLASH = "\u2044"
"""As in the compatibility form of one half."""

QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
"""Quotation marks."""

ARITHMETIC = {
    **dict.fromkeys(map(ord, TIMES), "*"),
    **dict.fromkeys(map(ord, MINUS), "-"),
    **dict.fromkeys(map(ord, "\u00f7\u2215\u2044"), "/"),
    **dict.fromkeys(map(ord, "\uff0b"), "+"),
}
"""For ``str.translate``: every such sign as ``+ - * /``."""
