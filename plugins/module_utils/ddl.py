# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What migrations do to an older release that runs on the schema they left: read with PostgreSQL's own grammar."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import grammar
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

ADDITIVE = "additive"
DESTRUCTIVE = "destructive"
UNKNOWN = "unknown"

# What each kind of statement does to a release that was written before it, when it concerns something which that
# release knows. What the same migrations created may be changed freely. A kind that is not here is unknown.
KNOWN = {
    "create table": (ADDITIVE, "creates table {0}"),
    "create table if not exists": (ADDITIVE, "creates table {0} unless it exists"),
    "create index": (ADDITIVE, "creates index {0}"),
    "create type": (ADDITIVE, "creates type {0}"),
    "create sequence": (ADDITIVE, "creates sequence {0}"),
    "create schema": (ADDITIVE, "creates schema {0}"),
    "create extension": (ADDITIVE, "creates extension {0}"),
    "create view": (ADDITIVE, "creates view {0}"),
    "comment": (ADDITIVE, "comments on something"),
    "add optional column": (ADDITIVE, "adds column {0}"),
    "satisfied constraint": (ADDITIVE, "adds a constraint on {0} that the target's writes satisfy"),
    "validate constraint": (ADDITIVE, "validates a constraint of {0}"),
    "set default": (ADDITIVE, "gives {0} a default"),
    "set statistics": (ADDITIVE, "tunes {0}"),
    "set storage parameters": (ADDITIVE, "tunes {0}"),
    "rename index": (ADDITIVE, "renames index {0}"),
    "rename constraint": (ADDITIVE, "renames a constraint of {0}"),
    "drop table": (DESTRUCTIVE, "drops table {0}"),
    "drop view": (DESTRUCTIVE, "drops view {0}"),
    "drop materialized view": (DESTRUCTIVE, "drops materialized view {0}"),
    "drop type": (DESTRUCTIVE, "drops type {0}"),
    "drop domain": (DESTRUCTIVE, "drops domain {0}"),
    "drop sequence": (DESTRUCTIVE, "drops sequence {0}"),
    "drop schema": (DESTRUCTIVE, "drops schema {0}"),
    "drop extension": (DESTRUCTIVE, "drops extension {0}"),
    "drop index": (DESTRUCTIVE, "drops index {0}, which the target's upserts may need"),
    "drop column": (DESTRUCTIVE, "drops column {0}"),
    "drop default": (DESTRUCTIVE, "takes the default from {0}, which the target's inserts may need"),
    "drop constraint": (DESTRUCTIVE, "drops a constraint of {0}, which the target may rely on"),
    "rename table": (DESTRUCTIVE, "renames table {0}"),
    "rename view": (DESTRUCTIVE, "renames view {0}"),
    "rename column": (DESTRUCTIVE, "renames column {0}"),
    "rename type": (DESTRUCTIVE, "renames type {0}"),
    "rename enum value": (DESTRUCTIVE, "renames a value of type {0}"),
    "move table": (DESTRUCTIVE, "moves table {0} to another schema"),
    "move type": (DESTRUCTIVE, "moves type {0} to another schema"),
    "change type": (DESTRUCTIVE, "changes the type of {0}"),
    "set not null": (DESTRUCTIVE, "forbids NULL in {0}, which the target may write"),
    "add required column": (DESTRUCTIVE, "adds column {0}, which must be filled and which the target's inserts omit"),
    "add constraint": (DESTRUCTIVE, "adds a constraint on {0} that the target's writes may violate"),
    "drop not null": (UNKNOWN, "allows NULL in {0}, which the target cannot read"),
    "add enum value": (UNKNOWN, "adds a value to type {0}; rows that have it cannot be read by the target"),
    "replace view": (UNKNOWN, "replaces view {0}"),
    "InsertStmt": (UNKNOWN, "inserts rows"),
    "UpdateStmt": (UNKNOWN, "updates rows"),
    "DeleteStmt": (UNKNOWN, "deletes rows"),
    "TruncateStmt": (UNKNOWN, "empties a table"),
    "SelectStmt": (UNKNOWN, "runs a query, which may call functions"),
    "DoStmt": (UNKNOWN, "runs a block of code"),
    "CreateFunctionStmt": (UNKNOWN, "defines a function"),
    "CreateTrigStmt": (UNKNOWN, "creates a trigger"),
}

_SERIAL = ("smallserial", "serial", "bigserial", "serial2", "serial4", "serial8")
_RELATIONS = ("table", "index", "view", "materialized view", "sequence")
_FILLED_BY_POSTGRESQL = {"CONSTR_DEFAULT", "CONSTR_IDENTITY", "CONSTR_GENERATED"}
_RESTRICTING = ("CONSTR_UNIQUE", "CONSTR_FOREIGN", "CONSTR_CHECK", "CONSTR_PRIMARY")
_ALTER_TABLE = {
    "AT_ValidateConstraint": "validate constraint",
    "AT_SetStatistics": "set statistics",
    "AT_SetRelOptions": "set storage parameters",
}
_ALTER_COLUMN = {
    "AT_DropColumn": "drop column",
    "AT_SetNotNull": "set not null",
    "AT_DropNotNull": "drop not null",
    "AT_AlterColumnType": "change type",
}


class Finding(NamedTuple):
    """What one statement means for the target release, in words."""

    effect: str
    words: str


@dataclass(frozen=True)
class Column:
    """A column that these migrations added to a table that was there before."""

    migration: str
    nullable: bool
    filled: bool

    @property
    def optional(self) -> bool:
        """Rows written by a release that does not know it have NULL there, which satisfies most constraints."""
        return self.nullable and not self.filled

    @property
    def required(self) -> bool:
        return not self.nullable and not self.filled


class Constraint(NamedTuple):
    """A constraint on columns of a table that was there before; NULL in one of `columns` satisfies it."""

    migration: str
    name: tuple[str, ...]
    table: tuple[str, ...]
    columns: tuple[str | None, ...]


class SchemaChange:
    """What a sequence of migrations does, for a release that knows none of them.

    A name is a tuple: what it is (relation, column, constraint, type ...), its schema, a column's table, the name.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._migration = ""
        self._findings: list[Finding] = []
        self._created: set[tuple[str, ...]] = set()
        self._columns: dict[tuple[str, ...], Column] = {}
        self._constraints: list[Constraint] = []

    def apply(self, migration: str, sql: str) -> None:
        """Take in the next migration; one that cannot be parsed is unknown."""
        self._migration = migration
        pglast = library("pglast", "reading migrations")
        try:
            statements = pglast.parse_sql(sql)
        except pglast.parser.ParseError as error:
            words = f"{migration}: is not SQL that PostgreSQL's grammar knows ({error.args[0]})"
            self._findings.append(Finding(UNKNOWN, words))
            return
        for statement in statements:
            self._read(statement.stmt)

    def findings(self) -> list[Finding]:
        """Call it when all are in: a column may get its default, and lose it, later than it was added."""
        found = list(self._findings)
        for name, column in self._columns.items():
            found.append(self._finding(_addition(column), name, column.migration))
        for constraint in self._constraints:
            kind = "satisfied constraint" if self._is_satisfied(constraint) else "add constraint"
            found.append(self._finding(kind, constraint.table, constraint.migration))
        return found

    def _read(self, node: Any) -> None:
        kind = type(node).__name__
        if kind in _CREATES:
            self._create(_CREATES[kind], self._created_name(node))
        elif kind in _READERS:
            _READERS[kind](self, node)
        else:
            self._note(kind, ())

    def _note(self, kind: str, name: tuple[str, ...]) -> None:
        self._findings.append(self._finding(kind, name, self._migration))

    def _finding(self, kind: str, name: tuple[str, ...], migration: str) -> Finding:
        effect, words = KNOWN.get(kind, (UNKNOWN, f"contains a statement whose effect is not known ({kind})"))
        return Finding(effect, f"{migration}: {words.format(self._shown(name))}")

    def _shown(self, name: tuple[str, ...]) -> str:
        return ".".join(part for part in name[1:] if part != self._schema)

    def _is_new(self, name: tuple[str, ...]) -> bool:
        return name in self._created or name in self._columns or ("relation", *name[1:3]) in self._created

    def _change(self, kind: str, name: tuple[str, ...]) -> None:
        """Note a change of something, unless these migrations created it."""
        if not self._is_new(name):
            self._note(kind, name)

    def _create(self, kind: str, name: tuple[str, ...]) -> None:
        self._note(kind, name)
        self._created.add(name)

    def _forget(self, name: tuple[str, ...]) -> None:
        self._created.discard(name)
        self._columns.pop(name, None)
        self._constraints = [constraint for constraint in self._constraints if constraint.name != name]

    # -- names

    def _relation(self, node: Any) -> tuple[str, ...]:
        return ("relation", node.schemaname or self._schema, node.relname)

    def _listed(self, what: str, parts: Any) -> tuple[str, ...]:
        """From a list of names, the last of which is the object's own."""
        names = [part.sval for part in parts]
        return (what, names[-2] if len(names) > 1 else self._schema, names[-1])

    def _created_name(self, node: Any) -> tuple[str, ...]:
        kind = type(node).__name__
        if kind == "CreateSeqStmt":
            return self._relation(node.sequence)
        if kind == "CompositeTypeStmt":
            return ("type", *self._relation(node.typevar)[1:])
        if kind == "CreateSchemaStmt":
            return ("schema", node.schemaname)
        if kind == "CreateExtensionStmt":
            return ("extension", node.extname)
        return self._listed("type", node.domainname if kind == "CreateDomainStmt" else node.typeName)

    # -- statements

    def _create_table(self, node: Any) -> None:
        name = self._relation(node.relation)
        if node.inhRelations or node.partbound:
            self._note("create partition", name)
        elif node.if_not_exists:
            self._note("create table if not exists", name)
        else:
            self._create("create table", name)

    def _create_view(self, node: Any) -> None:
        name = self._relation(node.view)
        if node.replace:
            self._change("replace view", name)
        else:
            self._create("create view", name)

    def _create_index(self, node: Any) -> None:
        table = self._relation(node.relation)
        name = ("relation", table[1], node.idxname or "")
        if node.unique:
            columns = () if node.nulls_not_distinct else tuple(column.name for column in node.indexParams)
            self._constrain(name, table, columns)
            self._created.add(name)
        else:
            self._create("create index", name)

    def _alter_enum(self, node: Any) -> None:
        kind = "rename enum value" if node.oldVal else "add enum value"
        self._change(kind, self._listed("type", node.typeName))

    def _rename(self, node: Any) -> None:
        word = grammar.word(node.renameType)
        if word == "type":
            old = self._listed("type", node.object)
        elif word in (*_RELATIONS, "column", "constraint"):
            old = self._relation(node.relation)
        else:
            self._note(f"rename {word}", ())
            return
        if word == "column":
            old = ("column", *old[1:], node.subname)
        self._change(f"rename {word}", old)
        if word != "constraint":
            self._follow(old, (*old[:-1], node.newname))

    def _follow(self, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        """What these migrations created keeps its freedom under its new name."""
        if old in self._created:
            self._created.remove(old)
            self._created.add(new)
        if old in self._columns:
            self._columns[new] = self._columns.pop(old)

    def _drop(self, node: Any) -> None:
        word = grammar.word(node.removeType)
        for item in node.objects:
            name = self._dropped_name(word, item)
            self._change(f"drop {word}", name)
            self._forget(name)

    def _dropped_name(self, word: str, item: Any) -> tuple[str, ...]:
        if word in ("type", "domain"):
            return self._listed("type", item.names)
        if word in ("schema", "extension"):
            return (word, item.sval)
        if word in _RELATIONS:
            return self._listed("relation", item)
        return ()

    def _move(self, node: Any) -> None:
        word = grammar.word(node.objectType)
        name = self._relation(node.relation) if node.relation else self._listed(word, node.object)
        self._change(f"move {word}", name)

    def _transaction(self, node: Any) -> None:
        if not grammar.begins_or_ends(node):
            self._note(node.kind.name, ())

    def _set(self, node: Any) -> None:
        if node.name not in grammar.HARMLESS_SETTINGS:
            self._note(f"set {node.name}", ())

    # -- ALTER TABLE

    def _alter_table(self, node: Any) -> None:
        table = self._relation(node.relation)
        if self._is_new(table):
            return
        word = grammar.word(node.objtype)
        for command in node.cmds:
            if word == "table":
                self._alter(table, command)
            else:
                self._note(f"alter {word}", table)

    def _alter(self, table: tuple[str, ...], command: Any) -> None:
        kind = command.subtype.name
        column = ("column", *table[1:], command.name or "")
        if kind == "AT_AddColumn":
            self._add_column(table, command)
        elif kind == "AT_AddConstraint":
            self._add_constraint(table, command.def_)
        elif kind == "AT_DropConstraint":
            self._drop_constraint(table, command.name)
        elif column in self._columns:
            self._alter_new_column(kind, column, command)
        elif kind == "AT_ColumnDefault":
            self._note("set default" if command.def_ else "drop default", column)
        elif kind in _ALTER_COLUMN:
            self._note(_ALTER_COLUMN[kind], column)
        else:
            self._note(_ALTER_TABLE.get(kind, kind), table)

    def _alter_new_column(self, kind: str, name: tuple[str, ...], command: Any) -> None:
        if kind == "AT_DropColumn":
            self._forget(name)
        elif kind == "AT_ColumnDefault":
            self._columns[name] = replace(self._columns[name], filled=bool(command.def_), migration=self._migration)
        elif kind in ("AT_SetNotNull", "AT_DropNotNull"):
            nullable = kind == "AT_DropNotNull"
            self._columns[name] = replace(self._columns[name], nullable=nullable, migration=self._migration)

    def _add_column(self, table: tuple[str, ...], command: Any) -> None:
        definition = command.def_
        name = ("column", *table[1:], definition.colname)
        kinds = {constraint.contype.name for constraint in definition.constraints or ()}
        serial = definition.typeName.names[-1].sval in _SERIAL
        column = Column(
            self._migration,
            nullable=not serial and not kinds & {"CONSTR_NOTNULL", "CONSTR_PRIMARY", "CONSTR_IDENTITY"},
            filled=serial or bool(kinds & _FILLED_BY_POSTGRESQL),
        )
        # IF NOT EXISTS: it may be a column that the target knows, so what follows is not free.
        if command.missing_ok:
            self._note(_addition(column), name)
        else:
            self._columns[name] = column
        for constraint in definition.constraints or ():
            if constraint.contype.name in _RESTRICTING:
                self._constrain(self._constraint_name(table, constraint), table, (definition.colname,))

    def _add_constraint(self, table: tuple[str, ...], constraint: Any) -> None:
        columns = ()
        if constraint.contype.name == "CONSTR_UNIQUE" and not constraint.nulls_not_distinct:
            columns = tuple(key.sval for key in constraint.keys or ())
        elif constraint.contype.name == "CONSTR_FOREIGN" and constraint.fk_matchtype == "s":
            columns = tuple(key.sval for key in constraint.fk_attrs)
        self._constrain(self._constraint_name(table, constraint), table, columns)

    def _constraint_name(self, table: tuple[str, ...], constraint: Any) -> tuple[str, ...]:
        return ("constraint", *table[1:], constraint.conname or "")

    def _constrain(self, name: tuple[str, ...], table: tuple[str, ...], columns: tuple[str | None, ...]) -> None:
        if not self._is_new(table):
            self._constraints.append(Constraint(self._migration, name, table, columns))

    def _drop_constraint(self, table: tuple[str, ...], name: str) -> None:
        constraint = ("constraint", *table[1:], name)
        if any(known.name == constraint for known in self._constraints):
            self._forget(constraint)
        else:
            self._note("drop constraint", table)

    def _is_satisfied(self, constraint: Constraint) -> bool:
        names = [("column", *constraint.table[1:], column) for column in constraint.columns if column]
        return any(name in self._columns and self._columns[name].optional for name in names)


_CREATES = {
    "CreateEnumStmt": "create type",
    "CreateRangeStmt": "create type",
    "CompositeTypeStmt": "create type",
    "CreateDomainStmt": "create type",
    "CreateSeqStmt": "create sequence",
    "CreateSchemaStmt": "create schema",
    "CreateExtensionStmt": "create extension",
}
_READERS = {
    "CreateStmt": SchemaChange._create_table,
    "ViewStmt": SchemaChange._create_view,
    "IndexStmt": SchemaChange._create_index,
    "AlterTableStmt": SchemaChange._alter_table,
    "AlterEnumStmt": SchemaChange._alter_enum,
    "AlterObjectSchemaStmt": SchemaChange._move,
    "RenameStmt": SchemaChange._rename,
    "DropStmt": SchemaChange._drop,
    "CommentStmt": lambda change, _node: change._note("comment", ()),
    "TransactionStmt": SchemaChange._transaction,
    "VariableSetStmt": SchemaChange._set,
}


def _addition(column: Column) -> str:
    return "add required column" if column.required else "add optional column"
