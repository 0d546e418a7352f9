"""Regions and hosts of Bedrock: from a region's name to the two origins that we talk to.

Truth: the endpoint rules of botocore 1.44.5 for ``bedrock`` and ``bedrock-runtime``. An
override by argument or by ``AWS_ENDPOINT_URL*`` keeps its base path.
"""

from __future__ import annotations

__all__ = ["BedrockEndpoints", "bedrock_endpoints", "check_configured_region"]

import re
from collections.abc import Mapping

import msgspec

from apex_llm.credentials.aws_region import check_region
from apex_llm.errors import ConfigurationError, InvalidEndpointError
from apex_llm.providers.endpoints import Endpoint, parse_endpoint
from apex_llm.types.http import Origin

_SERVICE_HOST = r"(?P<label>bedrock(?:-[a-z]+)*?)(?:-fips)?\.(?P<region>[a-z]{2,}(?:-[a-z]+)+-\d+)\..+"
_OPERATION = r"/model/[^/]+/(converse|invoke)[a-z-]*$"

# Partition by the region's first labels: suffix, and suffix for dual-stack.
_PARTITIONS: tuple[tuple[str, str, str], ...] = (
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
)
_AWS_SUFFIXES = (*tuple(suffix for _, *suffixes in _PARTITIONS for suffix in suffixes), "amazonaws.com", "api.aws")


class BedrockEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Both planes of one region."""

    region: str
    runtime: Endpoint
    control: Endpoint


def check_configured_region(region: str | None, *, environ: Mapping[str, str]) -> None:
    """Refuse early what was given as the region, in code or else in the environment.

    Raises:
        InvalidEndpointError: It has not the form of one.
    """
    if region is not None:
        check_region(region)
        return
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if value := environ.get(variable, "").strip():
            check_region(value, source=variable)
            return


def bedrock_endpoints(
    region: str,
    *,
    endpoint_url: str | None,
    environ: Mapping[str, str],
    allow_insecure: bool = False,
    signed: bool = True,
) -> BedrockEndpoints:
    """Where to reach Bedrock in ``region``, with every override that AWS tools know.

    ``signed`` is false for bearer keys: only a signature names a region, which must be the endpoint's.

    Raises:
        InvalidEndpointError: The region or an override cannot be used.
        ConfigurationError: An override together with FIPS or dual-stack.
    """
    check_region(region)
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    configured: Mapping[str, str] = {} if ignored else environ
    general = configured.get("AWS_ENDPOINT_URL")
    override = {
        "runtime": (endpoint_url, configured.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME") or general),
        "control": (None, configured.get("AWS_ENDPOINT_URL_BEDROCK") or general),
    }
    fips = environ.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true"
    dual = environ.get("AWS_USE_DUALSTACK_ENDPOINT", "").lower() == "true"
    found: dict[str, Endpoint] = {}
    for plane, (argument, variable) in override.items():
        url = argument or variable
        if url:
            if fips or dual:
                raise ConfigurationError(
                    "A custom endpoint cannot be combined with FIPS or dual-stack endpoints.",
                    phase="prepare",
                    hint="Unset AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT, or drop the endpoint URL.",
                )
            name = "endpoint_url" if argument else f"The {plane} endpoint from AWS_ENDPOINT_URL*"
            endpoint, query = parse_endpoint(url, name=name, allow_insecure=allow_insecure)
            if query:
                raise InvalidEndpointError(f"{name} carries a query (?...).", hint="Leave out everything from the ?.")
            if plane == "runtime":
                _check_runtime(endpoint, region=region if signed else None, name=name)
            found[plane] = endpoint
        else:
            label = {"runtime": "bedrock-runtime", "control": "bedrock"}[plane]
            found[plane] = Endpoint(Origin("https", _host(label, region, fips=fips, dual=dual), 443))
    if endpoint_url and not override["control"][1] and not found["runtime"].origin.host.endswith(_AWS_SUFFIXES):
        # A gateway or emulator given for the runtime serves the listings as well; an AWS host,
        # such as a VPC endpoint, serves one plane only.
        found["control"] = found["runtime"]
    return BedrockEndpoints(region=region, runtime=found["runtime"], control=found["control"])


def _check_runtime(endpoint: Endpoint, *, region: str | None, name: str) -> None:
    """Refuse what would only be told by a signature that does not match, or by a 404."""
    host = endpoint.origin.host
    problem = None
    if host.endswith((".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")):
        problem = f"is an address of Azure ({host})", "Use AzureOpenAIProvider."
    elif re.search(_OPERATION, endpoint.base_path):
        problem = f"is the address of an operation ({endpoint.base_path[:80]})", "Leave out everything from /model on."
    elif host.endswith(_AWS_SUFFIXES) and (parts := re.fullmatch(_SERVICE_HOST, host)):
        if parts["label"] != "bedrock-runtime":
            where = _host("bedrock-runtime", parts["region"], fips=False, dual=False)
            problem = f"is not where models are called ({host})", f"That is https://{where}; leave endpoint_url out."
        elif region is not None and parts["region"] != region:
            problem = (
                f"is in the region {parts['region']}, and the region is {region}",
                f"Pass aws_region={parts['region']!r}, or leave the endpoint out.",
            )
    if problem is not None:
        raise InvalidEndpointError(f"{name} {problem[0]}.", phase="prepare", hint=problem[1])


def _host(label: str, region: str, *, fips: bool, dual: bool) -> str:
    suffix, dual_suffix = "amazonaws.com", "api.aws"
    for prefix, plain, dual_stack in _PARTITIONS:
        if region.startswith(prefix):
            suffix, dual_suffix = plain, dual_stack
    return f"{label}{'-fips' if fips else ''}.{region}.{dual_suffix if dual else suffix}"
