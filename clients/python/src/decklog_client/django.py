"""Middleware for Django, with and without async. It imports nothing of Django."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from decklog_client.scope import context


class AuditContext:
    """Gives the records of a request its user, its source and its correlation id."""

    sync_capable = True
    async_capable = True

    def __call__(self, get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the middleware around the next one."""
        if inspect.iscoroutinefunction(get_response):
            return _asynchronous(get_response)

        def middleware(request: Any) -> Any:
            with _context(request):
                return get_response(request)

        return middleware


audit_context = AuditContext()
"""For the list `MIDDLEWARE`, as "decklog_client.django.audit_context", behind authentication."""


def _asynchronous(get_response: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def middleware(request: Any) -> Any:
        with _context(request):
            return await get_response(request)

    return middleware


def _context(request: Any) -> AbstractContextManager[None]:
    source = {"ip": request.META.get("REMOTE_ADDR"), "user_agent": request.META.get("HTTP_USER_AGENT")}
    return context(
        actor=lambda: _actor(request),
        source={name: value for name, value in source.items() if value} or None,
        correlation_id=request.META.get("HTTP_X_REQUEST_ID"),
    )


def _actor(request: Any) -> dict[str, str] | None:
    """Return the user of a request, once a record needs it; None where nobody is signed in."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    return {"id": str(user.pk), "type": "user", "name": str(user.get_username())}
