"""Families by text."""

from __future__ import annotations

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.errors import UsageError
from fingerprint.probes.characteristic import KINDS, CharacteristicFamily
from fingerprint.probes.intrinsic import IntrinsicFamily
from fingerprint.probes.registry import family, settings_of, split_families
from fingerprint.probes.zeroth import ZerothFamily


def test_settings_belong_to_the_family_before_them() -> None:
    text = " characteristic , intrinsic:kinds=plain+mean,delta=0.1, natural,, boundary:start=smooth "
    assert split_families(text) == [
        "characteristic", "intrinsic:kinds=plain+mean,delta=0.1", "natural", "boundary:start=smooth",
    ]  # fmt: skip
    assert split_families("boundary,kappa=2,robust") == ["boundary:kappa=2", "robust"]
    assert split_families("") == []


def test_values_have_the_types_of_the_settings() -> None:
    made = family("intrinsic:kinds=plain+mean,margins=0.1+2,start=smooth,delta=1e-2,draws=3")
    assert made == IntrinsicFamily(("plain", "mean"), "smooth", (0.1, 2.0), 0.01, 3)
    made = family("zeroth: directions = 4 , kappa = 1")
    assert made == ZerothFamily(directions=4, kappa=1.0)


def test_plain_names_are_the_defaults() -> None:
    assert family("intrinsic") == IntrinsicFamily()
    made = family("characteristic")
    assert isinstance(made, CharacteristicFamily)
    assert made.kinds == KINDS


def test_characteristic_knobs_apply_where_the_kind_has_them() -> None:
    made = family("characteristic:kappa=1.5,delta=0.2,draws=7,cut=0.5,steps=9")
    assert isinstance(made, CharacteristicFamily)
    plain, noisy, filtered = (made.kinds[k] for k in ("C", "RC", "LTRC"))
    assert [r.kappa for r in made.kinds.values()] == [1.5] * 3
    assert [r.steps for r in made.kinds.values()] == [9] * 3
    assert (plain.delta, plain.draws, plain.cut) == (0.0, 1, 0.0)
    assert (noisy.delta, noisy.draws, noisy.cut) == (0.2, 7, 0.0)
    assert (filtered.delta, filtered.draws, filtered.cut) == (0.2, 7, 0.5)
    only = family("characteristic:kinds=LTRC")
    assert isinstance(only, CharacteristicFamily) and list(only.kinds) == ["LTRC"]


def test_what_text_can_set() -> None:
    assert set(settings_of(IntrinsicFamily)) == {f.name for f in fields(IntrinsicFamily)}
    assert "kinds" in settings_of(CharacteristicFamily)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("intrinsic:margins=0.1+x", "margins"),
        ("zeroth:directions=4.5", "directions"),
        ("zeroth:kappa=inf", "kappa"),
        ("zeroth:kappa=", "kappa"),
        ("zeroth:", ""),
        ("nothing:kappa=1", "nothing"),
        ("characteristic:steps=0", "characteristic"),
    ],
)
def test_errors_name_the_setting(text: str, word: str) -> None:
    if not word:
        assert family(text) == ZerothFamily()
        return
    with pytest.raises(UsageError, match=word):
        family(text)


@given(st.text("abc:=,+.1 ", max_size=30))
def test_any_text_is_a_family_or_a_usage_error(text: str) -> None:
    for part in split_families("boundary:" + text):
        with contextlib.suppress(UsageError):
            family(part)


@given(st.lists(st.sampled_from(["boundary", "robust:noise=4,draws=2", "natural", "zeroth:kappa=1"]), max_size=5))
def test_joining_undoes_splitting(parts: list[str]) -> None:
    assert split_families(",".join(parts)) == parts
