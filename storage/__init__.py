"""SQL storage: tables, journal, hash chain, checkpoints."""

from longthought.storage.digests import canonical
from longthought.storage.events import FORMAT_VERSION, TraceEvent, parse_event
from longthought.storage.journal import Journal
from longthought.storage.location import data_dir, database_url
from longthought.storage.recording import Event, Recording
from longthought.storage.store import RunRow, Store

__all__ = [
    "FORMAT_VERSION",
    "Event",
    "Journal",
    "Recording",
    "RunRow",
    "Store",
    "TraceEvent",
    "canonical",
    "data_dir",
    "database_url",
    "parse_event",
]
