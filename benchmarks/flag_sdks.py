"""The nearest equivalent of a decision in flag SDKs: three constraints that hold, then a 50 % rollout by unit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    "UnleashClient",
    "launchdarkly-server-sdk",
    "growthbook",
    "openfeature-provider-flagd",
    "statsig",
)
WORKLOADS = [f"workload-{number}" for number in range(100)]
UNITS = [f"conversation-{number}" for number in range(1_000)]
# The inputs of the constraints; each holds.
ATTRIBUTES = {"customer_tier": "gold", "prompt_tokens": 900, "turns": 3}


class Contestant(NamedTuple):
    """`call(n)` decides for the n-th unit and workload; `inside(result)` says whether it was in the rollout."""

    name: str
    package: str | None
    call: Callable[[int], Any]
    inside: Callable[[Any], bool] | None


def unleash() -> Contestant:
    from UnleashClient import UnleashClient
    from UnleashClient.cache import FileCache

    constraints = [
        {"contextName": "customer_tier", "operator": "IN", "values": ["gold", "enterprise"]},
        {"contextName": "prompt_tokens", "operator": "NUM_LT", "value": "8000"},
        {"contextName": "turns", "operator": "NUM_LT", "value": "30"},
    ]
    features = [
        {
            "name": name, "type": "release", "enabled": True, "project": "default", "variants": [],
            "strategies": [{
                "name": "flexibleRollout",
                "parameters": {"rollout": "50", "stickiness": "userId", "groupId": name},
                "constraints": constraints,
            }],
        }
        for name in WORKLOADS
    ]  # fmt: skip
    cache = FileCache("bench", directory=tempfile.mkdtemp())
    cache.bootstrap_from_dict({"version": 2, "features": features})
    client = UnleashClient(
        url="http://127.0.0.1:9",
        app_name="bench",
        cache=cache,
        disable_metrics=True,
        disable_registration=True,
    )
    client.initialize_client(fetch_toggles=False)
    properties = {name: str(value) for name, value in ATTRIBUTES.items()}
    contexts = [{"userId": unit, "properties": properties} for unit in UNITS]

    def call(n: int) -> Any:
        return client.is_enabled(WORKLOADS[n % 100], contexts[n % 1_000])

    return Contestant("UnleashClient", "UnleashClient", call, bool)


def launchdarkly() -> Contestant:
    import ldclient
    from ldclient.config import Config
    from ldclient.integrations import Files

    clauses = [
        {"attribute": "customer_tier", "op": "in", "values": ["gold", "enterprise"]},
        {"attribute": "prompt_tokens", "op": "lessThan", "values": [8_000]},
        {"attribute": "turns", "op": "lessThan", "values": [30]},
    ]
    halves = {"variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]}
    flags = {
        name: {
            "key": name, "version": 1, "on": True, "salt": name,
            "variations": [True, False], "offVariation": 1,
            "fallthrough": {"variation": 1},
            "rules": [{"id": "r", "clauses": clauses, "rollout": halves}],
        }
        for name in WORKLOADS
    }  # fmt: skip
    path = Path(tempfile.mkdtemp()) / "flags.json"
    path.write_text(json.dumps({"flags": flags, "segments": {}}))
    source = Files.new_data_source(paths=[str(path)], auto_update=False)
    client = ldclient.LDClient(Config("sdk-key", update_processor_class=source, send_events=False))
    contexts = [ldclient.Context.from_dict({"kind": "user", "key": unit, **ATTRIBUTES}) for unit in UNITS]

    def call(n: int) -> Any:
        return client.variation(WORKLOADS[n % 100], contexts[n % 1_000], False)

    return Contestant("launchdarkly", "launchdarkly-server-sdk", call, bool)


def growthbook() -> Contestant:
    from growthbook import GrowthBook

    condition = {
        "customer_tier": {"$in": ["gold", "enterprise"]},
        "prompt_tokens": {"$lt": 8_000},
        "turns": {"$lt": 30},
    }
    rule = {"condition": condition, "force": True, "coverage": 0.5, "hashAttribute": "id"}
    features = {name: {"defaultValue": False, "rules": [{**rule, "seed": name}]} for name in WORKLOADS}
    books = GrowthBook(features=features)
    attributes = [{"id": unit, **ATTRIBUTES} for unit in UNITS]

    def call(n: int) -> Any:
        books.set_attributes(attributes[n % 1_000])
        return books.is_on(WORKLOADS[n % 100])

    return Contestant("growthbook", "growthbook", call, bool)


def flagd() -> Contestant:
    from openfeature import api
    from openfeature.contrib.provider.flagd import FlagdProvider
    from openfeature.contrib.provider.flagd.config import ResolverType
    from openfeature.evaluation_context import EvaluationContext

    constraints = {"and": [
        {"in": [{"var": "customer_tier"}, ["gold", "enterprise"]]},
        {"<": [{"var": "prompt_tokens"}, 8_000]},
        {"<": [{"var": "turns"}, 30]},
    ]}  # fmt: skip
    key = {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}
    targeting = {"if": [constraints, {"fractional": [key, ["on", 50], ["off", 50]]}, "off"]}
    variants = {"on": True, "off": False}
    flag = {"state": "ENABLED", "variants": variants, "defaultVariant": "off", "targeting": targeting}
    path = Path(tempfile.mkdtemp()) / "flags.json"
    path.write_text(json.dumps({"flags": dict.fromkeys(WORKLOADS, flag)}))
    api.set_provider_and_wait(
        FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path))
    )
    client = api.get_client()
    contexts = [EvaluationContext(targeting_key=unit, attributes=dict(ATTRIBUTES)) for unit in UNITS]

    def call(n: int) -> Any:
        return client.get_boolean_value(WORKLOADS[n % 100], False, contexts[n % 1_000])

    return Contestant("openfeature flagd", "openfeature-provider-flagd", call, bool)


def statsig() -> Contestant:
    from statsig import StatsigOptions, StatsigUser
    from statsig import statsig as sdk

    def condition(field: str, operator: str, target: Any) -> dict[str, Any]:
        return {
            "type": "user_field", "field": field, "operator": operator, "targetValue": target,
            "additionalValues": {}, "isDeviceBased": False, "idType": "userID",
        }  # fmt: skip

    conditions = [
        condition("customer_tier", "any", ["gold", "enterprise"]),
        condition("prompt_tokens", "lt", 8_000),
        condition("turns", "lt", 30),
    ]
    gates = [
        {
            "name": name, "type": "feature_gate", "entity": "feature_gate", "salt": name, "enabled": True,
            "defaultValue": False, "idType": "userID", "isDeviceBased": False,
            "rules": [{
                "name": "r", "groupName": "r", "id": "r", "salt": name,
                "passPercentage": 50, "returnValue": True,
                "conditions": conditions, "idType": "userID", "isDeviceBased": False,
            }],
        }
        for name in WORKLOADS
    ]  # fmt: skip
    specs = {
        "feature_gates": gates, "dynamic_configs": [], "layer_configs": [], "layers": {}, "id_lists": {},
        "has_updates": True, "time": 1,
    }  # fmt: skip
    sdk.initialize("secret-bench", StatsigOptions(local_mode=True, bootstrap_values=json.dumps(specs)))
    users = [StatsigUser(unit, custom=dict(ATTRIBUTES)) for unit in UNITS]

    def call(n: int) -> Any:
        return sdk.check_gate_with_exposure_logging_disabled(users[n % 1_000], WORKLOADS[n % 100])

    return Contestant("statsig", "statsig", call, bool)
