"""Recorded tasks from common file formats. Every sample here is invented."""

import codecs
import gzip
import json
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rollout_app.backtest.readers import values
from rollout_app.backtest.readers.problems import UnreadableTasks
from rollout_app.backtest.sources import Source, open_tasks
from rollout_app.backtest.tasks import Answer, Task

TABLE = "prompt_tokens,attributes.subject,a/small:success,a/small:cost_usd,a/large:success,a/large:cost_usd\n"


def tasks_of(path: Path, **how: Any) -> list[Task]:
    return list(open_tasks(Source(str(path), **how)))


def written(home: Path, name: str, text: str | bytes) -> Path:
    path = home / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(home: Path, *rows: Mapping[str, Any]) -> Path:
    return written(home, "log.jsonl", "\n".join(map(json.dumps, rows)))


# --- tables -------------------------------------------------------------------------------------------


def test_a_table_is_read_by_its_own_column_names(tmp_path: Path) -> None:
    (task,) = tasks_of(written(tmp_path, "t.csv", TABLE + "12,law,1,0.001,0,0.02\n"))
    assert task.request == {"prompt_tokens": 12, "attributes": {"subject": "law"}}
    assert task.answers == {"a/small": Answer(True, 1_000_000), "a/large": Answer(False, 20_000_000)}


def test_an_empty_value_is_missing_but_a_zero_is_not(tmp_path: Path) -> None:
    (task,) = tasks_of(written(tmp_path, "t.csv", TABLE + ",law,1,0,,\n"))
    assert task.request == {"attributes": {"subject": "law"}}
    assert task.answers == {"a/small": Answer(True, 0)}, "nothing is known of the large one"


def test_grades_are_read_as_data_frames_write_them(tmp_path: Path) -> None:
    """A column of 1, 0 and missing values becomes one of floats: 1.0, 0.0 and nothing."""
    found = tasks_of(written(tmp_path, "t.csv", "n,a/b:success\n1,1.0\n2,0.0\n3,\n"))
    assert [task.answers for task in found] == [
        {"a/b": Answer(True, None)},
        {"a/b": Answer(False, None)},
        {},
    ]
    assert [values.yes_or_no(Decimal(text)) for text in ("1.00", "0.0", "NaN")] == [True, False, None]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, name: str) -> None:
    text = {"t.jsonl": '{"a/b:success": 1}\n', "t.json": '[{"a/b:success": 1}]', "t.csv": "a/b:success\n1\n"}
    found = tasks_of(written(tmp_path, name, codecs.BOM_UTF8 + text[name].encode()))
    assert found == [Task({}, {"a/b": Answer(True, None)})]


def test_a_latency_that_no_sum_can_hold_is_refused(tmp_path: Path) -> None:
    """Regression: the mean of two was infinite, which no JSON can say."""
    table = written(tmp_path, "t.csv", "a/b:success,a/b:latency_ms\n1,1e308\n1,1e308\n")
    with pytest.raises(UnreadableTasks, match="row 1, column a/b:latency_ms: a latency of 1e"):
        tasks_of(table)


def test_a_file_with_unreadable_values_is_refused_with_rows_and_columns(tmp_path: Path) -> None:
    rows = "".join(f"12,law,{'maybe' if at % 2 else 1},0.001,0,-3\n" for at in range(60))
    with pytest.raises(UnreadableTasks) as refused:
        tasks_of(written(tmp_path, "t.csv", TABLE + rows))
    text = str(refused.value)
    assert "t.csv can't be read: 90 problems. Nothing was used." in text
    assert "row 2, column a/small:success: 'maybe' is neither 1 nor 0" in text
    assert text.count("'maybe'") == 20
    assert "… and 10 more of this kind (value of a/small:success)." in text
    assert "row 1, column a/large:cost_usd: a cost of '-3'" in text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"a/b:success\n\xff\xfe\n", "not CSV in UTF-8"),
        (
            "t.csv",
            TABLE.encode() + b"1,2,3,4,5,6,7,8\n",
            "row 1: it has 8 values, but the header names 6 columns",
        ),
        ("t.csv", b"a,b\n1,2\n", "no column `<model>:success`"),
        ("t.csv", b"m:success,m:cost\n1,2\n", "'m:cost' is not known; .* m:cost_usd"),
        ("t.jsonl", b'{"m:score": 1, "m:latency": 2}\n', "'m:latency' is not known; .* m:latency_ms"),
        ("t.jsonl", b'{"a/b:success": 1}\n{"a"\n', "row 2: it is not JSON"),
        ("t.jsonl", b"[1]\n", "an object was expected"),
        ("t.json", b'{"a": 1}', "a list of objects was expected"),
        ("t.csv.gz", b"not gzip", "not CSV in UTF-8"),
        ("t.xlsx", b"", "the extension must be"),
        ("t.parquet", b"nothing", "not a Parquet file"),
    ],
)
def test_an_invalid_table_is_explained(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("`", ".").replace("<", ".").replace(">", ".")):
        tasks_of(written(tmp_path, name, content))


def test_compressed_and_json_tables_give_the_same(tmp_path: Path) -> None:
    row = {"prompt_tokens": 3, "a/small:success": True, "a/small:cost_usd": 0.5}
    packed = written(tmp_path, "t.jsonl.gz", gzip.compress(json.dumps(row).encode()))
    array = written(tmp_path, "t.json", json.dumps([row]))
    assert (
        tasks_of(packed)
        == tasks_of(array)
        == [Task({"prompt_tokens": 3}, {"a/small": Answer(True, 500_000_000)})]
    )


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the optional package group `backtest` is not installed")
    from pyarrow import parquet

    columns = {"prompt_tokens": [3, None], "a/small:success": [1, 0], "a/small:cost_usd": [0.5, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert tasks_of(tmp_path / "t.parquet") == [
        Task({"prompt_tokens": 3}, {"a/small": Answer(True, 500_000_000)}),
        Task({}, {"a/small": Answer(False, None)}),
    ]


MAPPING = """
request:
  task_type: {value: reasoning}
  endpoint: set
  prompt_tokens: {column: chars, characters: true}
  attributes: {subject: topic}
currency: {name: EUR, usd: 1.1}
models:
  a/small: {success: small_ok, cost: small_eur, confidence: small_conf, latency_s: small_s}
  a/large:
    score: {column: large_score, success_from: 0.8}
    tokens: {input: {column: chars, characters: true}, output: large_out}
    price_usd_per_million: {input: 2, output: 10}
"""


def test_a_mapping_assigns_columns(tmp_path: Path) -> None:
    header = "set,chars,topic,small_ok,small_eur,small_conf,small_s,large_score,large_out"
    table = f"{header}\ngsm,9,law,yes,1,0.4,1.5,0.79,100\n"
    (task,) = tasks_of(written(tmp_path, "t.csv", table), mapping=str(written(tmp_path, "m.yaml", MAPPING)))
    assert task.request == {
        "task_type": "reasoning", "endpoint": "gsm", "prompt_tokens": 3, "attributes": {"subject": "law"}
    }  # fmt: skip
    assert task.answers["a/small"] == Answer(True, 1_100_000_000, None, 0.4, 1_500.0)
    # 3 tokens at 2 dollars and 100 at 10 dollars per million.
    assert task.answers["a/large"] == Answer(False, 3 * 2_000 + 100 * 10_000, 0.79)


@pytest.mark.parametrize(
    ("tokens", "price", "cost"),
    [
        ("input: i", "input: 2, output: 10", None),
        ("input: i", "input: 2, output: 0", 100 * 2_000),
        ("input: i, output: o", "input: 2, output: 10", 100 * 2_000 + 50 * 10_000),
        ("output: o", "input: 2, output: 10", None),
    ],
)
def test_tokens_that_were_not_recorded_are_not_free(
    tmp_path: Path, tokens: str, price: str, cost: int | None
) -> None:
    """Regression: without a column of output tokens only the input was priced."""
    mapping = f"models: {{m: {{success: s, tokens: {{{tokens}}}, price_usd_per_million: {{{price}}}}}}}"
    table = written(tmp_path, "t.csv", "s,i,o\n1,100,50\n")
    (task,) = tasks_of(table, mapping=str(written(tmp_path, "m.yaml", mapping)))
    assert task.answers["m"].cost_nusd == cost


def test_the_tokens_of_a_constant_number_of_characters(tmp_path: Path) -> None:
    mapping = "request: {prompt_tokens: {value: 4001, characters: true}}\nmodels: {m: {success: s}}"
    (task,) = tasks_of(
        written(tmp_path, "t.csv", "s\n1\n"), mapping=str(written(tmp_path, "m.yaml", mapping))
    )
    assert task.request == {"prompt_tokens": 1_001}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {}", "must map each catalogue model"),
        ("models: {a/b: {cost: c}}", "`success` or `score`"),
        ("models: {a/b: {success: s, prize: c}}", "unknown prize"),
        ("model: {}", "unknown model"),
        ("currency: EUR\nmodels: {a/b: {success: s}}", "rate"),
        ("request: {x: {column: a, value: 1}}\nmodels: {a/b: {success: s}}", "name a column"),
        ("- 1", "must map each catalogue model"),
        ("models: {a/b: {success: [s]}}", "expected the name of a column, not a list"),
        ("models: {a/b: {success: s, tokens: 5}}", "expected an object, not 5"),
        ("models: {a/b: {success: s, tokens: {input: {value: many}}}}", "expected a number, not 'many'"),
        ("models: {a/b: {score: {column: s, success_from: .nan}}}", "is not valid YAML"),
        ("models: {a/b: {success: s, latency_s: t, latency_ms: t}}", "not both"),
        ("models: {a/b: {success: s, price_usd_per_million: {input: -1, output: 1}}}", "0 or more"),
        ("models: {a/b: {success: s, price_usd_per_million: {input: 1}}}", "write both, .* 0 if one is free"),
        ("models: {a/b: {success: s, price_usd_per_million: {input: 1, outputs: 2}}}", "unknown outputs"),
        ("models: {a/b: {success: s, tokens: {input: c, outputs: c}}}", "unknown outputs"),
        ("models: {a/b: {score: {column: s, from: 1}}}", "unknown from"),
        ("request: {x: {value: long, characters: true}}\nmodels: {a/b: {success: s}}", "number, not 'long'"),
        ("request: {x: {value: -1, characters: true}}\nmodels: {a/b: {success: s}}", "must be 0 or more"),
        (
            "request: {x: {column: s, characters: all}}\nmodels: {a/b: {success: s}}",
            "true or false, not 'all'",
        ),
        ("request: [1]\nmodels: {a/b: {success: s}}", "request: expected an object"),
        ("request: {x: {value: [1]}}\nmodels: {a/b: {success: s}}", "a constant must be a text"),
        ("a: &a [x, x]\nb: [*a, *a]", "is not valid YAML"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_mapping_is_explained(tmp_path: Path, text: str, says: str) -> None:
    table = written(tmp_path, "t.csv", "s,c\n1,1\n")
    with pytest.raises(ValueError, match=says):
        tasks_of(table, mapping=str(written(tmp_path, "m.yaml", text)))


def test_rows_that_all_differ_do_not_resolve_a_large_mapping_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 4 MiB of JSON lines and a mapping of 4,000 models kept a worker busy for half an hour."""
    monkeypatch.setattr("rollout_app.backtest.readers.table._MOST_RESOLVED", 5_000)
    many = "".join(f"  m{number}: {{success: s}}\n" for number in range(1_000))
    mapping = str(written(tmp_path, "m.yaml", f"models:\n{many}"))
    rows = [{"s": 1, f"c{number}": 1} for number in range(10)]
    assert len(tasks_of(lines(tmp_path, *rows[:5]), mapping=mapping)) == 5
    with pytest.raises(ValueError, match=r"log.jsonl: its rows have too many different sets of columns"):
        tasks_of(lines(tmp_path, *rows), mapping=mapping)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    mapping = written(tmp_path, "m.yaml", "models: {a/b: {success: ok}}")
    with pytest.raises(UnreadableTasks, match="column ok: the mapping names it"):
        tasks_of(written(tmp_path, "t.csv", "s\n1\n"), mapping=str(mapping))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """Half a row is not a row with missing values: the missing part may be the decisive outcome."""
    whole = TABLE + "12,law,1,0.001,0,0.02\n" * 30
    with pytest.raises(UnreadableTasks, match="row 30: it has 3 values, but the header names 6 columns"):
        tasks_of(written(tmp_path, "t.csv", whole[: -len(",0.001,0,0.02\n")]))
    with pytest.raises(UnreadableTasks, match="unexpected end of data"):
        tasks_of(written(tmp_path, "t.csv", whole + '12,"la'))
    packed = gzip.compress(whole.encode())
    with pytest.raises(UnreadableTasks, match="end-of-stream|not CSV in UTF-8"):
        tasks_of(written(tmp_path, "t.csv.gz", packed[:-9]))
    with pytest.raises(UnreadableTasks, match="not CSV in UTF-8"):
        tasks_of(written(tmp_path, "t.csv.gz", packed[:20] + b"\0" * 20 + packed[40:]))


def test_rows_that_cannot_be_parsed_are_named_and_counted(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTasks) as refused:
        tasks_of(written(tmp_path, "t.csv", TABLE + "1,2\n" * 25 + ",law,x,0.001,0,0.02\n"))
    assert "26 problems" in str(refused.value)
    assert "… and 5 more of this kind (columns)." in str(refused.value)
    assert "row 26, column a/small:success: 'x' is neither 1 nor 0" in str(refused.value)
    with pytest.raises(UnreadableTasks, match="row 2: it is not JSON") as refused:
        tasks_of(written(tmp_path, "t.jsonl", '{"a/b:success": 1}\n{"a/b:su\n{}\n[]\n{"a/b:success": 2}\n'))
    assert "row 4: an object was expected" in str(refused.value)
    assert "row 5, column a/b:success: 2 is neither 1 nor 0" in str(refused.value)


def test_problems_in_many_columns_are_counted(tmp_path: Path) -> None:
    """Regression: the time and the text grew with the square of the columns, which took hours for 4 MiB."""
    header = ",".join(f"m{number}:success" for number in range(50_000))
    with pytest.raises(UnreadableTasks) as refused:
        tasks_of(written(tmp_path, "t.csv", f"{header}\n{','.join('x' * 50_000)}\n"))
    text = str(refused.value)
    assert "50,000 problems" in text and "row 1, column m0:success: 'x' is neither 1 nor 0" in text
    assert text.endswith("… and 49,900 more of 49,900 other kinds.") and len(text) < 10_000


def test_a_header_with_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    table = "a/b:success,a/b:success\n1,0\n"
    with pytest.raises(UnreadableTasks, match="the header names a/b:success twice"):
        tasks_of(written(tmp_path, "t.csv", table))


def test_a_header_of_many_columns_is_read(tmp_path: Path) -> None:
    """Regression: each name was counted among all others, which took hours for the names that fit into 4 MiB."""
    names = [f"c{number}" for number in range(300_000)]
    table = f"{','.join(names)},m:success\n{',' * 300_000}1\n"
    assert tasks_of(written(tmp_path, "t.csv", table)) == [Task({}, {"m": Answer(True, None)})]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    """Regression: a column with prompts was refused as "not CSV in UTF-8"."""
    (task,) = tasks_of(written(tmp_path, "t.csv", f"prompt,m:success\n{'x' * 200_000},1\n"))
    assert len(task.request["prompt"]) == 200_000


def test_a_json_column_that_appears_late_is_read(tmp_path: Path) -> None:
    first, second = {"a/small:success": 1}, {"a/small:success": 1, "a/large:success": 0, "turns": 3}
    assert tasks_of(lines(tmp_path, first, second)) == [
        Task({}, {"a/small": Answer(True, None)}),
        Task({"turns": 3}, {"a/small": Answer(True, None), "a/large": Answer(False, None)}),
    ]


def test_pythons_extra_number_formats_are_not_accepted(tmp_path: Path) -> None:
    (task,) = tasks_of(written(tmp_path, "t.csv", "endpoint,a/b:success\n1_000,1\n"))
    assert task.request == {"endpoint": "1_000"}
    with pytest.raises(UnreadableTasks, match="'1_0' is not a number"):
        tasks_of(written(tmp_path, "t.csv", "a/b:success,a/b:cost_usd\n1,1_0\n"))
    with pytest.raises(UnreadableTasks, match="a latency of -1"):
        tasks_of(written(tmp_path, "t.csv", "a/b:success,a/b:latency_ms\n1,-1\n"))


def test_an_empty_file_has_no_tasks(tmp_path: Path) -> None:
    assert tasks_of(written(tmp_path, "t.csv", "")) == tasks_of(written(tmp_path, "t.jsonl", "")) == []
    assert tasks_of(written(tmp_path, "t.csv", TABLE)) == []


# --- logs of gateways -----------------------------------------------------------------------------------


def payload(**changes: Any) -> dict[str, Any]:
    """LiteLLM's log of one call."""
    return {
        "id": "chatcmpl-1", "trace_id": "t-1", "call_type": "acompletion", "response_cost": 0.002, "status": "success",
        "custom_llm_provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 100, "completion_tokens": 20,
        "startTime": 1_790_000_000.0, "endTime": 1_790_000_001.5, "metadata": {}, "cache_hit": None, **changes,
    }  # fmt: skip


def test_a_litellm_trace_is_one_task_through_retry_and_fallback(tmp_path: Path) -> None:
    failed = payload(
        status="failure",
        response_cost=0.0,
        error_information={"error_class": "RateLimitError", "error_code": "429"},
    )
    rescued = payload(model="claude-x", custom_llm_provider="anthropic", startTime=1_790_000_002.0,
                      endTime=1_790_000_003.0)  # fmt: skip
    (task,) = tasks_of(lines(tmp_path, rescued, failed), log="litellm")
    assert task.request == {"prompt_tokens": 100}
    assert task.answers["openai/gpt-4o-mini"] == Answer(False, 0, None, None, 1_500.0, "rate_limited")
    assert task.answers["anthropic/claude-x"] == Answer(None, 2_000_000, None, None, 1_000.0)


def test_litellms_own_calls_are_not_tasks(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        payload(trace_id="a", metadata={"is_silent_experiment": True}),
        payload(trace_id="b", metadata={"internal_call_origin": "autorouter_classifier"}),
        payload(trace_id="c", call_type="aembedding"),
        payload(trace_id="d"),
    )
    assert len(tasks_of(path, log="litellm")) == 1


def test_litellms_zero_is_not_a_price_unless_the_answer_was_cached(tmp_path: Path) -> None:
    unpriced, cached = (
        payload(trace_id="a", response_cost=0),
        payload(trace_id="b", response_cost=0, cache_hit=True),
    )
    first, second = tasks_of(lines(tmp_path, unpriced, cached), log="litellm")
    assert first.answers["openai/gpt-4o-mini"].cost_nusd is None
    assert second.answers["openai/gpt-4o-mini"].cost_nusd == 0
    priced = tasks_of(lines(tmp_path, unpriced), log="litellm", prices={"openai/gpt-4o-mini": (0.15, 0.6)})
    assert priced[0].answers["openai/gpt-4o-mini"].cost_nusd == 100 * 150 + 20 * 600


def test_a_spend_log_is_read_with_its_grade(tmp_path: Path) -> None:
    row = {
        "request_id": "r", "session_id": "s", "call_type": "acompletion", "spend": 0.001, "model": "openai/gpt-4o-mini",
        "startTime": "2026-11-01T10:00:00", "endTime": "2026-11-01T10:00:02Z", "metadata": json.dumps({"ok": 1}),
        "prompt_tokens": 5, "completion_tokens": 5, "status": "success", "cache_hit": "False",
    }  # fmt: skip
    (task,) = tasks_of(lines(tmp_path, row), log="litellm", grade="metadata.ok")
    assert task.answers["openai/gpt-4o-mini"] == Answer(True, 1_000_000, None, None, 2_000.0)


def test_langfuse_requires_its_unit_of_latency(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in ms or s: integrations made before 2026-04-01"):
        tasks_of(lines(tmp_path, {}), log="langfuse")


def test_langfuse_observations_are_graded_by_their_scores(tmp_path: Path) -> None:
    generation = {
        "id": "o", "trace_id": "t", "type": "GENERATION", "trace_name": "/summary", "level": "DEFAULT",
        "provided_model_name": "gpt-4o", "usage_details": {"input": 10, "output": 5}, "cost_details": {"total": 0.01},
        "latency": 1.25, "start_time": "2026-05-01 10:00:00.000000",
    }  # fmt: skip
    scores = written(
        tmp_path,
        "s.jsonl",
        json.dumps({"trace_id": "t", "name": "good", "value": 0.7, "data_type": "NUMERIC"}),
    )
    path = lines(tmp_path, generation, {"id": "p", "trace_id": "t", "type": "SPAN"})
    how = {"log": "langfuse", "latency_unit": "s", "grade": "good", "grades": str(scores)}
    (task,) = tasks_of(path, **how)
    assert task.request == {"prompt_tokens": 10, "endpoint": "/summary"}
    assert task.answers == {"gpt-4o": Answer(True, 10_000_000, 0.7, None, 1_250.0)}
    with pytest.raises(ValueError, match="Name the score to use as the grade"):
        tasks_of(path, **{**how, "grade": ""})


def test_helicone_requests_are_graded_by_rating_or_score(tmp_path: Path) -> None:
    row = {
        "request_id": "r", "request_created_at": "2026-05-01T10:00:00Z", "response_status": 200,
        "response_model": "gpt-4o", "request_path": "/v1/chat", "delay_ms": 800, "prompt_tokens": 7,
        "completion_tokens": 3, "costUSD": 0.004,
        "feedback_rating": False, "scores": {"helpful": 0.9}, "request_properties": None,
    }  # fmt: skip
    (rated,) = tasks_of(lines(tmp_path, row), log="helicone")
    (scored,) = tasks_of(lines(tmp_path, row), log="helicone", grade="helpful")
    (failed,) = tasks_of(lines(tmp_path, {**row, "response_status": 503}), log="helicone")
    assert rated.answers["gpt-4o"] == Answer(False, 4_000_000, None, None, 800.0)
    assert scored.answers["gpt-4o"] == Answer(True, 4_000_000, 0.9, None, 800.0)
    assert failed.answers["gpt-4o"].error == "server_error"


def test_the_model_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Regression: providers answer with a dated name, which no policy asks for and no catalogue prices."""
    dated = "gpt-4o-mini-2024-07-18"
    span = {"traceId": "n", "attributes": {
        "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": dated,
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5,
    }}  # fmt: skip
    (task,) = tasks_of(lines(tmp_path, span), log="opentelemetry", prices={"openai/gpt-4o-mini": (1, 2)})
    assert task.answers == {"openai/gpt-4o-mini": Answer(None, 20_000)}
    row = {"request_id": "r", "request_model": "gpt-4o-mini", "response_model": dated, "response_status": 200}
    assert list(tasks_of(lines(tmp_path, row), log="helicone")[0].answers) == ["gpt-4o-mini"]


def test_spans_are_read_under_old_and_new_names(tmp_path: Path) -> None:
    new = {
        "traceId": "n", "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": "1790000000500000000",
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
            {"key": "gen_ai.response.model", "value": {"stringValue": "gpt-4o"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "11"}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "4"}},
        ],
    }  # fmt: skip
    old = {
        "traceId": "o",
        "start_time": "2026-05-01T10:00:00Z",
        "attributes": {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.prompt_tokens": 11,
                       "gen_ai.usage.completion_tokens": 4, "error.type": "timeout"},
    }  # fmt: skip
    other = {"traceId": "x", "attributes": {"http.route": "/"}}
    first, second = tasks_of(
        lines(tmp_path, new, old, other), log="opentelemetry", prices={"openai/gpt-4o": (1, 2)}
    )
    assert first.answers == {"openai/gpt-4o": Answer(None, 11 * 1_000 + 4 * 2_000, None, None, 500.0)}
    assert second.answers["openai/gpt-4o"].error == "timeout"
    assert first.request == second.request == {"prompt_tokens": 11}


def test_a_row_without_required_fields_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTasks, match="row 2, column startTime: there is no 'startTime'"):
        tasks_of(lines(tmp_path, payload(), {"call_type": "acompletion", "model": "m"}), log="litellm")


def test_an_unknown_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use one of litellm"):
        tasks_of(lines(tmp_path, {}), log="other")


def test_a_file_of_spans_from_the_collector_is_read(tmp_path: Path) -> None:
    span = {"traceId": "n", "attributes": {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o"}}
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span, {**span, "traceId": "m"}, None]}, 7]}, {}]}
    assert len(tasks_of(lines(tmp_path, request), log="opentelemetry")) == 2
    array = written(tmp_path, "otlp.json", json.dumps(request))
    assert len(tasks_of(array, log="opentelemetry")) == 2


def test_a_call_logged_twice_counts_once(tmp_path: Path) -> None:
    (task,) = tasks_of(lines(tmp_path, payload(), payload()), log="litellm")
    assert task.answers["openai/gpt-4o-mini"].cost_nusd == 2_000_000
    retried = payload(startTime=1_790_000_002.0, endTime=1_790_000_003.0)
    (task,) = tasks_of(lines(tmp_path, payload(), retried), log="litellm")
    assert task.answers["openai/gpt-4o-mini"].cost_nusd == 4_000_000


def test_a_log_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 2 rows, but none is a call that answers a task"):
        tasks_of(lines(tmp_path, payload(), payload()), log="opentelemetry")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def full(*where: Any) -> sqlite3.Connection:
        kept: sqlite3.Connection = connect(*where)
        kept.execute("PRAGMA max_page_count = 3")
        return kept

    monkeypatch.setattr("rollout_app.backtest.readers.calls.sqlite3.connect", full)
    with pytest.raises(OSError, match="calls could not be kept: database or disk is full"):
        tasks_of(lines(tmp_path, *(payload(trace_id=f"t-{at}" * 100) for at in range(100))), log="litellm")


def test_a_trace_that_joins_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout_app.backtest.readers.calls.MOST_CALLS", 3)
    rows = [payload(startTime=1_790_000_000.0 + at, endTime=1_790_000_001.0 + at) for at in range(4)]
    with pytest.raises(ValueError, match="more than 3 calls"):
        tasks_of(lines(tmp_path, *rows), log="litellm")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt_tokens": -5}, "-5 tokens"),
        ({"prompt_tokens": 10**30}, "tokens; there must be 0 or more"),
        ({"response_cost": "free"}, "'free' is not a number"),
        ({"response_cost": -1}, "a cost of -1"),
        ({"startTime": "yesterday"}, "'yesterday' is not a time"),
        ({"startTime": "inf"}, "is not a time"),
        ({"model": None}, "there is no 'model'"),
    ],
)
def test_an_impossible_value_is_named(tmp_path: Path, changes: Mapping[str, Any], says: str) -> None:
    with pytest.raises(UnreadableTasks, match=says) as refused:
        tasks_of(lines(tmp_path, payload(), payload(**changes)), log="litellm")
    assert "row 2" in str(refused.value)


@pytest.mark.parametrize("log", ["litellm", "langfuse", "helicone", "opentelemetry"])
@pytest.mark.parametrize("value", [None, "", "x", -1, 1e400, [], {"a": [1]}, True, "9" * 5_000])
def test_no_value_of_a_log_raises_an_unexpected_error(tmp_path: Path, log: str, value: Any) -> None:
    """With any value in one field, the file is read or refused; nothing else is raised."""
    rows = {
        "litellm": payload(),
        "langfuse": {"id": "o", "trace_id": "t", "type": "GENERATION", "provided_model_name": "m", "latency": 1,
                     "usage_details": {"input": 1}, "cost_details": {"total": 1}, "start_time": "2026-05-01"},
        "helicone": {"request_id": "r", "response_model": "m", "delay_ms": 1, "prompt_tokens": 1, "costUSD": 1,
                     "response_status": 200, "request_created_at": "2026-05-01", "request_properties": {}},
        "opentelemetry": {"traceId": "n", "start_time": 1, "end_time": 2, "attributes": {"gen_ai.request.model": "m"}},
    }  # fmt: skip
    row, how = rows[log], {"latency_unit": "s"} if log == "langfuse" else {}
    for name in row:
        text = json.dumps({**row, name: value}).replace("Infinity", "1e400")
        path = written(tmp_path, "log.jsonl", f"{text}\n{json.dumps(row)}\n")
        try:
            assert tasks_of(path, log=log, **how)
        except UnreadableTasks as refused:
            assert "row 1" in str(refused)
