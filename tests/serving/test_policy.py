"""A server with a policy: its section `server` stands around all, is checked before the start, and read anew at SIGHUP."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose.__main__ import main
from interpose.policy import watching
from interpose.serving import CannotServe, Options
from interpose.serving.changes import Changes
from interpose.serving.following import following, policy_of
from tests.serving.driving import Client, Shop, serve
from tests.support.patience import PATIENCE

REFUSING = {"FaultInjection": {"enabled": True, "abort": "ABORTED"}}
SERVICE = "test.Shop"


def written(folder: Path, *entries: Any) -> str:
    path = folder / "policy.json"
    path.write_text(json.dumps({"server": list(entries)}, indent=1), "utf-8")
    return str(path)


def code_of(client: Client) -> grpc.StatusCode:
    try:
        client.call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.fixture
def _hangup_is_harmless() -> Iterator[None]:
    """If the server does not come to hear it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangup_is_harmless")
@pytest.mark.parametrize("asyncio", [False, True])
def test_a_server_goes_by_its_policy_and_follows_it(
    asyncio: bool, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGHUP makes it read the file again; one with faults is not used, and the log says why."""
    caplog.set_level("INFO", "interpose")
    policy = written(tmp_path, {"methods": {f"/{SERVICE}/*": [REFUSING]}})
    read = _told(monkeypatch)

    def script(client: Client) -> list[grpc.StatusCode]:
        codes = [code_of(client)]
        for entries in (["RequestId"], ["Nothing"]):
            written(tmp_path, *entries)
            os.kill(os.getpid(), signal.SIGHUP)
            assert read.acquire(timeout=PATIENCE)
            codes.append(code_of(client))
        return codes

    codes = serve(Shop(asyncio=asyncio).app, script, path, policy=policy)

    assert codes == [grpc.StatusCode.ABORTED, grpc.StatusCode.OK, grpc.StatusCode.OK]
    assert f"{policy} is in force" in caplog.text
    assert "the policy stays as it was" in caplog.text and 'there is no interceptor "Nothing"' in caplog.text


def _told(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever a policy has been read anew."""
    done, follow = threading.Semaphore(0), watching.follow

    def told(policy: Any) -> None:
        follow(policy)
        done.release()

    monkeypatch.setattr(watching, "follow", told)
    return done


BAD = {
    "faults": (["Nothing", "Deadline"], 'policy.json:3: server[0]: there is no interceptor "Nothing"'),
    "row": ([{"methods": {"/shop.v1.Orders/*": []}}], 'server[0].methods["/shop.v1.Orders/*"]: the row'),
    "guard": (
        [{"Authorize": {"policy": {"/shop.v1.Orders/*": "anyone"}}}],
        "Authorize: the row '/shop.v1.Orders/*' fits no",
    ),
}


@pytest.mark.parametrize("app", ["app", "async_app"])
@pytest.mark.parametrize("case", BAD)
def test_a_policy_that_cannot_be_used_is_one_line_and_status_2(
    case: str, app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    entries, said = BAD[case]

    status = main(["serve", f"tests.serving.command_app:{app}", "--port", "0", "--policy", written(tmp_path, *entries)])
    err = capsys.readouterr().err

    assert status == 2
    assert err.count("\n") == 1 and err.startswith("interpose serve: ")
    assert said in err


def test_more_faults_are_counted(tmp_path: Path) -> None:
    """And the command that shows them is named."""
    path = written(tmp_path, "Nothing", "Deadline")

    with pytest.raises(CannotServe, match=f"and 1 more: `interpose check {path}` shows them"):
        policy_of(Options(policy=path))


def test_a_policy_that_is_not_there_cannot_be_served() -> None:
    """The path is in the line."""
    with pytest.raises(CannotServe, match=r"the policy cannot be read: .*'/no/policy.json'"):
        policy_of(Options(policy="/no/policy.json"))


def test_what_a_policy_may_do_needs_a_policy() -> None:
    """A flag that has no effect is a mistake."""
    with pytest.raises(ValueError, match="policy_allow and policy_env are of a policy"):
        Options(policy_env=["A"])


def test_without_a_policy_hangup_is_what_it_was() -> None:
    """It ends the process, as ever."""
    before = signal.getsignal(signal.SIGHUP)
    with following(policy_of(Options())):
        assert signal.getsignal(signal.SIGHUP) is before


def test_reload_watches_the_policy(tmp_path: Path) -> None:
    """Beside the Python files."""
    path = written(tmp_path)
    options = Options(policy=path, reload=True, reload_dirs=[str(tmp_path / "src")])
    changes = Changes(options.watched)

    assert changes.since() == []
    os.utime(path, ns=(1, 1))
    assert changes.since() == [path]
