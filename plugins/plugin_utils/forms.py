# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The forms of what a team writes as data, for a word that no rule knows would switch off what it was meant for.

They are argument specs of Ansible's, with `each` for a dictionary whose keys are free.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.module_utils.validate import SEVERITIES

Form = dict[str, Any]


def _is(kind: str, **more: Any) -> Form:
    return {"type": kind, "required": True, **more}


def _one_of(*choices: str) -> Form:
    return _is("str", choices=list(choices))


def _group(**options: Form) -> Form:
    return _is("dict", options=options)


def _rows(**options: Form) -> Form:
    return _is("list", elements="dict", options=options)


def _each(form: Form) -> Form:
    return _is("dict", each=form)


def _may(form: Form) -> Form:
    return {**form, "required": False}


_TEXT, _WHOLE, _NUMBER, _BOOL = _is("str"), _is("int"), _is("float"), _is("bool")
_TEXTS, _COMMANDS = _is("list", elements="str"), _is("list", elements="list")
_BOUNDS = {"above": _may(_NUMBER), "below": _may(_NUMBER)}
_SEVERITY = _group(
    sign=_TEXT,
    name=_TEXT,
    response_time=_WHOLE,
    rollback=_one_of("at_once", "evaluate", "ask", "refuse"),
    traffic=_one_of("page", "rolling"),
    approval=_one_of("none", "preferred", "required"),
    action=_TEXT,
)
_SERVICE = _group(title=_TEXT, health=_may(_TEXT), stop_traffic=_BOOL, uses_database=_BOOL)


def _checklists() -> Form:
    from ansible_collections.marketsage.rollback.plugins.module_utils import checks  # noqa: PLC0415  for it loads slowly

    return _each(_rows(**checks.CHECK_OPTIONS))


_FORMS: dict[str, Form | Callable[[], Form]] = {
    "rollback_policy": _group(
        severities=_group(**dict.fromkeys(SEVERITIES, _SEVERITY)),
        approval=_group(roles=_TEXTS, valid_for=_WHOLE),
        freeze=_group(after_run=_WHOLE, longest=_WHOLE),
        budgets=_each(_WHOLE),
        on_failure=_each(_TEXT),
        rolling=_group(first=_WHOLE, batch=_WHOLE, keep_serving=_WHOLE, max_failed=_WHOLE, drain_timeout=_WHOLE),
        gate=_group(passes=_WHOLE, interval=_NUMBER, timeout=_NUMBER, outside_timeout=_NUMBER, settled_timeout=_NUMBER),
        precheck=_group(passes=_WHOLE, interval=_NUMBER, timeout=_NUMBER),
        watch=_group(seconds=_WHOLE, coverage=_NUMBER),
        afterwards=_each(_rows(action=_TEXT, ticked_by=_may(_TEXT))),
        announce=_group(
            tell=_group(**dict.fromkeys(SEVERITIES, _TEXTS)),
            acknowledge_within=_WHOLE,
            retry_for=_WHOLE,
            boxes=_rows(name=_TEXT, begun=_may(_TEXTS), done=_may(_TEXTS)),
        ),
    ),
    "rollback_catalogue": _each(_SERVICE),
    "rollback_stacks": _each(_SERVICE),
    "rollback_procedures": _each(
        _group(
            playbook=_TEXT,
            title=_TEXT,
            words=_may(_TEXTS),
            severity=_may(_one_of(*SEVERITIES)),
            rolling=_may(_BOOL),
        )
    ),
    "rollback_components": _each(
        _group(
            title=_TEXT,
            service=_TEXT,
            paths=_TEXTS,
            checks=_TEXTS,
            depends_on=_may(_each(_TEXT)),
            clears_sessions=_may(_BOOL),
            tests=_may(_COMMANDS),
        )
    ),
    "rollback_checklists": _checklists,
    "rollback_channels": _each(_is("dict")),
    "rollback_triggers": _group(
        window=_WHOLE,
        step=_WHOLE,
        deploy_within=_WHOLE,
        measured=_rows(name=_TEXT, severity=_one_of(*SEVERITIES), query=_TEXT, unit=_TEXT, **_BOUNDS),
        health=_group(other=_one_of(*SEVERITIES), **dict.fromkeys(SEVERITIES, _may(_TEXTS))),
    ),
    "rollback_watch": _group(
        window=_WHOLE,
        times=_NUMBER,
        measures=_rows(
            name=_TEXT,
            shows=_one_of("errors", "latency", "saturation", "health"),
            query=_TEXT,
            fresh=_TEXT,
            slack=_NUMBER,
            unit=_TEXT,
            **_BOUNDS,
        ),
    ),
}


def check(name: str, value: Any) -> None:
    """BadInput, with the place and what would be right, where the variable `name` has another form than it must."""
    known = _FORMS[name]
    form = known() if callable(known) else known
    checked = ArgumentSpecValidator({name: _with_keys(form, value)}).validate({name: value})
    if checked.error_messages:
        # Of several the last names the place best.
        error = checked.errors[-1]
        unknown = "unknown: " if isinstance(error, UnsupportedError) else ""
        raise BadInput(f"{name}: {unknown}{error.msg}")
    for place, given, meant in _strayed(value, checked.validated_parameters[name], name):
        raise BadInput(f"{place}: {given!r} must be {meant!r}")


def check_known(variables: dict[str, Any]) -> None:
    """The same for those of the variables that have a form here."""
    for name in _FORMS.keys() & variables.keys():
        check(name, variables[name])


def _with_keys(form: Form, value: Any) -> Form:
    """The form as Ansible takes it: a dictionary whose keys are free has those that it has in `value`."""
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    row: Form = form.get("each", {})
    options: dict[str, Form] = dict.fromkeys(given, row) if row else form.get("options", {})
    known = {name: part for name, part in form.items() if name not in ("each", "options")}
    if options:
        known["options"] = {name: _with_keys(part, given.get(name)) for name, part in options.items()}
    return known


def _strayed(given: Any, meant: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Where Ansible took something for what it is not, such as one word for a list of it: place, given, meant."""
    if isinstance(given, dict) and isinstance(meant, dict):
        for key, part in given.items():
            yield from _strayed(part, meant[key], f"{place}.{key}")
    elif isinstance(given, list) and isinstance(meant, list):
        for number, (part, one) in enumerate(zip(given, meant, strict=True)):
            yield from _strayed(part, one, f"{place}[{number}]")
    elif given != meant and not (isinstance(given, str) and isinstance(meant, str)):
        yield place, given, meant
