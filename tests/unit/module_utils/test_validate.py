from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput

BAD = [
    (validate.severity, ["", "p0", "P4", "P0\n", None, 0, ["P0"]]),
    (validate.reason, ["", "  ", "no", "x" * 301, "two\nlines", "bell\a here", None, 7]),
    (validate.ref, ["", "HEAD", "HEAD~1", "main^", "-x", "--upload-pack=x", "a b", "a..b", "x.lock", "../x", "ü"]),
    (validate.commit, ["", "abc", "G" * 40, "A" * 40, "a" * 41, 5349]),
    (validate.release_id, ["", "abc", "a" * 13, 123456789012]),
    (validate.run_id, ["", "../../etc", "20261124T031500Z-backend", "20261124T031500Z-backend-3F9A", "x"]),
    (validate.identifier, ["", "-rf", "a/b", "*", "a b", "$(x)", None]),
    (validate.absolute_path, ["", "etc", "/a/../b", "/a\n", None]),
    (
        validate.url,
        ["", "x", "ftp://a", "http://example.com/", "https://u:p@example.com", "https://a b.com", "file:///a", None],
    ),
    (validate.positive, [0, -1, True, "3", 1.5, None]),
]


@pytest.mark.parametrize(("check", "value"), [(check, value) for check, values in BAD for value in values])
def test_a_wrong_value_is_one_clear_line_that_names_the_parameter(check: Any, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        check(value, "the_parameter")
    assert str(caught.value).startswith("the_parameter: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (validate.severity, "P0"),
        (validate.reason, "health answers 500 since 03:10, Zürich"),
        (validate.ref, "v1.1.0"),
        (validate.ref, "release/2026-11"),
        (validate.commit, "0012345" + "0" * 33),
        (validate.release_id, "001234567890"),
        (validate.run_id, "20261124T031500Z-full_system-3f9a"),
        (validate.identifier, "marketsage-backend"),
        (validate.absolute_path, "/srv/app/current"),
        (validate.url, "https://api.marketsage.com/api/v2/health"),
        (validate.url, "http://127.0.0.1:24000/"),
        (validate.positive, 1),
    ],
)
def test_a_right_value_comes_back_as_it_is(check: Any, value: Any) -> None:
    assert check(value, "the_parameter") == value
