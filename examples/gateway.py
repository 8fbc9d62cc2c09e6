"""An OpenAI-compatible gateway that follows a router policy, in one file to read, copy and change.

    pip install pointsman httpx starlette uvicorn
    POINTSMAN_URL=… POINTSMAN_KEY=pmr_… PROVIDER_URL=https://api.openai.com/v1 PROVIDER_KEY=sk-… python gateway.py

A client requests a workload as if it were a model, `"model": "tickets"`. It gets the model that the policy chooses, by
its catalogue name; a second stage if the answer is uncertain or bad; and the policy's retries and fallbacks.

    header pointsman-endpoint, pointsman-conversation   inputs of the policy, and the unit that stays on one arm
    header x-pointsman-decision-id                      in the response: for feedback
    POST /v1/feedback {"decision_id": …, "kind": "human_review", "success": true}

environment
    POINTSMAN_URL, POINTSMAN_KEY   the control plane and a router key
    POINTSMAN_STORE, POINTSMAN_SPOOL   a file for the policy and a directory for outcomes, to survive a restart
    PROVIDER_URL, PROVIDER_KEY     any provider with OpenAI's protocol; use LiteLLM's proxy for others
    DEFAULT_MODEL                  answers while there is no policy
    HOST, PORT                     127.0.0.1, 8080
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pointsman import Attempt, ConfigurationError, Next, Router, Usage
from pointsman.decision import Decision

JSON = dict[str, Any]
# The attempt's error for each status, in the policy's terms. Any other status is the client's mistake.
UNREACHABLE = {408: "timeout", 429: "rate_limited", 404: "unknown_model"}
# What reading an answer raises that is not of the expected shape.
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError)


class Gateway:
    """Answers chat completions, with one router for the whole process."""

    def __init__(self, router: Router, provider: httpx.AsyncClient, default_model: str) -> None:
        self.router, self.provider, self.default_model = router, provider, default_model

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        try:
            body = await request.json()
            workload = str(body["model"])
        except (ValueError, KeyError, TypeError):
            return refused(400, "The body must be a chat completion request with a model.")
        decision = self.router.decide(workload, what_is_known(request, body), units(request, body))
        first = Step(
            decision.model or self.default_model, decision.params, decision.timeouts.get("attempt_ms")
        )
        if not first.model:
            return refused(404, f"Nothing is known about {workload}. {decision.reason}")
        if body.get("stream"):
            return await self.stream(decision, body, first)
        return await self.answer(decision, body, first)

    async def answer(self, decision: Decision, body: JSON, step: Step) -> Response:
        """Answer in one piece. If an answer is uncertain, ask a stronger model."""
        answers: dict[str, JSON] = {}  # by model: the final answer may be an earlier one
        while True:
            began = time.monotonic()
            try:
                found = await self.ask(body, step)
                attempt = attempt_of(found, body, began)
                answers[step.model] = found
            except Failed as failed:
                if failed.final:
                    return self.give_up(decision, failed)
                attempt = failed.attempt(began)
            except UNREADABLE:  # its cost is unknown
                attempt = Attempt(ok=False, error="server_error", latency_ms=since(began))
            following = decision.next(attempt)
            if following.done:
                break
            await asyncio.sleep(following.delay_ms / 1000)
            step = Step.of(following)
        chosen = answers.get(following.model) if following.action == "accept" else None
        # An answer accepted by the policy may still be bad: the grade is our own check.
        self.router.record(decision, success=grade(body, text_of(chosen)) if chosen else False)
        if chosen is None:
            return refused(
                502, f"No model gave an answer. {following.reason}", headers_of(decision, step.model)
            )
        return JSONResponse(chosen, headers=headers_of(decision, following.model))

    async def stream(self, decision: Decision, body: JSON, step: Step) -> Response:
        """Stream the answer. Retries and fallbacks happen only before the first token."""
        body = {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}
        while True:
            began = time.monotonic()
            try:
                opened = await self.open(body, step)
                break
            except Failed as failed:
                if failed.final:
                    return self.give_up(decision, failed)
                following = decision.next(failed.attempt(began))
            if following.done:
                self.router.record(decision, success=False)
                return refused(
                    502, f"No model gave an answer. {following.reason}", headers_of(decision, step.model)
                )
            await asyncio.sleep(following.delay_ms / 1000)
            step = Step.of(following)
        lines = self.pass_on(decision, body, opened, began)
        return StreamingResponse(
            lines, media_type="text/event-stream", headers=headers_of(decision, step.model)
        )

    async def pass_on(
        self, decision: Decision, body: JSON, opened: httpx.Response, began: float
    ) -> AsyncIterator[bytes]:
        """Pass on the provider's events as they arrive. `next` and `record` follow at the end, however it ends."""
        heard, ended, earlier_ms = Heard(began), False, decision.steps.latency_ms
        try:
            async for line in opened.aiter_lines():
                heard.take(line)
                yield f"{line}\n".encode()
            ended = heard.done
        except httpx.HTTPError:
            pass  # the provider disconnected: the client sees a stream without [DONE]
        finally:
            # Also if the client hung up: a task that is never recorded counts as unfinished.
            # Nothing can follow (`available=()`), because the reader has seen the first words.
            took = since(began)
            if ended:
                attempt = Attempt(usage=heard.usage, latency_ms=took, confidence=heard.confidence)
                decision.next(attempt, available=())
                # Until the first word, as the reader waited for it: with the earlier attempts.
                waited = earlier_ms + (heard.first_ms or took)
                self.router.record(decision, success=grade(body, heard.text), latency_ms=waited)
            else:
                attempt = Attempt(ok=False, error="connection", usage=heard.usage, latency_ms=took)
                decision.next(attempt, available=())
                self.router.record(decision, success=None, error="connection")
            await opened.aclose()

    async def ask(self, body: JSON, step: Step) -> JSON:
        """Call one model. Raises Failed."""
        try:
            answer = await self.provider.post("/chat/completions", json=step.body(body), timeout=step.timeout)
            check_status(answer)
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Failed(kind_of(error)) from error
        if not isinstance(found, dict) or not found.get("choices"):
            raise Failed("server_error")
        return found

    async def open(self, body: JSON, step: Step) -> httpx.Response:
        """Start a streamed call and return it after its headers. Raises Failed."""
        request = self.provider.build_request(
            "POST", "/chat/completions", json=step.body(body), timeout=step.timeout
        )
        try:
            opened = await self.provider.send(request, stream=True)
            if not opened.is_success:
                await opened.aread()
                await opened.aclose()
            check_status(opened)
        except httpx.HTTPError as error:
            raise Failed(kind_of(error)) from error
        return opened

    def give_up(self, decision: Decision, failed: Failed) -> Response:
        """Return the provider's refusal of the request. Other models would refuse it, too."""
        decision.next(Attempt(ok=False, error="error", cost_nusd=0))
        self.router.record(decision, success=None, error="error")
        return Response(failed.body, failed.status, media_type="application/json")

    async def feedback(self, request: Request) -> Response:
        """POST /v1/feedback: feedback on a task, by its decision id."""
        try:
            said = await request.json()
            self.router.feedback(
                said["decision_id"], said["kind"], success=said.get("success"), score=said.get("score")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return refused(400, f"Feedback needs decision_id, kind, and success or score: {error}")
        return Response(status_code=202)

    async def health(self, request: Request) -> Response:
        """GET /healthz: 200 with or without a policy; the body is for people and alerts."""
        return JSONResponse(self.router.status())


@dataclass(frozen=True)
class Step:
    """One call: the model, the policy's parameters for it, and the timeout."""

    model: str
    params: Mapping[str, Any]
    timeout_ms: int | None

    @classmethod
    def of(cls, following: Next) -> Step:
        return cls(following.model, following.params, following.timeout_ms)

    @property
    def timeout(self) -> float:
        return (self.timeout_ms or 60_000) / 1000

    def body(self, asked: JSON) -> JSON:
        return {**asked, **self.params, "model": self.model}


class Failed(Exception):
    """A call without an answer. `final`: the request is at fault, and other models would refuse it, too."""

    def __init__(self, kind: str, status: int = 0, body: bytes = b"") -> None:
        self.kind, self.status, self.body, self.final = kind, status, body, bool(status)

    def attempt(self, began: float) -> Attempt:
        # A call that timed out may still be billed, so its cost is unknown, not 0.
        cost = None if self.kind == "timeout" else 0
        return Attempt(ok=False, error=self.kind, cost_nusd=cost, latency_ms=since(began))


@dataclass
class Heard:
    """What has been received of a stream so far."""

    began: float
    parts: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    usage: Usage | None = None
    done: bool = False
    first_ms: float | None = None

    def take(self, line: str) -> None:
        name, _, said = line.partition(":")  # the space after the colon is optional
        if name != "data":
            return
        if said.strip() == "[DONE]":
            self.done = True
            return
        try:
            event = json.loads(said)
            for choice in event.get("choices") or []:
                text = choice.get("delta", {}).get("content")
                self.parts.append(text if isinstance(text, str) else "")
                found = [t["logprob"] for t in (choice.get("logprobs") or {}).get("content") or []]
                self.logprobs += [one for one in found if isinstance(one, int | float)]
            self.usage = usage_of(event) or self.usage
        except (ValueError, *UNREADABLE):
            return  # not an event that we read; it is passed on anyway
        if self.first_ms is None and self.text:
            self.first_ms = since(self.began)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def confidence(self) -> float | None:
        return mean_probability(self.logprobs)


# For you to change: the policy's inputs, the confidence, and the check of an answer.


def what_is_known(request: Request, body: JSON) -> JSON:
    """Return the policy's `request.*` inputs. An absent value is unknown, never 0."""
    messages = body.get("messages") or []
    return {
        "endpoint": request.headers.get("pointsman-endpoint", request.url.path),
        "prompt_tokens": len(json.dumps(messages)) // 4,
        "turns": len(messages),
        "tool_calls": len(body.get("tools") or []),
    }


def units(request: Request, body: JSON) -> dict[str, str]:
    """Return ids by kind. A conversation or a user stays on one arm of a rollout."""
    given = {"conversation": request.headers.get("pointsman-conversation"), "user": body.get("user")}
    return {kind: str(unit) for kind, unit in given.items() if unit}


def grade(body: JSON, text: str) -> bool | None:
    """Return whether the answer is good; None if unknown, which feedback may change.

    This check: if the client asked for JSON, the answer is JSON with every required member, none of them empty.
    """
    wanted = body.get("response_format") or {}
    if wanted.get("type") not in ("json_object", "json_schema"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return False
    schema = (wanted.get("json_schema") or {}).get("schema") or {}
    return isinstance(found, dict) and all(
        found.get(name) not in (None, "") for name in schema.get("required", [])
    )


def mean_probability(logprobs: list[float]) -> float | None:
    """Return the model's confidence, 0 to 1: the geometric mean of the token probabilities, if it reports them."""
    return math.exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else None


# Parsing a provider's answers


def attempt_of(found: JSON, body: JSON, began: float) -> Attempt:
    choice = found["choices"][0]
    logprobs = [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []]
    text = text_of(found)
    no_good = grade(body, text) is False or not (text or choice["message"].get("tool_calls"))
    return Attempt(
        error="invalid_output" if no_good else None,
        confidence=mean_probability(logprobs),
        usage=usage_of(found),
        latency_ms=since(began),
    )


def usage_of(found: JSON) -> Usage | None:
    """Return the tokens, which the snapshot's prices turn into a cost; None if the provider reports none."""
    used = found.get("usage")
    if not used:
        return None
    try:
        cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return Usage(
            input=used["prompt_tokens"] - cached, output=used["completion_tokens"], cache_read=cached
        )
    except UNREADABLE:
        return None


def text_of(found: JSON) -> str:
    return found["choices"][0]["message"].get("content") or ""


def check_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if status in UNREACHABLE or status >= 500:
        raise Failed(UNREACHABLE.get(status, "server_error"))
    if status >= 300:
        raise Failed("error", status, answer.content)


def kind_of(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    return "connection" if isinstance(error, httpx.HTTPError) else "server_error"


def since(began: float) -> float:
    return (time.monotonic() - began) * 1000


def headers_of(decision: Decision, model: str) -> dict[str, str]:
    return {"x-pointsman-decision-id": decision.decision_id, "x-pointsman-model": quote(model, safe="/:@")}


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": "gateway"}}, status, headers)


# Running it


def app() -> Starlette:
    """Create the ASGI application from the environment. Exits with a message if the address or the key is invalid."""
    env = os.environ
    try:
        router = Router(
            env.get("POINTSMAN_URL", "http://127.0.0.1:8000"),
            env.get("POINTSMAN_KEY", ""),
            store=env.get("POINTSMAN_STORE") or None,
            spool=env.get("POINTSMAN_SPOOL") or None,
        )
        router.wait_ready(5)  # at most 5 s: an unreachable control plane must not delay the start
    except ConfigurationError as error:
        raise SystemExit(f"gateway: {error}") from None
    key = env.get("PROVIDER_KEY", "").strip()
    provider = httpx.AsyncClient(
        base_url=env.get("PROVIDER_URL", "https://api.openai.com/v1"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        limits=httpx.Limits(max_connections=1_000),
    )
    gateway = Gateway(router, provider, env.get("DEFAULT_MODEL", ""))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await router.aclose()  # sends what is queued
        await provider.aclose()

    routes = [
        Route("/v1/chat/completions", gateway.complete, methods=["POST"]),
        Route("/v1/feedback", gateway.feedback, methods=["POST"]),
        Route("/healthz", gateway.health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    import uvicorn

    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
    uvicorn.run(app, factory=True, host=host, port=port, log_level="warning")
