"""Records of calls of a function, by a decorator."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from decklog_client.errors import ConfigurationError, DecklogError
from decklog_client.scope import merged

Function = TypeVar("Function", bound=Callable[..., Any])
ResourceOf = Mapping[str, Any] | Callable[..., Mapping[str, Any] | None] | None
"""A resource, or a function of the call's arguments that returns it."""

logger = logging.getLogger("decklog_client")


def _fields(
    resource: ResourceOf, fields: Mapping[str, Any], call: tuple[Any, Any], error: BaseException | None
) -> dict[str, Any]:
    """Return the fields of the record of a call."""
    args, kwargs = call
    found = resource(*args, **kwargs) if callable(resource) else resource
    if error is None:
        return {**fields, "resource": found, "outcome": "success"}
    outcome = "denied" if isinstance(error, PermissionError) else "failure"
    return merged({**fields, "resource": found, "outcome": outcome}, {"metadata": {"error": type(error).__name__}})


def _failed(error: DecklogError) -> None:
    """Log that the record of a failed call was not taken: the exception of the call goes on, not this one."""
    logger.error("The record of a failed call was not taken: %s", error)


def decorator(
    record: Callable[..., str], name: str, resource: ResourceOf, fields: Mapping[str, Any]
) -> Callable[[Function], Function]:
    """Return a decorator for functions, with `async def` or without."""

    def decorate(function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{function.__qualname__} is a generator, and its end is not that of its call.")
        if inspect.iscoroutinefunction(function):
            return _around_coroutine(function, record, name, functools.partial(_fields, resource, fields))
        return _around(function, record, name, functools.partial(_fields, resource, fields))

    return decorate


def _around(
    function: Callable[..., Any], record: Callable[..., str], name: str, fields: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            try:
                record(name, **fields((args, kwargs), error))
            except DecklogError as refused:
                _failed(refused)
            raise
        record(name, **fields((args, kwargs), None))
        return result

    return call


def _around_coroutine(
    function: Callable[..., Awaitable[Any]], record: Callable[..., str], name: str, fields: Callable[..., Any]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            try:
                record(name, **fields((args, kwargs), error))
            except DecklogError as refused:
                _failed(refused)
            raise
        record(name, **fields((args, kwargs), None))
        return result

    return call
