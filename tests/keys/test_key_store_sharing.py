"""K6, K19: many processes, threads, forks and event loops on one store."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from keys_support import FULL, MASTER_KEY, VALUE, figure, worker

from apex_llm.errors import KeyAccessDeniedError, LockedError
from apex_llm.keys import ApiKeyManager
from apex_llm.keys.files import Directory
from apex_llm.keys.os_layer import OsLayer


def fresh(home: Path, **options) -> ApiKeyManager:
    return ApiKeyManager(home, master_key=MASTER_KEY, **options)


@pytest.mark.timeout(900)
def test_processes_that_write_at_once_lose_nothing(home: Path) -> None:
    """K6: every key is there, every generation was used once, nobody read a torn or older store."""
    writers, times, readers = figure(3, 8), figure(15, 250), figure(2, 4)
    manager = fresh(home)
    manager.set_api_key("aws_bedrock", VALUE)
    before = manager.generation
    total = writers * times + 1
    reading = [
        subprocess.Popen(worker("read", home, MASTER_KEY, total), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(readers)
    ]
    writing = [
        subprocess.Popen(
            worker("many", home, MASTER_KEY, f"writer{number}", times), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(writers)
    ]
    took: list[float] = []
    for process in writing:
        output, problems = process.communicate()
        assert process.returncode == 0, problems.decode()
        took += json.loads(output)
    for process in reading:
        output, problems = process.communicate()
        assert process.returncode == 0, problems.decode()
        assert json.loads(output)["seen"] == total

    assert len(manager.list_configured_services()["api_keys"]) == total
    assert manager.generation == before + writers * times
    assert manager.verify().ok, manager.verify()
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    print(f"K6: {len(took)} writes, p50 {took[len(took) // 2] * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
    assert p99 < (0.25 if FULL else 10)


def test_threads_share_one_manager(manager: ApiKeyManager) -> None:
    """K19."""
    before = manager.generation
    manager.set_plugin_permissions("plugin", ["aws_bedrock"])

    def work(number: int) -> None:
        manager.set_api_key(f"service-{number}", f"value-{number}")
        assert manager.get_api_key(f"service-{number}") == f"value-{number}"
        assert manager.get_api_key_secure("plugin", "aws_bedrock") == VALUE

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))

    assert manager.generation == before + 33
    assert manager.verify().ok


def test_two_managers_of_one_process_follow_each_other(manager: ApiKeyManager, home: Path) -> None:
    other = fresh(home)
    assert other.get_api_key("aws_bedrock") == VALUE
    manager.set_api_key("aws_bedrock", "rotated")
    assert other.get_api_key("aws_bedrock") == "rotated"
    other.set_plugin_permissions("plugin", ["aws_bedrock"])
    assert manager.get_api_key_secure("plugin", "aws_bedrock") == "rotated"
    other.revoke("plugin")
    with pytest.raises(KeyAccessDeniedError):
        manager.get_api_key_secure("plugin", "aws_bedrock")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_holds_the_locks_goes_on(manager: ApiKeyManager, home: Path) -> None:
    """K19: neither the thread's lock nor the copy of the file's lock may hang the child, or outlive the parent."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(OsLayer):
        def sync(self, descriptor: int) -> None:
            inside.set()
            go_on.wait(20)
            super().sync(descriptor)

    slow = fresh(home, os_layer=Slow())
    slow.get_api_key("aws_bedrock")
    thread = threading.Thread(target=slow.set_api_key, args=("from-parent", "value-p"))
    thread.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            go_on.set()  # the child's own copy of the event
            assert slow.get_api_key("aws_bedrock") == VALUE
            slow.set_api_key("from-child", "value-c")
            code = 0
        finally:
            os._exit(code)
    time.sleep(0.05)
    go_on.set()
    thread.join(20)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert {"from-parent", "from-child"} <= set(fresh(home).list_configured_services()["api_keys"])


async def test_cancelling_a_write_leaves_no_half_state_and_no_lock(manager: ApiKeyManager, home: Path) -> None:
    """K19: a thread cannot be cancelled; its write ends as one that nobody waited for."""
    began = threading.Event()

    class Told(OsLayer):
        def sync(self, descriptor: int) -> None:
            began.set()
            time.sleep(0.02)
            super().sync(descriptor)

    writing = fresh(home, os_layer=Told())
    task = asyncio.create_task(asyncio.to_thread(writing.set_api_key, "service", "value"))
    while not began.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.to_thread(manager.set_api_key, "after", "value")
    assert manager.get_api_key("service") in {None, "value"}
    assert await asyncio.to_thread(lambda: manager.verify().ok)


def test_a_loop_that_was_closed_does_not_matter(manager: ApiKeyManager) -> None:
    async def write(number: int) -> None:
        await asyncio.to_thread(manager.set_api_key, "service", f"value-{number}")

    asyncio.run(write(1))
    asyncio.run(write(2))
    assert manager.get_api_key("service") == "value-2"


def test_a_lock_that_is_not_given_back_is_an_error_in_the_end(manager: ApiKeyManager, home: Path) -> None:
    impatient = fresh(home, lock_timeout=0.05)
    with (
        Directory.opened(home, OsLayer()) as directory,
        directory.locked("store.lock", timeout=1, taken=lambda _: None, sleep=time.sleep),
    ):
        assert impatient.get_api_key("aws_bedrock") == VALUE  # reading needs no lock
        with pytest.raises(LockedError, match=r"0\.05 seconds") as caught:
            impatient.set_api_key("service", "value")
    assert caught.value.retryable
    impatient.set_api_key("service", "value")


def test_the_lock_is_waited_for_where_no_thread_can_be_had(
    manager: ApiKeyManager, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many of them, or an interpreter that is about to end: ``close()`` in an exit handler."""

    def refuses(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    began = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with (
        Directory.opened(home, OsLayer()) as directory,
        directory.locked("store.lock", timeout=1, taken=lambda _: None, sleep=time.sleep),
        monkeypatch.context() as patch,
    ):
        patch.setattr(threading.Thread, "start", refuses)
        with pytest.raises(LockedError):
            fresh(home, lock_timeout=0.05).set_api_key("service", "value")
    assert not began or len(os.listdir("/proc/self/fd")) == began
    fresh(home, lock_timeout=1).set_api_key("service", "value")


def test_the_lock_of_a_parent_that_was_killed_does_not_live_on_in_its_children(home: Path) -> None:
    fresh(home).set_api_key("aws_bedrock", VALUE)
    # The child execs, as subprocesses do: descriptors are closed on exec.
    code = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from apex_llm.keys.files import Directory\n"
        "from apex_llm.keys.os_layer import OsLayer\n"
        "with Directory.opened(Path(sys.argv[1]), OsLayer()) as d:\n"
        "  with d.locked('store.lock', timeout=1, taken=lambda _: None, sleep=time.sleep):\n"
        "    child = subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL, close_fds=False)\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.run([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, check=False)
    child = int(parent.stdout)
    try:
        fresh(home, lock_timeout=1).set_api_key("service", "value")
    finally:
        os.kill(child, 9)


def test_a_lock_that_nobody_waits_for_any_more_is_given_back_when_it_comes(manager: ApiKeyManager, home: Path) -> None:
    """Who gave up must not hold the lock later on, when the kernel's queue reaches it."""
    with (
        Directory.opened(home, OsLayer()) as directory,
        directory.locked("store.lock", timeout=1, taken=lambda _: None, sleep=time.sleep),
    ):
        for _ in range(3):
            with pytest.raises(LockedError):
                fresh(home, lock_timeout=0.02).set_api_key("service", "value")
    fresh(home, lock_timeout=5).set_api_key("service", "value")
    assert not [thread for thread in threading.enumerate() if thread.name == "apex_llm-keys-lock" and thread.is_alive()]
