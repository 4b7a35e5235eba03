"""JSON bodies of searches: the fields of the form, each in JSON's own types."""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import UploadFile
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError, create_model

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import APIRouter, Request, Response

JSON_TYPE = "application/json"
IMAGE_FIELDS = {"image", "liked_image", "disliked_image"}
LIST_TEXTS = {"box", "weights"}  # lists of numbers, which a form writes with commas

Base64Image = Annotated[
    str, Field(description="An image file in base64, with or without 'data:image/...;base64,'.")
]
OTHER_TYPES: dict[str, tuple[Any, Any]] = {  # fields that JSON writes otherwise than a form
    "where": (dict[str, Any] | str | None, {"folder": "sea", "price": {"max": 50}}),
    "box": (list[float] | None, [0.5, 0, 1, 1]),
    "weights": (list[float] | None, [1, 0.5]),
}


def json_model(form: type[BaseModel]) -> type[BaseModel]:
    """Return a model of a form's fields as JSON writes them, for the schema."""
    fields: dict[str, Any] = {}
    for name, field in form.model_fields.items():
        kind, example = OTHER_TYPES.get(name, (field.annotation, None))
        if name in IMAGE_FIELDS:
            kind = list[Base64Image]
        info = Field(
            ... if field.is_required() else field.get_default(call_default_factory=True),
            description=field.description,
            examples=[example] if example is not None else field.examples,
        )
        fields[name] = (kind, info)
    name = form.__name__.replace("Form", "Json")
    return create_model(name, __doc__=form.__doc__, __config__=form.model_config, **fields)


class JsonOrFormRoute(APIRoute):
    """A route whose one parameter is a form, and which takes the same fields as JSON, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request, whatever its body is."""
        answer_form = super().get_route_handler()
        model = form_of(self)

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if model is None or kind != JSON_TYPE:
                return await answer_form(request)
            flags, errors = request_params_to_args(
                self.dependant.query_params, request.query_params
            )
            if errors:
                raise RequestValidationError(errors)
            response: Response = await self.endpoint(_read(model, await request.body()), **flags)
            return response

        return handle


def form_of(route: APIRoute) -> type[BaseModel] | None:
    """Return the model of a route's form, if it has one."""
    if not route.dependant.body_params:
        return None
    annotation = route.dependant.body_params[0].field_info.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) else None


def forms_of(router: APIRouter) -> dict[str, type[BaseModel]]:
    """Return the models of a router's forms, by their paths."""
    routes = [each for each in router.routes if isinstance(each, APIRoute)]
    return {each.path: form for each in routes if (form := form_of(each)) is not None}


def _read(model: type[BaseModel], body: bytes) -> BaseModel:
    """Read a JSON body as the form it stands for.

    Raises
    ------
    RequestValidationError
        If it is no JSON object, or a field is wrong.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _problem(("body",), f"this is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise _problem(("body",), 'give an object with the fields of a search, such as {"row": 42}')
    lists = {n for n, each in model.model_fields.items() if get_origin(each.annotation) is list}
    fields = {
        name: _form_value(name, value, lists) for name, value in given.items() if value is not None
    }
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        ) from None


def _form_value(name: str, value: Any, lists: set[str]) -> Any:  # noqa: ANN401
    """Return a JSON value as a form writes it; one value of a list need not stand in one."""
    if name in IMAGE_FIELDS:
        return [_decode(name, each) for each in (value if isinstance(value, list) else [value])]
    if name == "where":
        return value if isinstance(value, str) else json.dumps(value)
    if name in LIST_TEXTS and isinstance(value, list):
        return ",".join(str(each) for each in value)
    if name in lists and not isinstance(value, list):
        return [value]
    return value


def _decode(name: str, text: Any) -> UploadFile:  # noqa: ANN401
    """Return a base64 text as an uploaded file."""
    if not isinstance(text, str):
        raise _problem(("body", name), "give the image file as text in base64")
    head, comma, data = text.partition(",")
    try:
        content = base64.b64decode(
            data if comma and head.startswith("data:") else text, validate=True
        )
    except (binascii.Error, ValueError):
        raise _problem(
            ("body", name), "this is not base64, as which JSON carries an image"
        ) from None
    return UploadFile(io.BytesIO(content), size=len(content))


def _problem(place: tuple[str, ...], text: str) -> RequestValidationError:
    return RequestValidationError([{"type": "json", "loc": place, "msg": text, "input": None}])
