"""Run the requests of an `.http` file, as editors do: one after the other, with variables from earlier answers and a cookie jar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Sent:
    """A request that was sent; `status` is None where a variable had no value, so that it was not."""

    name: str
    status: int | None
    text: str = ""


def run(text: str, variables: Mapping[str, str]) -> Iterator[Sent]:
    """Send every request. `variables` replace those at the head of the file."""
    answers: dict[str, httpx.Response] = {}
    with httpx.Client(timeout=60) as client:
        for section in re.split(r"^### .*\n", text, flags=re.MULTILINE)[1:]:
            [name] = re.findall(r"^# @name (\w+)$", section, re.MULTILINE)
            known = dict(variables)
            for variable, maker, place in re.findall(r"^@(\w+) = {{(\w+)\.response\.body\.\$\.(\S+)}}$", section, re.MULTILINE):
                known[variable] = found(answers[maker], place)
            if "" in known.values():
                yield Sent(name, None)
                continue
            answers[name] = answer = send(client, section, known)
            yield Sent(name, answer.status_code, answer.text)


def found(answer: httpx.Response, place: str) -> str:
    """Return what stands at `items[0].id` of an answer; empty where there is nothing."""
    value = answer.json()
    for part in re.findall(r"\w+", place):
        try:
            value = value[int(part) if part.isdigit() else part]
        except (KeyError, IndexError):
            return ""
    return str(value)


def send(client: httpx.Client, section: str, variables: Mapping[str, str]) -> httpx.Response:
    filled = re.sub(r"{{(\w+)}}", lambda part: variables[part[1]], section)
    head, _, body = filled.strip().partition("\n\n")
    lines = [line for line in head.splitlines() if not line.startswith(("#", "@"))]
    method, _, url = lines[0].partition(" ")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return client.request(method, url, headers=headers, content=body.encode() or None)
