"""How long from the start of a process to its first answer?"""

from __future__ import annotations

__all__ = ["BENCHMARK"]

import os
import time

from benchmarks.bench_import import best_of
from benchmarks.clients import API_KEY, API_VERSION, CREDENTIALS, REGION, case_of
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, spawn

_MODEL = "bench.call"
_ASYNC = """
import asyncio
{imports}
async def main():
{body}
asyncio.run(main())
"""


def _async(imports: str, body: str) -> str:
    return _ASYNC.format(imports=imports, body="\n".join(f"    {line}" for line in body.splitlines()))


_OURS = f"BedrockProvider(endpoint_url=URL, aws_region={REGION!r}, credentials={CREDENTIALS!r})"
_KEYS = f"region_name={REGION!r}, endpoint_url=URL, **{CREDENTIALS!r}"
_CONVERSE = f"modelId={_MODEL!r}, messages=[{{'role': 'user', 'content': [{{'text': 'Hi'}}]}}]"
_TEXT = "['output']['message']['content'][0]['text']"

# Each prints the text of its first answer, and nothing before it.
_PROGRAMS = {
    "python": "print('nothing', flush=True)",
    "apex_llm": _async(
        "from apex_llm import BedrockProvider",
        f"async with {_OURS} as provider:\n    print(await provider.generate_text('Hi', {_MODEL!r}), flush=True)",
    ),
    "apex_llm, azure": _async(
        "from apex_llm import AzureOpenAIProvider",
        f"async with AzureOpenAIProvider(api_base=URL, api_version={API_VERSION!r}, api_key={API_KEY!r}) as provider:\n"
        f"    print(await provider.generate_text('Hi', {_MODEL!r}), flush=True)",
    ),
    "apex_llm.sync": "from apex_llm.sync import BedrockProvider\n"
    f"print({_OURS}.generate_text('Hi', {_MODEL!r}), flush=True)",
    "limit": _async(
        "from benchmarks.limit import BedrockLimit",
        f"client = BedrockLimit(host=HOST, port=PORT, access_key_id={CREDENTIALS['aws_access_key_id']!r}, "
        f"secret_access_key={CREDENTIALS['aws_secret_access_key']!r}, region={REGION!r})\n"
        f"print(await client.call({_MODEL!r}), flush=True)",
    ),
    "httpx": _async(
        "import httpx",
        "async with httpx.AsyncClient() as client:\n"
        f"    answer = await client.post(URL + '/model/{_MODEL}/converse', json={{}})\n"
        "    print(answer.json()['stopReason'], flush=True)",
    ),
    "aiobotocore": _async(
        "from aiobotocore.session import get_session",
        f"async with get_session().create_client('bedrock-runtime', {_KEYS}) as client:\n"
        f"    print((await client.converse({_CONVERSE})){_TEXT}, flush=True)",
    ),
    "boto3": "import boto3\n"
    f"client = boto3.client('bedrock-runtime', {_KEYS})\n"
    f"print(client.converse({_CONVERSE}){_TEXT}, flush=True)",
    "openai": _async(
        "from openai import AsyncAzureOpenAI",
        f"client = AsyncAzureOpenAI(azure_endpoint=URL, api_key={API_KEY!r}, api_version={API_VERSION!r})\n"
        "answer = await client.chat.completions.create("
        f"model={_MODEL!r}, messages=[{{'role': 'user', 'content': 'Hi'}}])\n"
        "print(answer.choices[0].message.content, flush=True)",
    ),
    "anthropic": _async(
        "from anthropic import AsyncAnthropicBedrock",
        f"client = AsyncAnthropicBedrock(base_url=URL, aws_region={REGION!r}, "
        f"aws_access_key={CREDENTIALS['aws_access_key_id']!r}, "
        f"aws_secret_key={CREDENTIALS['aws_secret_access_key']!r})\n"
        f"answer = await client.messages.create(model={_MODEL!r}, max_tokens=100, "
        "messages=[{'role': 'user', 'content': 'Hi'}])\n"
        "print(answer.content[0].text, flush=True)",
    ),
    "langchain-aws": _async(
        "import boto3\nfrom langchain_aws import ChatBedrockConverse",
        f"client = boto3.client('bedrock-runtime', {_KEYS})\n"
        f"model = ChatBedrockConverse(model={_MODEL!r}, provider='anthropic', client=client, bedrock_client=client)\n"
        "print((await model.ainvoke('Hi')).content, flush=True)",
    ),
    "pydantic-ai": _async(
        "import boto3\nfrom pydantic_ai.direct import model_request\n"
        "from pydantic_ai.messages import ModelRequest\n"
        "from pydantic_ai.models.bedrock import BedrockConverseModel\n"
        "from pydantic_ai.providers.bedrock import BedrockProvider",
        f"provider = BedrockProvider(bedrock_client=boto3.client('bedrock-runtime', {_KEYS}))\n"
        f"model = BedrockConverseModel({_MODEL!r}, provider=provider)\n"
        "answer = await model_request(model, [ModelRequest.user_text_prompt('Hi')])\n"
        "print(answer.parts[0].content, flush=True)",
    ),
    "litellm": _async(
        "import litellm",
        f"answer = await litellm.acompletion(model='bedrock/converse/{_MODEL}', "
        f"aws_bedrock_runtime_endpoint=URL, aws_region_name={REGION!r}, **{CREDENTIALS!r}, "
        "messages=[{'role': 'user', 'content': 'Hi'}])\n"
        "print(answer.choices[0].message.content, flush=True)",
    ),
}


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    head = f"HOST, PORT = '127.0.0.1', {host.port}\nURL = 'http://127.0.0.1:{host.port}'\n"
    program = head + _PROGRAMS[case.variant]
    return {"cold": best_of(plan.starts, lambda: _one(program, case, host))}


def _one(program: str, case: Case, host: Host) -> dict[str, float]:
    began = time.perf_counter()
    child = spawn(["-c", program], environ=host.environ, environment=case.environment)
    assert child.stdout is not None
    answered = child.stdout.readline()
    wall = time.perf_counter() - began
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    errors = child.communicate()[1]
    if child.returncode or not answered:
        raise RuntimeError(errors)
    return {
        "value": round(wall * 1000, 2),
        "cpu": round((usage.ru_utime + usage.ru_stime) * 1000, 2),
    }


BENCHMARK = Benchmark(
    name="cold_start",
    question="From the start of the process to its first answer (a bare interpreter included)",
    unit="ms",
    metrics={"cold": "Cold start"},
    cases=tuple(
        Case("", variant) if variant.startswith(("apex_llm", "python", "limit")) else case_of("", variant)
        for variant in _PROGRAMS
    ),
    measure=_measure,
)
