"""Records of calls of a function, by a decorator."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
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


def decorator(
    record: Callable[..., str], name: str, resource: ResourceOf, fields: Mapping[str, Any]
) -> Callable[[Function], Function]:
    """Return a decorator for functions, with `async def` or without."""

    def decorate(function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{function.__qualname__} is a generator, and its end is not that of its call.")
        recorded = functools.partial(_recorded, record, name, functools.partial(_fields, resource, fields))
        return (_around_coroutine if inspect.iscoroutinefunction(function) else _around)(function, recorded)

    return decorate


@contextmanager
def _recorded(record: Callable[..., str], name: str, fields: Callable[..., Any], call: tuple[Any, Any]) -> Iterator[None]:
    """Record the call that is made within the block. Its exception goes on, also where its record is not taken."""
    try:
        yield
    except BaseException as error:
        try:
            record(name, **fields(call, error))
        except DecklogError as refused:
            logger.error("The record of a failed call was not taken: %s", refused)
        raise
    record(name, **fields(call, None))


def _around(function: Callable[..., Any], recorded: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with recorded((args, kwargs)):
            return function(*args, **kwargs)

    return call


def _around_coroutine(function: Callable[..., Awaitable[Any]], recorded: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with recorded((args, kwargs)):
            return await function(*args, **kwargs)

    return call
