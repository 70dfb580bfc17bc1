"""Rates, as texts and as objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.rate import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/second", Rate(100)),
        ("10/minute", Rate(10, per=60)),
        ("5 per 2 hours", Rate(5, per=7200)),
        ("1 per day", Rate(1, per=86_400)),
        ("7/s", Rate(7)),
        ("7/30sec", Rate(7, per=30)),
        ("7/min", Rate(7, per=60)),
        ("7 / 3 h", Rate(7, per=10_800)),
        ("7/d", Rate(7, per=86_400)),
        (" 60 PER Minute ", Rate(60, per=60)),
    ],
)
def test_texts(text: str, rate: Rate) -> None:
    """How many, then the time, in one unit or several."""
    assert Rate.of(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("100/fortnight", "100", "/second", "-5/second", "1.5/second", "ten/minute", "5 per", "5persecond", "5/0x/s"),
        *("5/month", "", "1/second; 2/day", "٣/second", "5//second", "5/ss", "5/2", "100/second\n1/day"),
    ],
)
def test_a_text_that_is_no_rate(text: str) -> None:
    """The error has the text, and what to write."""
    with pytest.raises(ValueError, match=r'is no rate: write how many per second.*"100/second"') as error:
        Rate.of(text)

    assert repr(text)[:40] in str(error.value)


def test_a_wrong_burst_is_said_beside_a_wrong_text() -> None:
    """All that is wrong at once, not one fault after the other."""
    with pytest.raises(ValueError, match=r"'5/month' is no rate: .*; burst must be a whole number from 1"):
        Rate.of("5/month", burst=0)


def test_all_faults_are_told() -> None:
    """In one error."""
    with pytest.raises(ValueError, match=r"count must .* not 0; per must .* not -1; burst must .* not True"):
        Rate(0, per=-1, burst=True)
    with pytest.raises(ValueError, match="count must"):
        Rate.of("0/second")
    with pytest.raises(ValueError, match="per must"):
        Rate.of("1/400 days")
    with pytest.raises(ValueError, match=r"count must .* not 1\.5"):
        Rate(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(100), "100/second"),
        (Rate(10, per=60, burst=3), "10/minute, 3 at once"),
        (Rate(5, per=7200), "5 per 2 hours"),
        (Rate(5, per=0.25), "5 per 0.25 seconds"),
        (Rate(5, per=86_400, burst=5), "5/day"),
    ],
)
def test_as_text(rate: Rate, text: str) -> None:
    """In the largest unit of which it is whole."""
    assert str(rate) == text


@given(st.builds(Rate, st.integers(1, 10**9), st.sampled_from([1, 2, 60, 120, 3600, 86_400, 15 * 86_400])))
def test_a_text_reads_back(rate: Rate) -> None:
    """What a rate says of itself is that rate."""
    assert Rate.of(str(rate)) == rate


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_ticks_are_exact(count: int, microseconds: int) -> None:
    """So many calls take exactly the period, in the smallest whole ticks."""
    rate = Rate(count, per=max(microseconds, 1000) / 10**6)

    parts, step = rate.ticks(10**9)

    assert step * count == max(microseconds, 1000) * 1000 * parts
    assert Rate(100).ticks(10**9) == (1, 10**7)
    assert Rate(3).ticks(10**6) == (3, 10**6)


def test_a_share() -> None:
    """A quarter of the rate, and of the burst; never nothing."""
    assert Rate(100, burst=10).share(0.25) == Rate(100, per=4, burst=2)
    assert Rate(100, burst=1).share(0.25).at_once == 1
