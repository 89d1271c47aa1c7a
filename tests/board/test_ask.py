"""Questions in plain words in a browser: the query, what is not understood, records, a follow-up, and conversations."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.board import LOOKS, Look, Watch, axe, shoot


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_question_is_answered_with_its_query_and_its_records(page: Page, look: Look) -> None:
    page.goto("/board/ask")
    expect(page.get_by_role("list", name="Examples")).to_be_visible()
    axe(page)
    shoot(page, f"ask-empty-{look}")
    ask(page, "who deleted documents sneakily?")
    answer = page.get_by_role("article", name="Answer", exact=True)
    expect(answer).to_contain_text("Not understood: “sneakily”")
    expect(answer.get_by_title("not understood")).to_have_text("sneakily")
    expect(answer.get_by_role("textbox", name="Query")).to_have_value("action:document.delete")
    expect(answer.get_by_role("row")).to_have_count(2)
    rows = answer.get_by_role("list", name="Records").get_by_role("link")
    expect(rows).to_have_count(20)
    axe(page)
    shoot(page, f"ask-{look}")
    rows.first.click()
    expect(page.get_by_role("complementary", name="Record 119")).to_contain_text("Matches")
    page.keyboard.press("Escape")
    expect(rows.first).to_be_focused()


def test_follow_up_conversation_refusal_and_deletion(page: Page, watch: Watch) -> None:
    watch.allow(r"status of 422 .*/logs/ask\)")
    page.goto("/board/ask")
    expect(page.get_by_role("textbox", name="Question")).to_be_visible()
    page.keyboard.press("q")
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    ask(page, "denied logins")
    answer = page.get_by_role("article", name="Answer", exact=True)
    expect(answer).to_contain_text("20 records match")
    ask(page, "only of alice")
    expect(answer.get_by_role("textbox", name="Query")).to_have_value("outcome:denied AND action:user.login AND actor.id:alice")
    expect(page.get_by_role("article", name="Earlier answer")).to_contain_text("denied logins")

    page.reload()
    list_ = page.get_by_role("complementary", name="Conversations")
    list_.get_by_role("button", name="denied logins 2 questions").first.click()
    expect(page.get_by_role("article", name="Earlier answer")).to_have_count(2)
    axe(page)

    ask(page, "colourless green ideas")
    refused = page.get_by_role("article", name="Not understood")
    expect(refused.get_by_title("not understood").first).to_be_visible()
    expect(refused.get_by_role("button")).to_have_count(6)
    axe(page)
    shoot(page, "ask-refused")

    list_.get_by_role("button", name="Delete the conversation denied logins").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(list_.get_by_role("button", name="denied logins 2 questions")).to_have_count(0)
    expect(page.get_by_role("article", name="Earlier answer")).to_have_count(0)


def test_words_of_a_model_stand_apart_and_the_query_opens_in_search(page: Page) -> None:
    notes = ["A model wrote the query and the comment. Check the query.", "No result has these numbers that the model wrote: 7."]
    written = {"engine": "model", "comment": "<b>7</b> deletions, [link removed]", "notes": notes}

    def answered(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), **written})

    page.route("**/api/v1/logs/ask", answered)
    page.goto("/board/ask")
    ask(page, "how many documents were deleted per hour?")
    answer = page.get_by_role("article", name="Answer", exact=True)
    expect(answer.get_by_text("A model wrote", exact=True)).to_be_visible()
    expect(answer).to_contain_text("<b>7</b> deletions, [link removed]")
    expect(answer.get_by_role("list", name="Notes").get_by_role("listitem")).to_have_count(2)
    axe(page)
    shoot(page, "ask-model")
    query = page.get_by_role("textbox", name="Query")
    expect(query).to_have_value("action:document.delete")
    query.fill("action:document.delete outcome:failure")
    page.get_by_role("link", name="Open in Search").click()
    page.wait_for_url("**/board/search?*")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["q"] == ["action:document.delete outcome:failure"]
    assert asked["range"] == ["all"]
