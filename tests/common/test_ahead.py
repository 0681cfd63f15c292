import itertools

import pytest

from workflow_scripts.common.ahead import ahead


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_as_many_are_begun_as_asked_and_all_come_in_order(count):
    begun = []

    def begin(one):
        begun.append(one)
        return one * 10

    found = ahead(range(5), begin, count)
    for place, value in enumerate(found):
        assert value == place * 10
        assert len(begun) == min(place + 1 + count, 5)
    assert begun == [0, 1, 2, 3, 4]


def test_what_is_endless_is_read_no_further_than_it_is_begun():
    read = itertools.count()
    found = ahead(read, lambda one: one, 2)
    assert list(itertools.islice(found, 4)) == [0, 1, 2, 3]
    assert next(read) == 6


def test_nothing_wanted_is_nothing_begun():
    assert list(ahead([], lambda _: pytest.fail("begun"), 3)) == []
