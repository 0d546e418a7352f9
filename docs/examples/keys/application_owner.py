"""An application's owner: store credentials, say who may have them, rotate one, and look after the store.

Runs offline and cleans up after itself: python docs/examples/keys/application_owner.py
What it does can be done on the command line too: apex-llm keys --help
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from apex_llm import ApiKeyManager


def main(directory: Path) -> None:
    # On a laptop: passphrase=prompt_passphrase, or nothing at all where a keyring works.
    master_key = ApiKeyManager.generate_master_key()
    manager, recovery_key = ApiKeyManager.create(directory / "keys", master_key=master_key)
    assert recovery_key is not None
    # Shown once, to be kept on paper. Here it goes to a file that is thrown away.
    recovery = directory / "recovery-key"
    recovery.touch(mode=0o600)
    recovery.write_text(recovery_key.reveal())

    with manager:
        manager.set_api_key(
            "aws_bedrock",
            {
                "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
                "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "aws_region": "eu-central-1",
            },
        )
        manager.set_api_key("github", "ghp_the_first_example")
        manager.set_oauth_token("calendar", {"access_token": "ya29.example", "refresh_token": "1//example"})

        manager.grant("reports", "aws_bedrock", models=["anthropic.*"], days=90, export=False)
        manager.set_plugin_permissions("crawler", ["github"])

        manager.rotate_credential("github", "ghp_the_second_example", overlap_days=2)
        assert manager.get_previous("github") == "ghp_the_first_example"

        for credential in manager.describe_credentials():
            print(f"{credential.service:12} {credential.kind:12} fingerprint {credential.fingerprint}")
        for plugin, grants in manager.get_plugin_permissions().items():
            print(f"{plugin:12} may have {', '.join(grant.service for grant in grants)}")
        due = [each.which for each in manager.check_key_rotation_status().values() if each.is_due]
        print(f"due for rotation: {', '.join(due) or 'nothing'}")

        status, verification = manager.status(), manager.verify()
        print(f"opened by {status.opened_by}, isolation {status.isolation}")
        print(f"verified: {verification.ok}, {verification.audit_lines} lines in the audit log")

    # The key is lost: the recovery key opens the store, and gives it a new one.
    with ApiKeyManager(directory / "keys", master_key=recovery.read_text()) as rescued:
        rescued.rotate_master_key(master_key=ApiKeyManager.generate_master_key())
        print(f"recovered: {', '.join(rescued.list_configured_services()['api_keys'])}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
