"""The journal: everything that happens to a lifecycle, as records in a file."""

from lifecycle.journal.records import Header, Record
from lifecycle.journal.writer import Journal

__all__ = ["Header", "Journal", "Record"]
