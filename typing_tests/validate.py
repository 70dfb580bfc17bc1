"""Validation as users type it: checked by mypy --strict and pyright, never run."""

from typing import Any, assert_type

import protovalidate

from interpose import Interceptor, Method, Side, server_interceptor, when
from interpose.contrib.validate import InvalidDetails, Validate, ValidateState, Validator


def invalid(details: InvalidDetails) -> None:
    assert_type(details.method, Method)
    assert_type(details.side, Side)
    assert_type(details.direction, str)
    assert_type(details.number, int)
    assert_type(details.violations, tuple[Any, ...])


validators: list[Validator] = [protovalidate.Validator()]
stack: list[Interceptor] = [
    Validate(),
    when("/shop.v1.Orders/*", Validate(responses=True, on_invalid=invalid)),
    Validate(requests=False, responses=True, full_report=0, validator=protovalidate.Validator()),
]
server_interceptor(*stack)
assert_type(Validate().snapshot(), ValidateState)
