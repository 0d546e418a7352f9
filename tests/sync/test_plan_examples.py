"""The examples of ApexAgent's expansion plan, as they stand there but for the import line."""

from __future__ import annotations

import pytest

from apex_llm.emulator import Answer, Emulator


class KeyManager:
    """What the plan calls ``ApiKeyManager``, as far as a provider needs it."""

    def __init__(self, emulator: Emulator) -> None:
        self.keys = {
            "aws_bedrock": {
                "aws_access_key_id": emulator.access_key_id,
                "aws_secret_access_key": emulator.secret_access_key,
            },
            "azure_openai": {"api_key": emulator.api_key, "api_base": emulator.azure_url},
        }
        self.asked: list[str] = []

    def get_api_key(self, service: str) -> dict[str, str] | None:
        self.asked.append(service)
        return self.keys.get(service)

    def get_api_key_secure(self, plugin: str, service: str) -> dict[str, str] | None:
        self.asked.append(f"{plugin}: {service}")
        return self.keys.get(service)


def test_bedrock_as_the_plan_uses_it(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.script("Qubits.", Answer.text(chunks=["Once ", "upon."]))

    from apex_llm.sync import BedrockProvider

    provider = BedrockProvider()
    provider.initialize()
    print(provider.generate_text(prompt="Explain quantum computing in simple terms.", model="claude", max_tokens=500, temperature=0.7))  # fmt: skip # noqa: E501
    for chunk in provider.generate_text_stream(prompt="Write a short story.", model="claude", max_tokens=1000, temperature=0.8):  # fmt: skip # noqa: E501
        print(chunk, end="", flush=True)

    assert capsys.readouterr().out == "Qubits.\nOnce upon."
    asked = [request.json["inferenceConfig"] for request in emulator.requests]
    assert asked == [{"maxTokens": 500, "temperature": 0.7}, {"maxTokens": 1000, "temperature": 0.8}]


def test_azure_as_the_plan_uses_it(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.script("Qubits.", Answer.text(chunks=["Once ", "upon."]))

    from apex_llm.sync import AzureOpenAIProvider

    provider = AzureOpenAIProvider()
    provider.initialize()
    print(provider.generate_text(prompt="Explain quantum computing in simple terms.", deployment_id="chat", max_tokens=500, temperature=0.7))  # fmt: skip # noqa: E501
    for chunk in provider.generate_text_stream(prompt="Write a short story.", deployment_id="chat", max_tokens=1000, temperature=0.8):  # fmt: skip # noqa: E501
        print(chunk, end="", flush=True)

    assert capsys.readouterr().out == "Qubits.\nOnce upon."


def test_arguments_by_position_are_the_plans(emulator: Emulator) -> None:
    from apex_llm.sync import AzureOpenAIProvider, BedrockProvider

    bedrock, azure = BedrockProvider(), AzureOpenAIProvider()

    assert bedrock.generate_text("Hi", "claude", 500, 0.7) == "You said: Hi"
    assert azure.generate_text("Hi", "chat", 500, 0.7) == "You said: Hi"
    assert "".join(bedrock.generate_text_stream("Hi", "claude", 500, 0.7)) == "You said: Hi"
    assert "".join(azure.generate_text_stream("Hi", "chat", 500, 0.7)) == "You said: Hi"


def test_models_are_listed_and_printed(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    from apex_llm.sync import AzureOpenAIProvider, BedrockProvider

    for provider in (BedrockProvider(), AzureOpenAIProvider()):
        models = provider.get_available_models()
        for model in models:
            print(model)
        assert models

    printed = capsys.readouterr().out
    assert "anthropic.claude" in printed
    assert "chat" in printed


def test_a_key_manager_and_a_region_are_the_first_two_arguments(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apex_llm.sync import BedrockProvider

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    api_key_manager = KeyManager(emulator)
    provider = BedrockProvider(api_key_manager, "us-east-1")
    provider.initialize()

    assert provider.generate_text("Hi", model="claude") == "You said: Hi"
    assert set(api_key_manager.asked) == {"aws_bedrock"}


def test_azure_takes_manager_endpoint_and_the_old_version(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from apex_llm.sync import AzureOpenAIProvider

    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name)
    api_key_manager, api_base = KeyManager(emulator), emulator.azure_url
    provider = AzureOpenAIProvider(api_key_manager, api_base, "2023-05-15")
    provider.initialize()

    assert provider.generate_text(prompt="Hi", deployment_id="chat") == "You said: Hi"
    assert "".join(provider.generate_text_stream(prompt="Hi", deployment_id="chat")) == "You said: Hi"
    assert str(provider._get_deployment_model("chat")).startswith("gpt-4o")
    assert set(api_key_manager.asked) == {"azure_openai"}
    assert emulator.requests[0].query["api-version"] == "2023-05-15"


def test_a_plugin_asks_in_its_own_name(emulator: Emulator) -> None:
    from apex_llm.sync import BedrockProvider

    api_key_manager = KeyManager(emulator)
    provider = BedrockProvider(api_key_manager, "us-east-1", plugin="writer")

    assert provider.generate_text("Hi", "claude") == "You said: Hi"
    assert set(api_key_manager.asked) == {"writer: aws_bedrock"}
