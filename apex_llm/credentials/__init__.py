"""Where keys and tokens come from, and how they stay fresh without a caller noticing.

- ``cached``: one refresh for any number of waiters; the heart of the room.
- ``aws``: explicit values, environment, shared files, container, instance metadata; with the
  extra ``[aws]`` also roles, SSO, web identity and ``credential_process``.
- ``azure``: API keys, tokens, token providers, and Microsoft Entra in one HTTP call each.
- ``manager``: credentials held by a key manager, re-read while the provider runs.

Nothing here opens a socket of its own: whoever assembles a provider hands in a ``Send``.
Import from the modules; this package imports none of them, so that one cloud does not pay
for the other.
"""
