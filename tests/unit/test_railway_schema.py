"""What the emulator understands and the module sends is what the real Railway understands."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import railway
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    build_client_schema,
    build_schema,
    parse,
    validate,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("ROLLBACK_RAILWAY_SCHEMA", ROOT.parent / "shared/data/railway-schema.json"))
OURS = build_schema((ROOT / "sandbox/railway/schema.graphql").read_text())


@pytest.fixture(scope="module")
def real() -> GraphQLSchema:
    if not REAL.exists():
        pytest.skip(f"Railway's real schema is not here: {REAL} (set ROLLBACK_RAILWAY_SCHEMA)")
    # Railway's own schema breaks a rule on deprecation that operations do not depend on.
    return build_client_schema(json.loads(REAL.read_text())["data"], assume_valid=True)


OUR_TYPES = [name for name in OURS.type_map if not name.startswith("__")]


def differences(name: str, ours: GraphQLSchema, real: GraphQLSchema) -> list[str]:
    """What our type has that the real one does not have in just this way."""
    mine, theirs = ours.type_map[name], real.type_map.get(name)
    if theirs is None:
        return [f"{name} is no type of the real schema"]
    if type(mine) is not type(theirs):
        return [f"{name} is another kind of type"]
    if isinstance(mine, GraphQLEnumType):
        return sorted(set(mine.values) ^ set(theirs.values))
    if isinstance(mine, GraphQLInputObjectType):
        return _other_inputs(name, mine.fields, theirs.fields)
    if isinstance(mine, GraphQLObjectType):
        return [found for field in mine.fields for found in _other_field(f"{name}.{field}", mine, theirs, field)]
    return []


def _other_field(path: str, mine: GraphQLObjectType, theirs: GraphQLObjectType, field: str) -> list[str]:
    if field not in theirs.fields:
        return [f"{path} is not in the real schema"]
    my_field, their_field = mine.fields[field], theirs.fields[field]
    different = [] if str(my_field.type) == str(their_field.type) else [f"{path} is {their_field.type}"]
    return different + _other_inputs(path, my_field.args, their_field.args)


def _other_inputs(path: str, mine: dict, theirs: dict) -> list[str]:
    unlike = [name for name, value in mine.items() if name not in theirs or str(theirs[name].type) != str(value.type)]
    missing = [name for name, value in theirs.items() if str(value.type).endswith("!") and name not in mine]
    return [f"{path}: {name}" for name in unlike + missing]


@pytest.mark.parametrize("name", OUR_TYPES)
def test_each_type_is_a_part_of_the_real_one(name: str, real: GraphQLSchema) -> None:
    assert differences(name, OURS, real) == []


@pytest.mark.parametrize(
    "altered",
    [
        "type Query { deploymentRollback(id: String!): Boolean! }",
        "type Query { me: User } type User { id: ID! }",
        "type Query { project(id: ID!): Project! } type Project { id: ID! }",
        "type Query { deployment: Int } enum DeploymentStatus { SUCCESS ROLLED_BACK }",
        "type Query { deployment: Int } input DeploymentListInput { successfulOnly: Boolean }",
    ],
)
def test_a_schema_that_is_no_part_is_found_out(altered: str, real: GraphQLSchema) -> None:
    ours = build_schema(altered)
    assert [found for name in ours.type_map if not name.startswith("__") for found in differences(name, ours, real)]


@pytest.mark.parametrize("operation", sorted(railway.OPERATIONS))
def test_each_operation_sent_is_valid_for_the_emulator(operation: str) -> None:
    assert validate(OURS, parse(railway.OPERATIONS[operation])) == []


@pytest.mark.parametrize("operation", sorted(railway.OPERATIONS))
def test_each_operation_sent_is_valid_for_the_real_railway(operation: str, real: GraphQLSchema) -> None:
    assert validate(real, parse(railway.OPERATIONS[operation])) == []
