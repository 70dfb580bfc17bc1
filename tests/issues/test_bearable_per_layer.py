"""Serializers are made bearable once, however many stacks stand around a handler."""

from interpose._codec import bearable


def test_what_is_bearable_stays_as_it_is() -> None:
    """Or each message would pay once more for each object in a server's `interceptors=`."""
    once = bearable(lambda message: message)

    assert bearable(once) is once
