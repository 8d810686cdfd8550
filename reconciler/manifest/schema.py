"""The manifest's JSON Schema, for editors and for checks outside of this program.

`python -m reconciler.manifest.schema > reconciler/manifest/manifest.schema.json` writes the committed copy anew.
"""

from __future__ import annotations

import json
from typing import Any

from reconciler.manifest.keys import DATABASE, DATABASES, DEFINITIONS, MANIFEST


def manifest_schema() -> dict[str, Any]:
    """The schema, in draft 7, which every editor knows."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A manifest of reconciler: one environment and the version its databases are brought to",
        **MANIFEST.schema(),
        "oneOf": [{"required": [DATABASE]}, {"required": [DATABASES]}],
        "definitions": {
            name: schema for shared in DEFINITIONS for name, schema in shared.definition().items()
        },
    }


def manifest_schema_text() -> str:
    """The schema as the text of a file."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(manifest_schema_text(), end="")
