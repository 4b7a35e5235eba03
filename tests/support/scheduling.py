"""Which process of a parallel run gets which tests.

A pytest plugin. A file's tests go to one process, which makes the fixtures of the file once; a page
of the documentation takes a minute and shares little, so that each page goes where there is room.
"""

import pytest


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "::test_a_page_runs[" in nodeid else super()._split_scope(nodeid)

    return Scheduler(config, log)
