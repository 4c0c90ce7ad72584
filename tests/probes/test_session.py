"""What probes of one step share."""

from probes.session import Pairs


def test_one_search_serves_the_strictest():
    loose, strict = Pairs(k=4, tol=1e-2, warm=True, confirm=False), Pairs(k=1, tol=1e-6, warm=False, confirm=True)
    both = Pairs(k=4, tol=1e-6, warm=False, confirm=True)
    assert loose.union(strict) == both
    assert strict.union(loose) == both
