"""/api/v1 of policies: permissions, requests and responses."""

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access.models import Membership, Role
from controlplane.audit.models import Entry
from policies_app.models import Environment, Model, PolicyVersion, Workload
from tests.support import builders

pytestmark = pytest.mark.django_db

Api = Any


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def owner() -> User:
    """Return an editor and operator everywhere, on no team yet."""
    user = User.objects.create_user("owner")
    for role in (Role.EDITOR, Role.OPERATOR):
        Membership.objects.create(user=user, role=role)
    return user


@pytest.fixture
def workload(owner: User) -> Workload:
    builders.catalogue()
    workload = builders.workload()
    workload.owner.members.add(owner)
    return workload


@pytest.fixture
def api(owner: User) -> Client:
    return client_of(owner)


@pytest.fixture
def admin() -> Client:
    return client_of(User.objects.create_superuser("root"))


@pytest.fixture
def stranger() -> Client:
    return client_of(User.objects.create_user("stranger"))


def send(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    call = getattr(client, method)
    return call(f"/api/v1/{path}", body, content_type="application/json", headers=headers)


# --- permissions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["environments", "workloads", "models"])
def test_it_requires_authentication(path: str) -> None:
    response = Client().get(f"/api/v1/{path}")
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["environments", "workloads", "models"])
def test_it_shows_nothing_to_people_without_a_role(stranger: Client, path: str) -> None:
    response = stranger.get(f"/api/v1/{path}")
    assert (response.status_code, response.json()["code"]) == (403, "role_missing")


def test_it_hides_environments_without_a_role(workload: Workload) -> None:
    here, there = builders.environment(), builders.environment()
    user = User.objects.create_user("local")
    Membership.objects.create(user=user, role=Role.VIEWER, environment=here.name)
    client = client_of(user)
    assert [item["name"] for item in client.get("/api/v1/environments").json()["items"]] == [here.name]
    assert client.get(f"/api/v1/environments/{there.name}").status_code == 404


def test_it_lets_only_the_owning_team_add_versions(workload: Workload) -> None:
    editor = User.objects.create_user("other-editor")
    Membership.objects.create(user=editor, role=Role.EDITOR)
    body = {"policy": builders.document(workload)}
    response = send(client_of(editor), "post", f"workloads/{workload.name}/versions", body)
    assert (response.status_code, response.json()["team"]) == (403, workload.owner.name)
    assert not PolicyVersion.objects.exists()


def test_it_lets_only_admins_touch_the_catalogue(api: Client) -> None:
    body = {
        "name": "acme/one", "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 1000
    }  # fmt: skip
    assert send(api, "post", "models", body).json()["code"] == "role_missing"
    assert not Model.objects.filter(name="acme/one").exists()


def test_it_requires_the_operator_role_to_pin(workload: Workload) -> None:
    assignment = builders.served(builders.environment(), workload)
    editor = User.objects.create_user("editor-only")
    Membership.objects.create(user=editor, role=Role.EDITOR)
    path = f"environments/{assignment.environment.name}/assignments/{workload.name}/pin"
    response = send(client_of(editor), "post", path, {"model": "large", "reason": "x"})
    assert (response.status_code, response.json()["role"]) == (403, "operator")


# --- requests and responses ---------------------------------------------------------------------------


def test_it_registers_a_workload_and_returns_its_etag(api: Client, workload: Workload) -> None:
    body = {"name": "fresh", "task_type": "chat", "quality_bar": "0.9", "owner": workload.owner.name}
    response = send(api, "post", "workloads", body)
    assert (response.status_code, response["ETag"]) == (201, '"1"')
    assert response.json()["unit"] == "request"


def test_it_refuses_a_taken_name_and_records_the_attempt(api: Client, workload: Workload) -> None:
    body = {"name": workload.name, "task_type": "chat", "quality_bar": "0.9", "owner": workload.owner.name}
    response = send(api, "post", "workloads", body)
    assert (response.status_code, response.json()["code"]) == (409, "already_exists")
    assert Entry.objects.filter(action="workload.register", outcome="refused").exists()


@pytest.mark.parametrize(
    "name", ["", "with space", "a/b", "ü", "x" * 121, None, 5, ["x"], "_a", "-a", "x" * 101]
)
def test_it_refuses_names_that_are_invalid_in_a_url(api: Client, workload: Workload, name: Any) -> None:
    body = {"name": name, "task_type": "chat", "quality_bar": "0.9", "owner": workload.owner.name}
    response = send(api, "post", "workloads", body)
    if name == 5:
        assert response.json()["name"] == "5"  # a number is converted to its digits
    else:
        assert (response.status_code, response.json()["problems"][0]["path"]) == (422, "name")


def test_a_workload_with_a_name_from_before_the_rule_can_be_edited(api: Client, workload: Workload) -> None:
    """A new one is refused: no policy can carry such a name."""
    Workload.objects.filter(pk=workload.pk).update(name="_old")
    assert send(api, "get", "workloads/_old").status_code == 200
    edited = send(api, "patch", "workloads/_old", {"description": "a"}, **{"If-Match": "*"})
    assert edited.status_code == 200


def test_it_edits_only_what_the_caller_has_read(api: Client, workload: Workload) -> None:
    path = f"workloads/{workload.name}"
    assert send(api, "patch", path, {"description": "a"}).json()["code"] == "precondition_required"
    assert send(api, "patch", path, {"description": "a"}, **{"If-Match": '"1"'})["ETag"] == '"2"'
    stale = send(api, "patch", path, {"description": "b"}, **{"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    workload.refresh_from_db()
    assert workload.description == "a"
    assert Entry.objects.filter(action="workload.edit", outcome="refused").exists()


def test_it_never_renames(api: Client, workload: Workload) -> None:
    send(api, "patch", f"workloads/{workload.name}", {"name": "other"}, **{"If-Match": "*"})
    assert Workload.objects.filter(name=workload.name).exists()


def test_it_adds_a_version_from_yaml_and_names_problems_by_line(api: Client, workload: Workload) -> None:
    text = (
        f"format: 1\nworkload: {workload.name}\nmodels:\n  small: {{model: openai/gpt-4o-mini}}\n"
        "  large: {model: anthropic/claude-sonnet-4-5}\ndefault: smal\nfallback: [large]\n"
    )
    path = f"workloads/{workload.name}/versions"
    refused = send(api, "post", path, {"text": text})
    assert (refused.status_code, refused.json()["code"]) == (422, "policy_invalid")
    (problem,) = [p for p in refused.json()["problems"] if p["path"] == "default"]
    assert (problem["line"], "small" in problem["message"]) == (6, True)
    created = send(api, "post", path, {"text": text.replace("smal\n", "small\n")})
    assert (created.status_code, created["Location"]) == (201, f"/api/v1/{path}/1")


@pytest.mark.parametrize(
    "body",
    [{}, {"policy": {}, "text": "x"}, {"policy": []}, {"policy": "x"}, {"policy": {}}, {"text": "- ["}],
)
def test_it_refuses_an_invalid_document(api: Client, workload: Workload, body: dict[str, Any]) -> None:
    for path in ("versions", "versions/validate"):
        response = send(api, "post", f"workloads/{workload.name}/{path}", body)
        if response.status_code == 200:
            assert response.json()["valid"] is False
        else:
            assert response.status_code == 422
    assert not workload.versions.exists()


def test_it_validates_without_saving(api: Client, workload: Workload) -> None:
    body = {"policy": builders.document(workload)}
    answer = send(api, "post", f"workloads/{workload.name}/versions/validate", body).json()
    assert (answer["valid"], answer["digest"][:7]) == (True, "sha256:")
    assert not workload.versions.exists()


def test_it_answers_a_repeated_post_once(api: Client, workload: Workload) -> None:
    path, body = f"workloads/{workload.name}/versions", {"policy": builders.document(workload)}
    first = send(api, "post", path, body, **{"Idempotency-Key": "abc"})
    again = send(api, "post", path, body, **{"Idempotency-Key": "abc"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    other = send(api, "post", path, {"policy": {}}, **{"Idempotency-Key": "abc"})
    assert other.json()["code"] == "idempotency_mismatch"


def test_it_shows_the_difference_of_two_versions(api: Client, workload: Workload) -> None:
    for _ in range(2):
        builders.version(workload)
    answer = api.get(f"/api/v1/workloads/{workload.name}/versions/1/diff/2").json()
    assert [(item["path"], item["kind"]) for item in answer["items"]] == [("rules[heavy].when", "changed")]
    assert api.get(f"/api/v1/workloads/{workload.name}/versions/1/diff/9").status_code == 404


def test_it_serves_pins_unpins_and_stops(api: Client, workload: Workload) -> None:
    environment = builders.environment()
    builders.version(workload)
    path = f"environments/{environment.name}/assignments/{workload.name}"
    assert send(api, "post", f"{path}/serve", {"version": 1, "reason": "first"}).status_code == 201
    pinned = send(api, "post", f"{path}/pin", {"model": "large", "reason": "outage"}).json()
    assert pinned["pin"] == {"model": "large", "reason": "outage"}
    nobody = {"revision": 2, "confirmed": 0, "of": 0, "stragglers": [], "silent": []}
    assert api.get(f"/api/v1/{path}").json()["readback"] == nobody
    assert send(api, "post", f"{path}/unpin", {"reason": "over"}).json()["pin"] is None
    assert send(api, "post", f"{path}/stop", {"reason": "retired"}).status_code == 204
    environment.refresh_from_db()
    assert environment.revision == 4
    assert api.get(f"/api/v1/{path}").status_code == 404


def test_it_finds_a_model_by_its_name_with_a_slash(admin: Client, workload: Workload) -> None:
    assert admin.get("/api/v1/models/openai/gpt-4o-mini").json()["context_window"] == 128_000
    edited = send(admin, "patch", "models/openai/gpt-4o-mini", {"enabled": False}, **{"If-Match": '"1"'})
    assert edited.json()["enabled"] is False


def test_it_freezes_an_environment(admin: Client) -> None:
    environment = builders.environment()
    body = {"frozen_until": "2030-01-01T00:00:00Z", "freeze_reason": "holidays"}
    send(admin, "patch", f"environments/{environment.name}", body, **{"If-Match": '"1"'})
    environment = Environment.objects.get(pk=environment.pk)
    assert environment.freeze_reason == "holidays"
    assert environment.frozen_until is not None


@pytest.mark.parametrize(
    ("begins", "ends", "says"),
    [
        ("2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z", "It ends before it begins."),
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "It ends before it begins."),
        ("2030-01-01T00:00:00Z", None, "A freeze needs an end."),
    ],
)
def test_it_refuses_a_freeze_that_never_is_in_force(
    admin: Client, begins: str, ends: str | None, says: str
) -> None:
    """It answered 200, and nothing was ever frozen."""
    body = {"frozen_from": begins, "frozen_until": ends}
    environment = builders.environment()
    edited = send(admin, "patch", f"environments/{environment.name}", body, **{"If-Match": "*"})
    added = send(admin, "post", "environments", body | {"name": "fresh"})
    for response in (edited, added):
        assert (response.status_code, response.json()["problems"]) == (
            422, [{"path": "frozen_until", "message": says}],
        )  # fmt: skip
    assert Environment.objects.get().version == 1


def test_a_planned_freeze_is_moved_as_a_whole_or_called_off(admin: Client) -> None:
    environment = builders.environment()

    def patch(**body: Any) -> int:
        path = f"environments/{environment.name}"
        return int(send(admin, "patch", path, body | {"reason": "r"}, **{"If-Match": "*"}).status_code)

    assert patch(frozen_from="2030-01-01T00:00:00Z", frozen_until="2030-01-05T00:00:00Z") == 200
    assert patch(frozen_until="2029-12-01T00:00:00Z") == 422, "it would end before it begins"
    assert patch(frozen_until="2029-12-01T00:00:00Z", frozen_from=None) == 200
    assert patch(frozen_from="2029-11-01T00:00:00Z") == 200
    assert patch(frozen_until=None) == 200
    assert patch(description="as before") == 200


# --- names and times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a\nb", "a\tb", "..", ".", "a/..", "a/../b", "a//b", "/a", "a/", "a/ b", "a\u200bb", "a\u202eb",
        "a\u2028b", "a\u00a0b", "a\x00b", "a\x7fb", "a%2Fb", "a?b", "a#b", "a\\b", "a\ue000b", "a\ufeffb", "",
        "a\u3164b", "a\ufe0fb", "a\u2800b", "a\u034fb", "a\U000e0100b", "gro\u0308sse",
    ],
)  # fmt: skip
def test_it_refuses_model_names_that_are_invalid_in_a_url(admin: Client, name: str) -> None:
    """F22: such a model was created and then a 404 for ever, or shown as another one."""
    body = {"name": name, "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 1000}
    response = send(admin, "post", "models", body)
    assert response.status_code in (400, 422)
    assert not Model.objects.exists()


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "openai/gpt-4o-mini", "bedrock/us-east-1/anthropic.claude-v2:1", "cloudflare/@cf/meta/llama-2",
     "vertex_ai/claude@001", "ft:gpt-3.5-turbo", "Llama 3 70B", "größe/m", "low/1024-x-1024/gpt-image-1"],
)  # fmt: skip
def test_it_finds_every_model_that_it_accepted(admin: Client, name: str) -> None:
    body = {"name": name, "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 1000}
    assert send(admin, "post", "models", body).status_code == 201
    assert admin.get(f"/api/v1/models/{quote(name)}").json()["name"] == name


@pytest.mark.parametrize("time", ["2030-01-01T00:00:00", "2030-01-01 00:00", "2030-01-01"])
def test_it_refuses_a_time_without_a_zone(admin: Client, time: str) -> None:
    environment = builders.environment()
    path = f"environments/{environment.name}"
    response = send(admin, "patch", path, {"frozen_until": time}, **{"If-Match": "*"})
    assert (response.status_code, response.json()["problems"][0]["path"]) == (422, "frozen_until")
    key = {"kind": "admin", "label": "ci", "scopes": ["viewer"], "expires_at": time}
    assert send(admin, "post", "keys", key).status_code == 422


def test_it_refuses_a_key_label_with_invisible_characters(admin: Client) -> None:
    key = {"kind": "admin", "label": "ci\u202e", "scopes": ["viewer"]}
    response = send(admin, "post", "keys", key)
    assert (response.status_code, response.json()["problems"][0]["path"]) == (422, "label")
