"""`POST /api/v1/logs/ask` with a model on a real socket: what the answer, the access log and the conversation say of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from decklog.ask_settings import Ask
from decklog.assembly.api import _open_engine
from decklog.domain.identity.access import Role
from decklog.services.ask.asking import Asking
from decklog.services.ask.conversations import OwnConversations
from decklog.services.turns import Turns
from tests.api.test_ask import PATH, access_record, filled
from tests.support.api_world import World, running_world
from tests.support.obedient_model import ObedientModel

KEY = "sk-model-key"


@asynccontextmanager
async def served(model: ObedientModel) -> AsyncIterator[str]:
    """Serve a model at a base URL of this machine. It refuses every request without the key."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        right = head.startswith(b"POST /v1/chat/completions ") and f"Bearer {KEY}".encode() in head
        said, status = (await model(body), b"200 OK") if right else (b"{}", b"401 Unauthorized")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(said), said))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@asynccontextmanager
async def world_with(model: ObedientModel, key: str = KEY) -> AsyncIterator[World]:
    async with served(model) as url, AsyncExitStack() as stack:
        engine, seconds = await _open_engine(Ask(model_url=url, model="stub", model_key=key, model_seconds=10), stack)

        def asking(world: World) -> Asking:
            own = OwnConversations(world.conversations, world.access_log, Turns(10, each=5, of="database"), days=30)
            return Asking(world.reading, world.access_log, engine, own, seconds=seconds)

        world = await stack.enter_async_context(running_world(asking=asking))
        await filled(world)
        yield world


async def test_model_answers_with_its_query_its_comment_and_its_records() -> None:
    model = ObedientModel("count", [[("count", {"query": "actor:bob"})], "Two, see https://example.com/more."])
    async with world_with(model) as world, world.client(Role.AUDITOR) as client:
        answer = (await client.post(PATH, json={"question": "how often did bob act?"})).json()
        assert (answer["engine"], answer["query"], answer["total"]) == ("model", "actor:bob", 2)
        assert answer["answer"] == "2 records match."
        assert answer["comment"] == "Two, see [link removed]"
        assert answer["notes"][0] == "A model wrote the query and the comment. Check the query."
        record = await access_record(world)
        assert (record["metadata"]["engine"], record["metadata"]["calls"]) == ("model", 2)
        assert "sent" not in record["metadata"]
        kept = (await client.get(f"/api/v1/conversations/{answer['conversation']}")).json()
        assert [(turn["query"], turn["engine"]) for turn in kept["turns"]] == [("actor:bob", "model")]
        model.script = [[("count", {"query": "actor:alice"})], "One."]
        await client.post(PATH, json={"question": "and alice?", "conversation": answer["conversation"]})
        told = json.loads(model.requests[-1]["messages"][1]["content"])
        assert told["earlier"] == [{"question": "how often did bob act?", "query": "actor:bob"}]


async def test_grammar_answers_where_the_model_refuses() -> None:
    async with world_with(ObedientModel(), key="wrong") as world, world.client(Role.AUDITOR) as client:
        answer = (await client.post(PATH, json={"question": "who deleted documents?"})).json()
        assert (answer["engine"], answer["query"]) == ("grammar", "action:document.delete")
        assert answer["notes"] == ["The model did not answer, so the built-in grammar did."]
        assert (await access_record(world))["metadata"]["engine"] == "grammar"
