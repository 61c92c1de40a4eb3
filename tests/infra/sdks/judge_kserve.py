"""Reads manifests with the classes that KServe generates from its schemas."""

import re
from pathlib import Path
from typing import Any

import yaml
from judging import enter_package, judge

enter_package("kserve")

from kserve import models  # noqa: E402 - only now


def read(path: Path) -> dict[str, Any]:
    """Its documents, by kind.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is not of KServe's kinds, or of other fields; or there is none.
    """
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    if not documents:
        raise ValueError("there is nothing in it")
    for document in documents:
        group, version = document["apiVersion"].split("/")
        type_name = f"{version.capitalize()}{document['kind']}"
        if group != "serving.kserve.io" or not hasattr(models, type_name):
            raise ValueError(f"{document['apiVersion']} {document['kind']} is not KServe's")
        check(document, type_name, document["kind"])
    return {document["kind"]: document for document in documents}


def check(value: Any, type_name: str, where: str) -> None:
    """Compare a value with a class of KServe's, and what is in it.

    Raises:
        TypeError: It is of another type.
        ValueError: It has a field that its class has not, or lacks one.
    """
    if inner := re.fullmatch(r"list\[(.+)\]", type_name):
        require(value, list, where)
        for index, each in enumerate(value):
            check(each, inner[1], f"{where}[{index}]")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", type_name):
        require(value, dict, where)
        for key, each in value.items():
            check(each, inner[1], f"{where}.{key}")
    elif type_name in {"str", "int", "bool", "float"}:
        require(value, {"str": str, "int": int, "bool": bool, "float": float}[type_name], where)
    elif model := getattr(models, type_name, None):
        require(value, dict, where)
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        if unknown := value.keys() - names.keys():
            raise ValueError(f"{where} has no {sorted(unknown)}")
        for key, each in value.items():
            check(each, model.openapi_types[names[key]], f"{where}.{key}")
        model(**{names[key]: each for key, each in value.items()})  # which wants what is required
    # What is left is Kubernetes' own, and judged by its schemas.


def require(value: Any, expected: type, where: str) -> None:
    """Refuse what is of another type.

    Raises:
        TypeError: It is.
    """
    if type(value) is not expected:
        raise TypeError(f"{where} is of {type(value).__name__}, not {expected.__name__}")


if __name__ == "__main__":
    judge(read)
