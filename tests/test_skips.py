"""The rule for skipped tests: in CI, a skip without an accepted reason is a failure."""

import pytest
from skips import ALLOWED, is_allowed

pytest_plugins = ["pytester"]

SKIPPED = """
    import pytest

    def test_fine():
        pass

    def test_skipped():
        pytest.skip({reason!r})

    @pytest.mark.skipif(True, reason={reason!r})
    def test_skipped_by_a_mark():
        pass

    @pytest.mark.xfail(reason="known", strict=True)
    def test_expected_to_fail():
        assert False
"""


def run(pytester, text):
    pytester.makepyfile(text)
    return pytester.runpytest("-p", "skips", "-p", "no:randomly", "-p", "no:cacheprovider")


def test_a_skip_fails_in_ci(pytester, monkeypatch):
    monkeypatch.setenv("CI", "true")
    done = run(pytester, SKIPPED.format(reason="no chromium on this machine"))
    done.assert_outcomes(passed=1, xfailed=1, failed=1, errors=1)  # a mark skips in the set-up
    done.stdout.fnmatch_lines(["*skipped in CI: no chromium on this machine*"])


def test_an_accepted_reason_stays_a_skip(pytester, monkeypatch):
    monkeypatch.setenv("CI", "true")
    done = run(pytester, SKIPPED.format(reason="no photos at /somewhere"))
    done.assert_outcomes(passed=1, xfailed=1, skipped=2)


def test_outside_ci_a_skip_is_a_skip(pytester, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    done = run(pytester, SKIPPED.format(reason="no chromium on this machine"))
    done.assert_outcomes(passed=1, xfailed=1, skipped=2)


def test_a_module_that_is_skipped_fails_in_ci(pytester, monkeypatch):
    monkeypatch.setenv("CI", "true")
    done = run(pytester, "import pytest; pytest.importorskip('no_such_package')")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*skipped in CI: could not import 'no_such_package'*"])


@pytest.mark.parametrize("why", [why for _, why in ALLOWED.values()])
def test_every_accepted_reason_says_why(why):
    assert len(why.split()) > 3


def test_a_reason_holds_only_where_it_is_true():
    holds, _ = ALLOWED["^no full disk at hand"]
    assert is_allowed("no full disk at hand") == holds
    assert not is_allowed("no faiss")
