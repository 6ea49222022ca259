"""The measure of the rule extractor: distinct facts, told one by one, are all there."""

import pytest

from bench.extraction.__main__ import changed, cost, kept


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_distinct_fact_is_kept(language: str) -> None:
    assert kept(language) == {"kept": 30, "of": 30, "lost": []}


def test_what_is_changed_is_listed_with_what_changed_it() -> None:
    told = [("u", "I like tea"), ("v", "I like tea"), ("u", "I don't like tea. Hi")]
    assert changed(told) == {
        "texts": 3,
        "actions": {"insert": 2, "update": 1, "ignore": 1},
        "changed": [{"action": "update", "before": "I like tea", "then": "I don't like tea"}],
    }


def test_the_number_of_facts_does_not_count() -> None:
    measured = cost(rounds=3, many=2_000)
    assert measured["ratio"] < 4  # 1 when nothing else runs; with a scan of the facts 8 and more
