"""Whatever a client sends, it gets an answer of the cloud's own kind, and never a 500."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_wire import Wire

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "system": [{"text": "x"}],
    "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["x"]},
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}],
        "toolChoice": {"any": {}},
    },
    "additionalModelRequestFields": {"thinking": {"type": "enabled"}},
    "outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{}"}}}},
}
CLAUDE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    "system": "x",
    "stop_sequences": ["x"],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any"},
    "output_config": {"format": {"type": "json_schema", "schema": {}}},
}
CHAT = {
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": False,
    "n": 1,
    "stop": ["x"],
    "max_tokens": 5,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": ["object"]}}},
    "stream_options": {"include_usage": True},
}
EMBEDDING = {"input": ["a"], "dimensions": 8, "encoding_format": "float"}
TITAN = {"inputText": "a", "dimensions": 8, "normalize": True}
NOVA = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], "inferenceConfig": {"maxTokens": 5}}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.extend(places(inner, (*path, key)))
    return found


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


def damaged(template: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.builds(replaced, st.just(template), st.sampled_from(places(template)), JUNK)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=st.one_of(
        damaged(CONVERSE).map(lambda body: ("/model/us.anthropic.claude-sonnet-4-6/converse", body)),
        damaged(CONVERSE).map(lambda body: ("/model/amazon.nova-micro-v1%3A0/converse-stream", body)),
        damaged(CLAUDE).map(lambda body: ("/model/us.anthropic.claude-sonnet-4-6/invoke", body)),
        damaged(TITAN).map(lambda body: ("/model/amazon.titan-embed-text-v2%3A0/invoke", body)),
        damaged(NOVA).map(lambda body: ("/model/amazon.nova-micro-v1%3A0/invoke", body)),
        damaged(CHAT).map(lambda body: ("/model/openai.gpt-oss-20b-1%3A0/invoke", body)),
        damaged(CHAT).map(lambda body: ("/openai/deployments/chat/chat/completions?api-version=2024-10-21", body)),
        damaged(EMBEDDING).map(lambda body: ("/openai/deployments/embed/embeddings?api-version=2024-10-21", body)),
    )
)
def test_a_damaged_request_is_answered_or_refused(wire: Wire, case: tuple[str, Any]) -> None:
    target, body = case

    answer = wire.chat(body, target=target) if target.startswith("/openai/") else wire.call(target, body)

    assert answer.status in {200, 400, 404}, answer.body
