"""K13: deny by default; what is granted, for as long, for the models named; revoked at the next call."""

from __future__ import annotations

import copy
import fnmatch
import gc
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keys_support import MASTER_KEY, VALUE, Clock, figure

from apex_llm.errors import ConfigurationError, KeyAccessDeniedError
from apex_llm.keys import ApiKeyManager, PluginHandle
from apex_llm.keys.document import Grant, new_document
from apex_llm.keys.permissions import decide

PLUGINS, SERVICES = ("reader", "writer"), ("aws_bedrock", "azure_openai")
MODELS = (None, "claude-1", "nova-1")
PATTERNS = st.sampled_from([None, ("claude-*",), ("nova-1",), ("claude-*", "nova-*"), ()])

steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.sampled_from(PLUGINS), st.sampled_from(SERVICES), PATTERNS,
                  st.sampled_from([None, 5.0, 50.0]), st.booleans()),
        st.tuples(st.just("set"), st.sampled_from(PLUGINS), st.lists(st.sampled_from(SERVICES), max_size=2)),
        st.tuples(st.just("revoke"), st.sampled_from(PLUGINS), st.sampled_from([None, *SERVICES])),
        st.tuples(st.just("pass"), st.sampled_from([1.0, 10.0, 100.0])),
        st.tuples(st.just("switch"), st.booleans()),
        st.tuples(st.just("ask"), st.sampled_from(PLUGINS), st.sampled_from(SERVICES), st.sampled_from(MODELS)),
    ),
    max_size=12,
)  # fmt: skip


class Model:
    """What should happen, in thirty lines."""

    def __init__(self) -> None:
        self.now, self.on = 1000.0, True
        self.granted: dict[tuple[str, str], tuple[tuple[str, ...] | None, float | None, bool]] = {}

    def step(self, kind, *a) -> None:
        if kind == "grant":
            self.granted[a[0], a[1]] = (a[2], None if a[3] is None else self.now + a[3], a[4])
        elif kind == "set":
            self.granted = {key: value for key, value in self.granted.items() if key[0] != a[0]}
            self.granted |= {(a[0], service): (None, None, True) for service in a[1]}
        elif kind == "revoke":
            self.granted = {k: v for k, v in self.granted.items() if k[0] != a[0] or a[1] not in (None, k[1])}
        elif kind == "pass":
            self.now += a[0]
        elif kind == "switch":
            self.on = a[0]

    def allows(self, plugin, service, model) -> bool:
        if not self.on:
            return True
        if (plugin, service) not in self.granted:
            return False
        models, expires, export = self.granted[plugin, service]
        if expires is not None and self.now >= expires:
            return False
        if models is not None and (model is None or not any(fnmatch.fnmatchcase(model, each) for each in models)):
            return False
        return export


def apply(manager: ApiKeyManager, clock: Clock, kind, *a) -> None:
    if kind == "grant":
        manager.grant(a[0], a[1], models=a[2], expires=None if a[3] is None else clock.now + a[3], export=a[4])
    elif kind == "set":
        manager.set_plugin_permissions(a[0], a[1])
    elif kind == "revoke":
        manager.revoke(a[0], a[1])
    elif kind == "pass":
        clock.now += a[0]
    elif kind == "switch":
        manager.enable_access_control(a[0])


@pytest.mark.timeout(3600)
@settings(max_examples=figure(40, 10_000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=steps)
def test_the_manager_does_what_a_model_of_thirty_lines_says(tmp_path_factory: pytest.TempPathFactory, sequence) -> None:
    clock, model = Clock(), Model()
    clock.now = model.now
    manager = ApiKeyManager(tmp_path_factory.mktemp("policy") / "s", master_key=MASTER_KEY, clock=clock, audit="off")
    for service in SERVICES:
        manager.set_api_key(service, service)
    for kind, *arguments in sequence:
        if kind == "ask":
            plugin, service, asked = arguments
            try:
                got = manager.get_api_key_secure(plugin, service, model=asked)
            except KeyAccessDeniedError:
                got = None
            assert (got == service) == model.allows(plugin, service, asked), (sequence, arguments)
        else:
            apply(manager, clock, kind, *arguments)
            model.step(kind, *arguments)
    for plugin in PLUGINS:
        for service in SERVICES:
            for asked in MODELS:
                assert manager.check_permission(plugin, service, model=asked) == model.allows(plugin, service, asked)


def test_nothing_is_allowed_before_it_is_granted(manager: ApiKeyManager) -> None:
    for ask in (manager.get_api_key_secure, manager.get_oauth_token_secure):
        with pytest.raises(KeyAccessDeniedError, match="'plugin' may not have") as caught:
            ask("plugin", "aws_bedrock")
        assert "apex-llm keys grant plugin aws_bedrock" in str(caught.value.hint)
    with pytest.raises(KeyAccessDeniedError):
        manager.get_api_key_secure("plugin", "no such service")


def test_a_refusal_does_not_tell_whether_the_service_is_configured(manager: ApiKeyManager) -> None:
    def refusal(service: str) -> str:
        with pytest.raises(KeyAccessDeniedError) as caught:
            manager.get_api_key_secure("plugin", service)
        return str(caught.value).replace(service, "")

    assert refusal("aws_bedrock") == refusal("azure_openai")


def test_a_grant_is_for_the_service_and_the_plugin_that_it_names(manager: ApiKeyManager) -> None:
    manager.set_plugin_permissions("plugin", ["aws_bedrock"])
    assert manager.get_api_key_secure("plugin", "aws_bedrock") == VALUE
    for plugin, service in [("plugin", "azure_openai"), ("Plugin", "aws_bedrock"), ("plugin ", "aws_bedrock")]:
        with pytest.raises(KeyAccessDeniedError):
            manager.get_api_key_secure(plugin, service)


def test_a_grant_ends_when_it_was_said_to(manager: ApiKeyManager, clock: Clock) -> None:
    manager.grant("plugin", "aws_bedrock", days=1)
    assert manager.get_api_key_secure("plugin", "aws_bedrock") == VALUE
    clock.now += 86_399
    assert manager.get_api_key_secure("plugin", "aws_bedrock") == VALUE
    clock.now += 1
    with pytest.raises(KeyAccessDeniedError, match="has expired"):
        manager.get_api_key_secure("plugin", "aws_bedrock")
    until = datetime.fromtimestamp(clock.now, UTC) + timedelta(seconds=5)
    assert manager.grant("plugin", "aws_bedrock", expires=until).expires == clock.now + 5
    with pytest.raises(ConfigurationError, match="time zone"):
        manager.grant("plugin", "aws_bedrock", expires=datetime(2030, 1, 1))


def test_a_grant_for_models_gives_the_key_only_for_those(manager: ApiKeyManager) -> None:
    manager.grant("plugin", "aws_bedrock", models=["anthropic.*"])
    assert manager.get_api_key_secure("plugin", "aws_bedrock", model="anthropic.claude-sonnet-4-6") == VALUE
    with pytest.raises(KeyAccessDeniedError, match="not granted for this model"):
        manager.get_api_key_secure("plugin", "aws_bedrock", model="amazon.nova-pro")
    with pytest.raises(KeyAccessDeniedError, match="none was named"):
        manager.get_api_key_secure("plugin", "aws_bedrock")


@pytest.mark.parametrize("model", ["", "\ud800", 5, b"claude"], ids=ascii)
def test_a_model_that_is_no_text_is_refused_by_name(manager: ApiKeyManager, model) -> None:
    manager.grant("plugin", "aws_bedrock", models=["*"])
    for act in (
        lambda: manager.get_api_key_secure("plugin", "aws_bedrock", model=model),
        lambda: manager.check_permission("plugin", "aws_bedrock", model=model),
        lambda: manager.provider_access.permit_model("plugin", "aws_bedrock", [model]),
        lambda: manager.provider_access.permit_model("plugin", "aws_bedrock", []),
    ):
        with pytest.raises(ConfigurationError, match="model"):
            act()


class Parsed(str):
    """A text as some parsers of configuration files give it; to be told from others by its words only."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("plugin")


def test_names_may_be_texts_of_a_kind_of_their_own_and_are_taken_at_their_word(
    manager: ApiKeyManager, home: Path
) -> None:
    required = ApiKeyManager(home, master_key=MASTER_KEY, audit="required")
    required.set_plugin_permissions(Parsed("plugin"), [Parsed("aws_bedrock")])
    required.set_api_key(Parsed("github"), Parsed("a value"))
    assert required.get_api_key_secure(Parsed("plugin"), Parsed("aws_bedrock"), model=Parsed("m")) == VALUE
    assert required.get_api_key(Parsed("github")) == "a value"
    with pytest.raises(KeyAccessDeniedError):
        required.get_api_key_secure(Parsed("stranger"), "aws_bedrock")
    assert required.grant(Parsed("plugin"), Parsed("github"), models=[Parsed("x")]).models == ("x",)
    assert required.get_plugin_permissions() == ApiKeyManager(home, master_key=MASTER_KEY).get_plugin_permissions()
    assert required.revoke(Parsed("plugin"), Parsed("github"))
    assert required.verify().ok


def test_a_key_that_must_not_leave_goes_to_providers_only(manager: ApiKeyManager) -> None:
    manager.grant("plugin", "aws_bedrock", export=False)
    with pytest.raises(KeyAccessDeniedError, match="through a provider only"):
        manager.get_api_key_secure("plugin", "aws_bedrock")
    assert manager.provider_access.get_api_key_secure("plugin", "aws_bedrock") == VALUE
    assert manager.provider_access.get_api_key("aws_bedrock") == VALUE
    with pytest.raises(KeyAccessDeniedError):
        manager.provider_access.get_api_key_secure("other", "aws_bedrock")


def test_switching_the_control_off_and_on_is_kept_in_the_store(manager: ApiKeyManager, home: Path) -> None:
    manager.enable_access_control(False)
    assert ApiKeyManager(home, master_key=MASTER_KEY).get_api_key_secure("anybody", "aws_bedrock") == VALUE
    manager.enable_access_control()
    with pytest.raises(KeyAccessDeniedError):
        ApiKeyManager(home, master_key=MASTER_KEY).get_api_key_secure("anybody", "aws_bedrock")


def test_a_strict_manager_takes_no_names(home: Path) -> None:
    manager = ApiKeyManager(home, master_key=MASTER_KEY, strict=True)
    manager.set_api_key("aws_bedrock", VALUE)
    manager.set_plugin_permissions("plugin", ["aws_bedrock"])
    handle = manager.plugin_handle("plugin")

    with pytest.raises(KeyAccessDeniedError, match="only handles"):
        manager.get_api_key_secure("plugin", "aws_bedrock")
    assert manager.get_api_key_secure(handle, "aws_bedrock") == VALUE
    assert handle.get_api_key("aws_bedrock") == VALUE
    assert handle.services() == ["aws_bedrock"]
    manager.revoke("plugin", "aws_bedrock")
    with pytest.raises(KeyAccessDeniedError, match="not granted"):
        handle.get_api_key("aws_bedrock")
    manager.set_plugin_permissions("plugin", ["aws_bedrock"])
    manager.retire_handle(handle)
    with pytest.raises(KeyAccessDeniedError, match="retired"):
        handle.get_oauth_token("aws_bedrock")
    assert handle.services() == []


def test_a_handle_is_good_for_its_own_manager_only_and_cannot_be_made(manager: ApiKeyManager, home: Path) -> None:
    manager.set_plugin_permissions("plugin", ["aws_bedrock"])
    other = ApiKeyManager(home, master_key=MASTER_KEY)
    made = PluginHandle("plugin", lambda *_: None, lambda _: [])
    for forged in (other.plugin_handle("plugin"), made):
        with pytest.raises(KeyAccessDeniedError, match="not one of this manager"):
            manager.get_api_key_secure(forged, "aws_bedrock")
    handle = manager.plugin_handle("plugin")
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            attempt(handle)
    with pytest.raises(AttributeError):
        handle.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_handles_of_plugins_that_are_gone_are_not_kept(manager: ApiKeyManager) -> None:
    for number in range(10):
        manager.plugin_handle(f"plugin-{number}")
    gc.collect()
    assert len(manager._handles) == 0


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 201, None, 5, "a\u202eb"])
def test_names_that_would_forge_a_line_or_hide_are_refused(manager: ApiKeyManager, name) -> None:
    for use in (
        lambda: manager.set_plugin_permissions(name, ["aws_bedrock"]),
        lambda: manager.set_plugin_permissions("plugin", [name]),
        lambda: manager.get_api_key_secure(name, "aws_bedrock"),
        lambda: manager.get_api_key_secure("plugin", name),
        lambda: manager.set_api_key(name, "value"),
        lambda: manager.get_api_key(name),
        lambda: manager.plugin_handle(name),
        lambda: manager.grant(name, "aws_bedrock"),
    ):
        with pytest.raises(ConfigurationError):
            use()


def test_one_string_is_not_a_list_of_services(manager: ApiKeyManager) -> None:
    with pytest.raises(ConfigurationError, match="list of names"):
        manager.set_plugin_permissions("plugin", "aws_bedrock")


def test_any_of_several_grants_is_enough() -> None:
    document = new_document("age1x", None, now=0)
    document.permissions["p"] = [Grant(service="s", expires=1.0), Grant(service="s", models=("m",)), Grant(service="t")]
    assert decide(document, "p", "s", model="m", now=5).allowed
    assert not decide(document, "p", "s", model=None, now=5).allowed
