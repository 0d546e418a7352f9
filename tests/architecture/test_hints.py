"""Errors that are found before sending say what to do next, all of them."""

from __future__ import annotations

import ast

from source_tree import modules

BEFORE_SENDING = {"ConfigurationError", "MissingCredentialsError", "InvalidEndpointError", "UnknownModelError"}


def test_every_error_of_the_set_up_has_a_hint() -> None:
    without = [
        module.where(node)
        for module in modules()
        if module.room in {"providers", "credentials"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BEFORE_SENDING
        and not {"hint", None} & {keyword.arg for keyword in node.keywords}
    ]

    assert not without
