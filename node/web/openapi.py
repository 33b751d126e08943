"""The interface's description, made of what stands beside the routes: `/openapi.json` and `/docs`.

References
----------
OpenAPI Specification 3.1, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final, Literal

import jinja2
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from converters.errors import CodedError
from node.web import problems
from node.web.operations import JSON, Answer, Endpoint, Operation, Parameter

_SCHEMAS: Final = "#/components/schemas/"
_TITLE: Final = "NeuroSeg Node"
_DESCRIPTION: Final = (
    "What the node received, decided, computed and delivered, and a door to its engine. "
    "Research use only: not for clinical decisions. Nothing here names a patient."
)
_TAGS: Final = {
    "node": "Is it alive, ready, and what does it do.",
    "cases": "One study, one model, one revision each; newest first.",
    "studies": "Instances come in by STOW-RS (DICOM PS3.18 10.5), or the node fetches them.",
    "worklist": "Work items (DICOM PS3.18 11, UPS-RS).",
    "predictions": "The engine for files that you have: four channels in, labels out.",
    "description": "This description.",
}
_PATHS: Final = {
    "case_id": "32 hexadecimal digits, as in the list of cases",
    "prediction_id": "32 hexadecimal digits, as in the answer to the upload",
    "destination": "its name in the settings, as /api/v1/system lists them",
    "study_instance_uid": "Study Instance UID; of all instances where there is a body",
    "workitem": "UID of the work item",
    "name": "a name that the case lists under `files` or `pictures`",
    "view": "which plane",
    "number": "of the slice, from 1, as the case says under `slices`",
}
_FORMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "case_id": {"pattern": "^[0-9a-f]{32}$"},
    "prediction_id": {"pattern": "^[0-9a-f]{32}$"},
    "destination": {"pattern": "^[a-z0-9-]{1,32}$"},
    "study_instance_uid": {"pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64},
    "workitem": {"pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64},
    "view": {"enum": ["axial", "coronal", "sagittal"]},
    "number": {"pattern": "^[1-9][0-9]{0,4}$"},
}
_NAMES: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was not answered (RFC 9457), with the project's own code and what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    advice: str


class Description:
    """The document and its page, for the routes that have one.

    Parameters
    ----------
    routes : sequence of BaseRoute
        Those that are no `Endpoint` are pages for people.
    templates : jinja2.Environment
        Of the pages.
    """

    def __init__(self, routes: Sequence[BaseRoute], templates: jinja2.Environment) -> None:
        self._own = [
            Endpoint("/openapi.json", self.document, _operation("The description as OpenAPI 3.1")),
            Endpoint("/docs", self.page, _operation("The description as a page", "text/html")),
        ]
        self._endpoints = [*(one for one in routes if isinstance(one, Endpoint)), *self._own]
        self._templates = templates

    def routes(self) -> list[BaseRoute]:
        """Return where the description is answered."""
        return [*self._own]

    @cached_property
    def content(self) -> dict[str, Any]:
        """The document."""
        schemas = self._schemas()
        paths: dict[str, dict[str, Any]] = {}
        for endpoint, operation in self._operations():
            described = _described(endpoint, operation)
            paths.setdefault(endpoint.path, {})[operation.method.lower()] = described
        return {
            "openapi": "3.1.1",
            "info": {
                "title": _TITLE,
                "version": version("neuroseg-node"),
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": name, "description": what} for name, what in _TAGS.items()],
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def document(self, _: Request) -> Response:
        """Answer the description for programs."""
        return Response(json.dumps(self.content), media_type=JSON)

    def page(self, _: Request) -> Response:
        """Answer the description for people."""
        groups = {
            name: [
                (path, method, one)
                for path, methods in self.content["paths"].items()
                for method, one in methods.items()
                if name in one["tags"]
            ]
            for name in _TAGS
        }
        template = self._templates.get_template("docs.html")
        return HTMLResponse(template.render(description=self.content, groups=groups, kind=kind_of))

    def _operations(self) -> Iterator[tuple[Endpoint, Operation]]:
        for endpoint in self._endpoints:
            for operation in endpoint.operations:
                yield endpoint, operation

    def _schemas(self) -> dict[str, Any]:
        shapes = {
            answer.shape: None
            for _, operation in self._operations()
            for answer in operation.answers
            if answer.shape is not None
        }
        inputs: list[tuple[type, Literal["serialization"], TypeAdapter[Any]]] = [
            (one, "serialization", TypeAdapter(one)) for one in [*shapes, Problem]
        ]
        _, found = TypeAdapter.json_schemas(inputs, ref_template=_SCHEMAS + "{model}")
        schemas: dict[str, Any] = found["$defs"]
        return schemas


def _operation(what: str, media_type: str = JSON) -> Operation:
    answer = Answer(what="the description", media_type=media_type)
    return Operation(tag="description", what=what, answers=(answer,))


def _described(endpoint: Endpoint, operation: Operation) -> dict[str, Any]:
    answers = {str(one.status.value): _of_answer(one) for one in operation.answers}
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": endpoint.summary(operation),
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{endpoint.path}").strip("_"),
        "parameters": [
            *(_of_path(name) for name in _NAMES.findall(endpoint.path)),
            *(_of_parameter(one) for one in operation.parameters),
        ],
        "responses": {
            **answers,
            **_of_errors(operation.errors),
            "default": _problem("any other refusal"),
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": operation.body}
    return described


def _of_answer(answer: Answer) -> dict[str, Any]:
    if answer.status.value in (204, 304) or not answer.media_type:
        return {"description": answer.what}
    schema: dict[str, Any] = {}
    if answer.shape is not None:
        schema = {"schema": {"$ref": _SCHEMAS + answer.shape.__name__}}
    return {"description": answer.what, "content": {answer.media_type: schema}}


def _of_errors(errors: Sequence[type[CodedError]]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for one in errors:
        status = next(problems.STATUSES[kind] for kind in one.__mro__ if kind in problems.STATUSES)
        by_status.setdefault(status.value, []).append(one.code)
    return {str(status): _problem(", ".join(codes)) for status, codes in by_status.items()}


def _problem(what: str) -> dict[str, Any]:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
    return {"description": what, "content": content}


def _of_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _PATHS[name],
        "schema": {"type": "string", **_FORMS.get(name, {})},
    }


def _of_parameter(one: Parameter) -> dict[str, Any]:
    return {"name": one.name, "in": one.place, "description": one.what, "schema": one.schema}


def kind_of(schema: Mapping[str, Any]) -> str:
    """Return in words what a schema takes, with the names of the shapes that it refers to."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    if choices := [*map(kind_of, schema.get("anyOf", ())), *map(str, schema.get("enum", ()))]:
        return " or ".join(choices)
    if schema.get("type") == "array":
        return _list(schema)
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return f"name to {kind_of(values)}"
    return str(schema.get("format") or schema.get("type", "anything"))


def _list(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(kind_of(one) for one in schema['prefixItems'])}]"
    return f"list of {kind_of(schema.get('items') or {})}"
