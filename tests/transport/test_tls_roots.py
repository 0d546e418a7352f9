"""Which authorities a context trusts, and that none is made that trusts nobody."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from apex_llm.errors import ConfigurationError
from apex_llm.transport import tls


@pytest.mark.parametrize(
    ("roots", "told"),
    [({"SSL_CERT_DIR": "empty"}, "no certificate authorities in .*empty"), ({"SSL_CERT_DIR": "nowhere"}, "nowhere")],
)
def test_a_directory_without_roots_is_told_and_not_kept(roots: dict[str, str], told: str, tmp_path: Any) -> None:
    """OpenSSL takes it without a word; every handshake would fail, as if the server were not to be trusted."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "root.pem").write_text("not named by its hash")
    trust = tls.trust_roots({name: str(tmp_path / value) for name, value in roots.items()})

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=told):
            tls.default_context(trust)


def test_a_root_that_is_no_authority_is_trusted_as_it_is(authority: Any, tmp_path: Any) -> None:
    """One server's own certificate."""
    leaf = tmp_path / "leaf.pem"
    authority.issue_cert("localhost").cert_chain_pems[0].write_to_path(str(leaf))

    context = tls.default_context(tls.TrustRoots(str(leaf)))

    assert context.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 0}


SHORT = """
    import os, resource, ssl, sys
    from apex_llm.transport.tls import TrustRoots, default_context

    roots = TrustRoots(*[value or None for value in {roots!r}])
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    ends = []
    for spare in range(6):
        try:
            default_context(roots)
        except Exception as error:
            ends.append((type(error).__name__, error.retryable))
        else:
            ends.append("made")
        if "made" in ends:
            break
        os.close(held.pop())
    for descriptor in held:
        os.close(descriptor)
    context = default_context(roots)
    print((ends, context.cert_store_stats()["x509"], context.verify_mode.name))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="descriptor limits of POSIX")
@pytest.mark.parametrize(
    ("kind", "given"),
    [("file", True), ("directory", True), ("file", False), ("directory", False), ("neither", False)],
)
def test_roots_that_cannot_be_read_for_lack_of_descriptors_are_read_at_the_next_call(
    kind: str, given: bool, authority: Any, tmp_path: Any
) -> None:
    """With however many descriptors: a context without roots is not made, nor kept. ``given`` or else the system's."""
    bundle = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(bundle))
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    (hashed / "0a1b2c3d.0").write_bytes(bundle.read_bytes())
    file, directory = str(bundle) if kind == "file" else "", str(hashed) if kind == "directory" else ""
    # What OpenSSL finds by itself is the system's.
    environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "none"), "SSL_CERT_DIR": str(tmp_path / "none")}
    if not given:
        environment.update({"SSL_CERT_FILE": file or "/none", "SSL_CERT_DIR": directory or "/none"})
    code = textwrap.dedent(SHORT.format(roots=(file, directory) if given else ("", "")))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    ends, read, mode = ast.literal_eval(done.stdout)
    assert set(ends) <= {("ConnectionFailedError", True), "made"}
    if not (given and kind == "directory"):
        assert ends[0] == ("ConnectionFailedError", True)
    assert mode == "CERT_REQUIRED"
    if kind == "file":
        assert read == 1
    elif kind == "directory":
        assert read == 0  # found by its name at each handshake
    else:
        assert read > 50


UNCHECKED = """
    import os, resource, ssl
    from apex_llm.transport.network_errors import connection_failed

    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_code, refused.verify_message = 20, "unable to get local issuer certificate"
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    print([connection_failed(refused, host="h", phase="connect").kind])
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os.close(held.pop())  # the failed connection's own
    failure = connection_failed(refused, host="h", phase="connect")
    print((failure.kind, failure.retryable))
    refused.verify_code = 18
    print([connection_failed(refused, host="h", phase="connect").kind])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="descriptor limits of POSIX")
def test_a_root_that_cannot_be_opened_is_not_held_against_the_server() -> None:
    """OpenSSL says of it what it says of a root that is not there, and nobody would try again."""
    code = textwrap.dedent(UNCHECKED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout.splitlines(), done.stderr) == (
        ["['certificate']", "('network', True)", "['certificate']"],
        "",
    )
