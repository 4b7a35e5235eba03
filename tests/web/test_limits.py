"""The work of a request that takes longer than it may: it is told so, whole."""

import time

from anyio import to_thread
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from simsearch.web.limits import Work


def ask(seconds, allowed):
    async def answer(request):
        await request.body()
        await to_thread.run_sync(time.sleep, seconds)
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])

    async def limited(scope, receive, send):
        await Work(allowed).run(app, scope, receive, send)

    return TestClient(limited).post("/", content=b"x")


def test_answer_of_a_thread_that_ends_too_late_is_a_problem_and_not_empty():
    late = ask(0.4, allowed=0.1)
    assert late.status_code == 503
    assert "took over 0.1 seconds" in late.json()["detail"]


def test_answer_in_time_is_whole():
    assert ask(0.01, allowed=30).text == "done"
