"""With ``-p tests.no_skips`` a skipped test is a failure, except for the reasons below.

`.ci/run` installs the system's tools for the tests, so a skip there means that something was not tested.
"""

import pytest

#: Allowed skips on Linux, as root, with everything installed: the beginning of the reason, and why it is allowed.
RIGHT = {
    "atheris is not installed": "a fuzzer that must be compiled with clang; the seeded mutations run in any case",
    "LibreOffice is not installed": "it is large; a model of how spreadsheets read the file is tested in any case",
}


def _refuse(report):
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if report.skipped and not hasattr(report, "wasxfail") and not reason.startswith(tuple(RIGHT)):
        report.outcome = "failed"
        report.longrepr = f"skipped where no test may be: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _refuse((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse((yield))
