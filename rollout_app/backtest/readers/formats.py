"""Convert one row of each supported log to a call. Field names are those of the programs that write them.

LiteLLM      `StandardLoggingPayload` (litellm/types/utils.py), `SpendLogsPayload` (litellm/proxy/_types.py)
Langfuse     observations of the blob storage export and of the API (docs "Blob Storage Export Field Reference")
Helicone     `HeliconeRequest` of `@helicone/export`
OpenTelemetry  spans of the GenAI conventions: `gen_ai.provider.name` and `gen_ai.usage.input_tokens` of the repository
             semantic-conventions-genai, and the older `gen_ai.system` and `gen_ai.usage.prompt_tokens`

A call's model is the one that was asked for, as policies and the catalogue name it. Providers answer with a dated name
(`gpt-4o-mini-2024-07-18`), which serves only where nothing else was logged.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rollout_app.backtest.readers import values
from rollout_app.backtest.readers.calls import Call, Grades, ReadCall
from rollout_app.backtest.readers.mapping import Prices
from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.readers.rows import Row, open_rows

# Calls that a gateway makes for itself are not tasks.
_INTERNAL = ("is_silent_experiment", "internal_call_origin")
_CHAT_CALLS = {"", "completion", "acompletion", "atext_completion", "text_completion", "responses", "aresponses",
               "anthropic_messages", "generate_content", "agenerate_content"}  # fmt: skip


def litellm(prices: Prices, grade: str = "") -> ReadCall:
    """Return a reader of LiteLLM rows: logged payloads or spend logs. `grade`: a dotted path such as
    `metadata.success`.
    """

    def read(row: Row) -> Call | None:
        metadata = _object(row.get("metadata"))
        if (
            any(metadata.get(name) for name in _INTERNAL)
            or str(row.get("call_type") or "") not in _CHAT_CALLS
        ):
            return None
        failed = str(row.get("status") or "success") != "success"
        cost = row.get("response_cost", row.get("spend"))
        cached = str(row.get("cache_hit")).lower() == "true"
        tokens = (row.get("prompt_tokens"), row.get("completion_tokens"))
        start, end = _moment(row["startTime"]), _moment(row.get("endTime"))
        model = _litellm_model(row)
        return Call(
            trace=_trace(
                row.get("trace_id"), metadata.get("trace_id"), row.get("session_id"), _request_id(row)
            ),
            at=start or 0.0,
            model=model,
            # LiteLLM writes 0 both for a cached answer, which is free, and for a model without a known price.
            cost_nusd=_dollars_or_tokens(cost, cached or failed, model, tokens, prices),
            latency_ms=None if start is None or end is None else max(0.0, (end - start) * 1_000),
            success=values.yes_or_no(_path(row, grade)) if grade else None,
            error=_litellm_error(row) if failed else None,
            request=_known(
                prompt_tokens=_whole(row.get("prompt_tokens")), endpoint=metadata.get("user_api_key_alias")
            ),
        )

    return read


def langfuse(prices: Prices, latency_unit: str) -> ReadCall:
    """Return a reader of Langfuse observations.

    `latency_unit`: `ms` or `s`. Integrations made before 2026-04-01 export milliseconds, later ones seconds, and rows
    do not say which.
    """
    factor = {"ms": 1.0, "s": 1_000.0}[latency_unit]

    def read(row: Row) -> Call | None:
        if str(row.get("type") or "").upper() != "GENERATION":
            return None
        usage, costs = (
            _object(_any(row, "usage_details", "usageDetails")),
            _object(_any(row, "cost_details", "costDetails")),
        )
        model = str(_any(row, "provided_model_name", "providedModelName", "model") or "")
        if not model:
            raise KeyError("provided_model_name")
        latency = values.duration(row.get("latency"), per_unit=factor)
        return Call(
            trace=_trace(_any(row, "trace_id", "traceId"), row.get("id")),
            at=_moment(_any(row, "start_time", "startTime")) or 0.0,
            model=model,
            cost_nusd=_dollars_or_tokens(
                _any(row, "total_cost", "totalCost", "calculatedTotalCost") if "total" not in costs else costs["total"],
                False, model, (usage.get("input"), usage.get("output")), prices,
            ),
            latency_ms=latency,
            error="error" if str(row.get("level") or "").upper() == "ERROR" else None,
            request=_known(
                prompt_tokens=_whole(usage.get("input")), endpoint=_any(row, "trace_name", "traceName", "name")
            ),
        )  # fmt: skip

    return read


def langfuse_grades(path: str, name: str, success_from: float) -> Grades:
    """Return (success, score) by trace for the scores called `name`.

    A boolean is the grade itself; a number is a success from `success_from` on. Of several scores of one trace the
    last row counts. Raises `UnreadableTasks` like `open_rows`, and for a value that is not a number.
    """
    grades: dict[str, tuple[bool | None, float | None]] = {}
    problems = Problems()
    for number, row in open_rows(path, problems):
        if row.get("name") != name:
            continue
        trace, boolean = (
            _any(row, "trace_id", "traceId"),
            "BOOLEAN" in str(_any(row, "data_type", "dataType")).upper(),
        )
        try:
            value = values.number(row.get("value"))
        except ValueError as error:
            problems.add(number, "value", "value of value", str(error))
            continue
        if trace and value is not None:
            grades[str(trace)] = (value >= (0.5 if boolean else success_from), None if boolean else value)
    if problems:
        raise UnreadableTasks(Path(path).name, problems)
    return grades


def helicone(prices: Prices, score: str = "", success_from: float = 0.5) -> ReadCall:
    """Return a reader of Helicone requests. The grade is `scores[score]` if a score is named, else
    `feedback_rating`.
    """

    def read(row: Row) -> Call | None:
        properties = _object(_any(row, "request_properties", "properties"))
        model = str(_any(row, "request_model", "response_model", "model") or "")
        if not model:
            raise KeyError("request_model")
        status = values.number(_any(row, "response_status", "status"))
        rated = _object(row.get("scores")).get(score) if score else row.get("feedback_rating")
        quality = values.number(rated) if score else None
        session = properties.get("Helicone-Session-Id")
        return Call(
            trace=_trace(session, _any(row, "request_id", "requestId")),
            at=_moment(_any(row, "request_created_at", "createdAt")) or 0.0,
            model=model,
            cost_nusd=_dollars_or_tokens(
                _any(row, "costUSD", "cost_usd", "cost"), False, model,
                (row.get("prompt_tokens"), row.get("completion_tokens")), prices,
            ),
            latency_ms=values.duration(_any(row, "delay_ms", "latency")),
            success=(None if quality is None else quality >= success_from) if score else values.yes_or_no(rated),
            quality=quality,
            error=_http_error(status),
            request=_known(
                prompt_tokens=_whole(row.get("prompt_tokens")), endpoint=row.get("request_path") or None
            ),
        )  # fmt: skip

    return read


def opentelemetry(prices: Prices) -> ReadCall:
    """Return a reader of spans with GenAI attributes, one per row; `attributes` is an object or OTLP's
    key-value list.
    """

    def read(row: Row) -> Call | None:
        found = _attributes(_any(row, "attributes", "spanAttributes", "SpanAttributes"))
        if not any(name.startswith("gen_ai.") for name in found):
            return None
        if found.get("gen_ai.operation.name", "chat") not in ("chat", "text_completion", "generate_content"):
            return None
        model = str(found.get("gen_ai.request.model") or found.get("gen_ai.response.model") or "")
        if not model:
            raise KeyError("gen_ai.request.model")
        provider = found.get("gen_ai.provider.name") or found.get("gen_ai.system")
        name = model if provider is None or "/" in model else f"{provider}/{model}"
        given = found.get("gen_ai.usage.input_tokens", found.get("gen_ai.usage.prompt_tokens"))
        made = found.get("gen_ai.usage.output_tokens", found.get("gen_ai.usage.completion_tokens"))
        start = _moment(_any(row, "startTimeUnixNano", "start_time", "startTime", "Timestamp"))
        end = _moment(_any(row, "endTimeUnixNano", "end_time", "endTime"))
        return Call(
            trace=_trace(_any(row, "traceId", "trace_id", "TraceId")),
            at=start or 0.0,
            model=name,
            cost_nusd=_dollars_or_tokens(None, False, name, (given, made), prices),
            latency_ms=None if start is None or end is None else max(0.0, (end - start) * 1_000),
            success=values.yes_or_no(found.get("pointsman.success")),
            error=str(found["error.type"]) if found.get("error.type") else None,
            request=_known(prompt_tokens=_whole(given), endpoint=found.get("http.route")),
        )

    return read


def spans(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Yield each span as a row.

    Also splits rows that are OTLP requests with several spans, as the collector's file exporter writes them:
    `resourceSpans` → `scopeSpans` → `spans`.
    """
    for number, row in rows:
        if "resourceSpans" not in row:
            yield number, row
            continue
        for resource in _objects(row["resourceSpans"]):
            for scope in _objects(resource.get("scopeSpans")):
                for span in _objects(scope.get("spans")):
                    yield number, dict(span)


# --- fields -------------------------------------------------------------------------------------------


def _dollars_or_tokens(
    dollars: Any, zero_is_known: bool, model: str, tokens: tuple[Any, Any], prices: Prices
) -> int | None:
    """Return the logged cost, or else tokens × price. A 0 that may mean "no price" is ignored."""
    cost = values.money(dollars)
    if cost or (cost == 0 and zero_is_known):
        return cost
    given, made = _whole(tokens[0]), _whole(tokens[1])
    price = prices.get(model)
    if price is None or given is None or made is None:
        return None
    return round((given * price[0] + made * price[1]) * 1_000)


def _litellm_model(row: Row) -> str:
    model = str(row.get("model") or "")
    if not model:
        raise KeyError("model")
    provider = row.get("custom_llm_provider")
    return f"{provider}/{model}" if provider and "/" not in model else model


def _litellm_error(row: Row) -> str:
    """Map LiteLLM's exception to an error kind of the policy format."""
    information = _object(row.get("error_information"))
    name = str(information.get("error_class") or "")
    for part, kind in (("Timeout", "timeout"), ("RateLimit", "rate_limited"), ("Connection", "connection"),
                       ("InternalServer", "server_error"), ("ServiceUnavailable", "server_error"),
                       ("ContentPolicy", "refusal")):  # fmt: skip
        if part in name:
            return kind
    return _http_error(values.number(information.get("error_code"))) or "error"


def _http_error(status: float | None) -> str | None:
    if status is None or status < 400:
        return None
    return {408: "timeout", 429: "rate_limited", 504: "timeout"}.get(
        int(status), "server_error" if status >= 500 else "error"
    )


def _request_id(row: Row) -> Any:
    return row.get("litellm_call_id") or row.get("request_id") or row.get("id")


def _trace(*candidates: Any) -> str:
    for candidate in candidates:
        if candidate:
            return str(candidate)
    raise KeyError("trace_id")


def _any(row: Row, *names: str) -> Any:
    """Return the first value that the row has under one of the names: a field may be in snake case or camel case."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _path(row: Row, path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = _object(value).get(part)
    return value


def _object(value: Any) -> Mapping[str, Any]:
    """Return an object, decoding it if it was written as JSON text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map from Parquet
        return {str(name): one for name, one in value}
    if isinstance(value, list):  # OTLP/JSON: [{"key": …, "value": {"intValue": "12"}}]
        return {
            str(pair.get("key")): next(iter(_object(pair.get("value")).values()), None)
            for pair in value
            if isinstance(pair, Mapping)
        }
    return dict(_object(value))


def _moment(value: Any) -> float | None:
    """Return Unix seconds from a number (s, ms, µs or ns) or ISO 8601 text (UTC without an offset)."""
    if values.missing(value):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise ValueError(f"{str(value)[:60]!r} is not a time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(found):
        raise ValueError(f"{value!r} is not a time")
    for limit, unit in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6)):
        if abs(found) < limit:
            return found / unit
    return found / 1e9


def _whole(value: Any) -> int | None:
    """Return a number of tokens."""
    found = values.number(value)
    if found is not None and not 0 <= found < 1e12:
        raise ValueError(f"{found:g} tokens; there must be 0 or more")
    return None if found is None else int(found)


def _known(**inputs: Any) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if value is not None}
