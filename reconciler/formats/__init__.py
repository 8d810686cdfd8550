"""Migration files, from their bytes to values. One module a format; there is one so far."""

from reconciler.formats.file_name import FileName, leading_version, parse_file_name
from reconciler.formats.native import Notice, ParsedFile, parse, parse_migration

__all__ = [
    "FileName",
    "Notice",
    "ParsedFile",
    "leading_version",
    "parse",
    "parse_file_name",
    "parse_migration",
]
