"""Simulates what surrounds a gateway, for a first try: a provider of models, and customers who write tickets.

    python shop.py          the provider on port 9000; customers send requests to the gateway on port 8080

The models are invented. `large` and `small` read a ticket equally well, `small` at a tenth of the price; `tiny` costs
next to nothing and forgets the priority in every third ticket. Nothing here is part of Pointsman.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import uuid
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

# The share of tickets that each model gets wrong.
WRONG = {"large": 0.03, "small": 0.03, "tiny": 0.33}
SUBJECTS = ("My printer is on fire", "The invoice is wrong", "I cannot sign in", "Where is my parcel")
SCHEMA = {"type": "object", "required": ["subject", "priority"]}
dice = random.Random()  # noqa: S311 - not a secret


async def completions(request: Request) -> Response:
    """POST /v1/chat/completions, in the format of OpenAI's API."""
    body = await request.json()
    model = body["model"]
    if model not in WRONG:
        return JSONResponse({"error": {"message": f"The model {model} does not exist."}}, 404)
    prompt = body["messages"][-1]["content"]
    subject = next((one for one in SUBJECTS if one in prompt), "other")
    good = dice.random() >= WRONG[model]
    text = json.dumps(
        {"subject": subject, "priority": "high" if "fire" in prompt else "normal"}
        if good
        else {"subject": subject}
    )
    await asyncio.sleep(dice.uniform(0.02, 0.06))
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}
    if body.get("stream"):
        return StreamingResponse(events(model, text, usage), media_type="text/event-stream")
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({"id": uuid.uuid4().hex, "model": model, "choices": [choice], "usage": usage})


async def events(model: str, text: str, usage: dict[str, int]) -> Any:
    """Yield the answer a few letters at a time."""
    for at in range(0, len(text), 8):
        delta = {"index": 0, "delta": {"content": text[at : at + 8]}}
        yield f"data: {json.dumps({'model': model, 'choices': [delta]})}\n\n"
    yield f"data: {json.dumps({'model': model, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


provider = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])


async def customer(client: httpx.AsyncClient, every_s: float) -> None:
    """Send one ticket after the other to the gateway."""
    while True:
        body = {
            "model": "tickets",
            "messages": [
                {"role": "user", "content": f"{dice.choice(SUBJECTS)}. Please help. " * dice.randint(3, 12)}
            ],
            "response_format": {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA}},
        }
        try:
            await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError:
            await asyncio.sleep(1)  # the gateway is not running yet
        await asyncio.sleep(dice.uniform(0, 2 * every_s))


async def main() -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(provider, port=9000, log_level="warning"))
    per_second = float(os.environ.get("TICKETS_PER_SECOND", "20"))
    async with httpx.AsyncClient(
        base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080"), timeout=30
    ) as client:
        customers = [asyncio.create_task(customer(client, 20 / per_second)) for _ in range(20)]
        await server.serve()
        for one in customers:
            one.cancel()


if __name__ == "__main__":
    asyncio.run(main())
