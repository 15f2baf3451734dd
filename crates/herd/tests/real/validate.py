"""Validates documents against a JSON schema: {"schema": ..., "documents": {name: YAML}} on standard input, and on
standard output {name: [errors]}. YAML 1.2 is read by another parser than herd's."""

import json
import sys

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

given = json.load(sys.stdin)
Draft202012Validator.check_schema(given["schema"])
validator = Draft202012Validator(given["schema"])
answer = {}
for name, text in given["documents"].items():
    document = YAML(typ="safe", pure=True).load(text)
    errors = validator.iter_errors({} if document is None else document)
    answer[name] = [f"{error.json_path}: {error.message[:300]}" for error in errors]
json.dump(answer, sys.stdout)
