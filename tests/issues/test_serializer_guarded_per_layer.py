"""Serializers are guarded once, however many stacks stand around a handler."""

from interpose._shell.codec import guarded


def test_what_is_bearable_stays_as_it_is() -> None:
    """Or each message would pay once more for each object in a server's `interceptors=`."""
    once = guarded(lambda message: message)

    assert guarded(once) is once
