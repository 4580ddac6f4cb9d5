# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A down script: what each of its statements would destroy. What is not known to be safe is refused by its name."""
from __future__ import annotations

from typing import Any, NamedTuple, Tuple

from ansible_collections.marketsage.rollback.plugins.module_utils import grammar
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

TABLE = "table"
COLUMN = "column"
CHANGED = "changed column"
VALUES = "enum values"
TYPE = "type"
SEQUENCE = "sequence"

# What a statement of each kind may cost. A kind that is not here is refused.
NOTHING = "nothing"
NOT_IN_A_TRANSACTION = "cannot run in a transaction, so it could not be undone"
LOSES_ROWS = "takes rows away that could not be told apart again"
KINDS = {
    "CreateStmt": NOTHING,
    "IndexStmt": NOTHING,
    "CreateEnumStmt": NOTHING,
    "CreateSeqStmt": NOTHING,
    "CompositeTypeStmt": NOTHING,
    "CreateDomainStmt": NOTHING,
    "CreateTrigStmt": NOTHING,
    "CreateFunctionStmt": NOTHING,
    "ViewStmt": NOTHING,
    "CommentStmt": NOTHING,
    "RenameStmt": NOTHING,
    "AlterEnumStmt": NOTHING,
    "InsertStmt": NOTHING,
    "UpdateStmt": CHANGED,
    "DropStmt table": TABLE,
    "DropStmt type": TYPE,
    "DropStmt domain": TYPE,
    "DropStmt sequence": SEQUENCE,
    "DropStmt index": NOTHING,
    "DropStmt view": NOTHING,
    "DropStmt materialized view": NOTHING,
    "DropStmt trigger": NOTHING,
    "DropStmt function": NOTHING,
    "AT_AddColumn": NOTHING,
    "AT_DropColumn": COLUMN,
    "AT_AlterColumnType": CHANGED,
    "AT_ColumnDefault": NOTHING,
    "AT_SetNotNull": NOTHING,
    "AT_DropNotNull": NOTHING,
    "AT_AddConstraint": NOTHING,
    "AT_DropConstraint": NOTHING,
    "AT_ValidateConstraint": NOTHING,
    "AT_SetStatistics": NOTHING,
    "AT_SetRelOptions": NOTHING,
    "DeleteStmt": LOSES_ROWS,
    "TruncateStmt": LOSES_ROWS,
    "concurrently": NOT_IN_A_TRANSACTION,
    "VacuumStmt": NOT_IN_A_TRANSACTION,
    "AlterSystemStmt": NOT_IN_A_TRANSACTION,
    "ReindexStmt": NOT_IN_A_TRANSACTION,
    "ClusterStmt": NOT_IN_A_TRANSACTION,
    "CreatedbStmt": NOT_IN_A_TRANSACTION,
    "DropdbStmt": NOT_IN_A_TRANSACTION,
    "CreateTableSpaceStmt": NOT_IN_A_TRANSACTION,
    "DropTableSpaceStmt": NOT_IN_A_TRANSACTION,
    "TransactionStmt": "would end the transaction that keeps schema and ledger together",
    "cascade": "takes away with CASCADE what it does not name",
    "with": "could change rows in its WITH or ON CONFLICT",
}
UNKNOWN_KIND = "has an effect that is not known"
_REFUSED = (NOT_IN_A_TRANSACTION, LOSES_ROWS, KINDS["TransactionStmt"], KINDS["cascade"], KINDS["with"], UNKNOWN_KIND)
_MOVED = (TABLE, TYPE, SEQUENCE)
_ADVICE = "Check in a prisma/migrations/<name>/down.sql that does without it, or undo these migrations by hand."

Name = Tuple[str, str]  # a schema and what is in it


class Loss(NamedTuple):
    """Something that a statement would destroy. Tables and columns go by the name that the live database has."""

    kind: str
    schema: str
    name: str
    column: str = ""
    kept_values: tuple[str, ...] = ()
    # The enum of `kept_values`, by the name that the script creates it under.
    enum: tuple[str, ...] = ()
    # What the script calls it when it comes to it.
    current: tuple[str, ...] = ()


class Statement(NamedTuple):
    """One statement; of a `moved` one every loss is moved to the archive in place of what it says."""

    sql: str
    losses: list[Loss]
    moved: bool


class Script:
    """Down statements in the order in which they run, and the relations that they are about."""

    def __init__(self, schema: str) -> None:
        self.statements: list[Statement] = []
        self.relations: set[Name] = set()
        self._schema = schema
        self._refused: list[str] = []
        self._live_tables: dict[Name, Name] = {}
        self._live_columns: dict[tuple[str, str, str], str] = {}
        self._enums: dict[Name, tuple[str, ...]] = {}
        # Of an enum whose values the script renames: what the live database calls them.
        self._live_values: dict[Name, dict[str, str]] = {}
        # What an enum that the script creates is called in the end, because it takes another's place.
        self._final_enums: dict[tuple[str, ...], Name] = {}
        self._created: set[Name] = set()

    def read(self, sql: str, source: str) -> None:
        for node, text in grammar.statements(sql, source):
            if not grammar.is_ignored(node):
                self._read(node, text, source)

    def check(self) -> None:
        """Refused with every statement that must not run; then values are told by the names that they have now."""
        if self._refused:
            raise Refused("; ".join(self._refused), _ADVICE)
        self.statements = [
            each._replace(losses=[self._with_live_values(loss) for loss in each.losses]) for each in self.statements
        ]

    def _with_live_values(self, loss: Loss) -> Loss:
        live = self._live_values.get(self._final_enums.get(loss.enum, ("", "")), {})
        return loss._replace(kept_values=tuple(live.get(value, value) for value in loss.kept_values))

    @property
    def losses(self) -> list[Loss]:
        return [loss for statement in self.statements for loss in statement.losses]

    def _read(self, node: Any, text: str, source: str) -> None:
        effects = [KINDS.get(kind, UNKNOWN_KIND) for kind in kinds(node)]
        self._refused += [f"{source}: {effect}: {grammar.short(text)}" for effect in effects if effect in _REFUSED]
        losses = self._losses_of(node)
        self.relations.update(self._live(name) for name in _relations(node, self._schema) - self._created)
        self._follow(node)
        moved = bool(losses) and all(loss.kind in _MOVED for loss in losses)
        self.statements.append(Statement(text, losses, moved))

    # -- losses

    def _losses_of(self, node: Any) -> list[Loss]:
        kind = type(node).__name__
        if kind == "DropStmt":
            return self._dropped(node)
        if kind == "AlterTableStmt":
            return [loss for command in node.cmds for loss in self._altered(node, command)]
        if kind == "UpdateStmt":
            table = self._table(node.relation)
            return [self._column_loss(CHANGED, table, target.name) for target in node.targetList]
        return []

    def _dropped(self, node: Any) -> list[Loss]:
        word = grammar.word(node.removeType)
        kind = KINDS.get(f"DropStmt {word}")
        if kind not in _MOVED:
            return []
        names = [grammar.named(getattr(item, "names", item), self._schema) for item in node.objects]
        return [self._loss(kind, name)._replace(current=name) for name in names if name not in self._created]

    def _altered(self, node: Any, command: Any) -> list[Loss]:
        kind, table = KINDS.get(command.subtype.name), self._table(node.relation)
        if kind not in (COLUMN, CHANGED) or table in self._created:
            return []
        enum = self._enum_of(command.def_)
        if kind == CHANGED and enum is not None:
            name = grammar.named(command.def_.typeName.names, self._schema)
            return [self._column_loss(VALUES, table, command.name)._replace(kept_values=enum, enum=name)]
        return [self._column_loss(kind, table, command.name)]

    def _enum_of(self, definition: Any) -> tuple[str, ...] | None:
        """The values of the enum that a column gets, where the script created it."""
        if definition is None or definition.typeName.arrayBounds:
            return None
        return self._enums.get(grammar.named(definition.typeName.names, self._schema))

    def _column_loss(self, kind: str, table: Name, column: str) -> Loss:
        live = self._live(table)
        return self._loss(kind, table)._replace(column=self._live_columns.get((*live, column), column))

    def _loss(self, kind: str, name: Name) -> Loss:
        schema, own = self._live(name)
        return Loss(kind, schema, own)

    # -- names

    def _table(self, node: Any) -> Name:
        return grammar.relation(node, self._schema)

    def _live(self, table: Name) -> Name:
        return self._live_tables.get(table, table)

    def _follow(self, node: Any) -> None:
        kind = type(node).__name__
        if kind == "CreateStmt":
            self._created.add(self._table(node.relation))
        elif kind == "CreateEnumStmt":
            values = tuple(value.sval for value in node.vals or ())
            self._enums[grammar.named(node.typeName, self._schema)] = values
        elif kind == "AlterEnumStmt" and node.oldVal:
            live = self._live_values.setdefault(grammar.named(node.typeName, self._schema), {})
            live[node.newVal] = live.pop(node.oldVal, node.oldVal)
        elif kind == "RenameStmt":
            self._follow_rename(node)

    def _follow_rename(self, node: Any) -> None:
        word = grammar.word(node.renameType)
        if word == "table":
            old = self._table(node.relation)
            self._live_tables[(old[0], node.newname)] = self._live(old)
        elif word == "type":
            self._follow_renamed_type(node)
        elif word == "column":
            table = self._live(self._table(node.relation))
            self._live_columns[(*table, node.newname)] = self._live_columns.get((*table, node.subname), node.subname)

    def _follow_renamed_type(self, node: Any) -> None:
        """Prisma creates an enum anew, gives columns the new one, and renames the old out of its way: that one keeps
        its place here, since the new one takes it."""
        old = grammar.named(node.object, self._schema)
        new = (old[0], node.newname)
        if old in self._enums:
            self._final_enums[old] = new
        elif not self._enums:
            self._live_values[new] = self._live_values.pop(old, {})


def kinds(node: Any) -> list[str]:
    """What a statement is, as KINDS has it; an ALTER TABLE is what its commands are."""
    kind = type(node).__name__
    if getattr(node, "concurrent", False):
        return ["concurrently"]
    if kind == "DropStmt":
        cascade = ["cascade"] if node.behavior.name == "DROP_CASCADE" else []
        return [f"DropStmt {grammar.word(node.removeType)}", *cascade]
    if kind == "AlterTableStmt":
        commands = [command.subtype.name for command in node.cmds]
        cascade = [command for command in node.cmds if command.behavior.name == "DROP_CASCADE"]
        return [*commands, *("cascade" for _command in cascade)]
    if kind in ("InsertStmt", "UpdateStmt") and _has_hidden_changes(node):
        return ["with"]
    return [kind]


def _has_hidden_changes(node: Any) -> bool:
    conflict = getattr(node, "onConflictClause", None)
    return bool(node.withClause) or bool(conflict and conflict.action.name == "ONCONFLICT_UPDATE")


def _relations(node: Any, schema: str) -> set[Name]:
    """Every relation that a statement names."""
    found: set[Name] = set()
    visitors = library("pglast.visitors", "reading migrations")

    class Names(visitors.Visitor):  # type: ignore[misc, name-defined]
        def visit_RangeVar(self, _ancestors: Any, name: Any) -> None:
            found.add(grammar.relation(name, schema))

    Names()(node)
    if type(node).__name__ == "DropStmt":
        word = grammar.word(node.removeType)
        if word in ("table", "index"):
            found.update(grammar.named(item, schema) for item in node.objects)
        elif word == "trigger":
            found.update(grammar.named(item[:-1], schema) for item in node.objects)
    return found
