"""The formats that traces come in, read as records."""

from lifecycle.trace.formats.readers import batches, read

__all__ = ["batches", "read"]
