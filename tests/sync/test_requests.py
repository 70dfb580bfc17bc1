"""The request stream of a sync call: what an upload that is over still takes."""

from collections.abc import Iterator

from interpose import Call, Kind, Method
from interpose.sync.requests import Requests

CALL = Call(Method("/pay.v1.Cards/Charge", Kind.STREAM_UNARY))


def test_an_upload_that_is_over_takes_nothing_more() -> None:
    """A reader that comes back after its attempt has ended finds no message, and the next attempt has them all."""
    taken: list[str] = []

    def messages() -> Iterator[str]:
        for message in ("a", "b"):
            taken.append(message)
            yield message

    requests = Requests(messages(), str.encode)
    first = requests.upload(CALL.buffered())
    reader = iter(first)
    next(reader)
    again = first.close()
    rest = list(reader)
    taken_by_first = list(taken)
    second = [kept.message for kept in requests.upload(CALL.buffered())]

    assert again and rest == [] and taken_by_first == ["a"]
    assert second == ["a", "b"]


def test_a_reader_that_comes_too_late_takes_nothing() -> None:
    """Its attempt is over, and the messages belong to the next one."""
    messages = iter(["a", "b"])
    late = Requests(messages, str.encode).upload(CALL)
    late.close()

    assert list(late) == []
    assert list(messages) == ["a", "b"]
