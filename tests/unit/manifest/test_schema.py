from __future__ import annotations

import dataclasses
import json
from importlib.resources import files

import jsonschema
import pytest
import yaml

from reconciler.manifest import (
    DatabaseTarget,
    Manifest,
    ManifestError,
    Policy,
    Rollout,
    Timeouts,
    read_manifest,
)
from reconciler.manifest.schema import manifest_schema, manifest_schema_text
from tests.unit.manifest.samples import ACCEPTED, REFUSED

_SCHEMA = manifest_schema()


def _is_valid(text: str) -> bool:
    # JSON knows texts as keys only, and 1.1's octal and base 60 are not at stake in the samples
    document = json.loads(json.dumps(yaml.safe_load(text)))
    validator = jsonschema.Draft7Validator(_SCHEMA)
    return validator.is_valid(document)


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = files("reconciler.manifest").joinpath("manifest.schema.json").read_text(encoding="utf-8")
    assert committed == manifest_schema_text(), (
        "run: python -m reconciler.manifest.schema > reconciler/manifest/manifest.schema.json"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(_SCHEMA)


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_reader_and_schema_accept_the_same(text: str) -> None:
    read_manifest("manifests/dev.yaml", text.encode())
    assert _is_valid(text)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_reader_and_schema_refuse_the_same(text: str) -> None:
    with pytest.raises(ManifestError):
        read_manifest("manifests/dev.yaml", text.encode())
    assert not _is_valid(text)


def _keys(schema: dict[str, object]) -> set[str]:
    properties = schema["properties"]
    assert isinstance(properties, dict)
    return set(properties)


def test_every_field_of_the_values_has_its_key() -> None:
    def fields(of: type) -> set[str]:
        return {field.name for field in dataclasses.fields(of)}

    assert _keys(_SCHEMA) == fields(Manifest) - {"path"} | {"database"}
    for name, of in (("policy", Policy), ("rollout", Rollout), ("timeouts", Timeouts)):
        assert _keys(_SCHEMA["properties"][name]) == fields(of)
    assert _keys(_SCHEMA["definitions"]["database"]) == fields(DatabaseTarget) - {"name"}


def test_every_key_is_described() -> None:
    def check(schema: object) -> None:
        if isinstance(schema, dict):
            for name, key in schema.get("properties", {}).items():
                assert key.get("description") or name in ("env", "file", "gcp_secret"), name
            for part in schema.values():
                check(part)

    check(_SCHEMA)


def test_defaults_are_those_of_the_values() -> None:
    policy = _SCHEMA["properties"]["policy"]["properties"]
    assert policy["max_down_steps"]["default"] == Policy().max_down_steps
    assert policy["approve_down_to"]["default"] is None
    assert _SCHEMA["properties"]["timeouts"]["properties"]["acquire"]["default"] == "5m"
