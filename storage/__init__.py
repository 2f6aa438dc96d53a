"""SQL storage: tables, journal, hash chain, checkpoints."""

from longthought.storage.audit import AuditReport, Finding, audit
from longthought.storage.digests import as_recorded, canonical
from longthought.storage.events import FORMAT_VERSION, TraceEvent, parse_event
from longthought.storage.export import export_run, verify_export
from longthought.storage.journal import Journal
from longthought.storage.location import data_dir, database_url
from longthought.storage.recording import Event, Recording
from longthought.storage.rows import RunRow
from longthought.storage.store import Store

__all__ = [
    "FORMAT_VERSION",
    "AuditReport",
    "Event",
    "Finding",
    "Journal",
    "Recording",
    "RunRow",
    "Store",
    "TraceEvent",
    "as_recorded",
    "audit",
    "canonical",
    "data_dir",
    "database_url",
    "export_run",
    "parse_event",
    "verify_export",
]
