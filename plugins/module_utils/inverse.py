# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What undoes a migration exactly, worked out from its own statements: a rename back loses nothing, a diff would."""
from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import grammar
from ansible_collections.marketsage.rollback.plugins.module_utils.grammar import quoted

_RENAMED_RELATIONS = {"table": "TABLE", "view": "VIEW", "index": "INDEX", "sequence": "SEQUENCE"}
_DROPPED_TYPES = {"CreateEnumStmt": "typeName", "CreateRangeStmt": "typeName", "CreateDomainStmt": "domainname"}
_NOT_IN_SCHEMA_PRISMA = ("CONSTR_CHECK", "CONSTR_EXCLUSION")
_PRISMA_SEES = ("table", "index", "type")


class Rename(NamedTuple):
    """A table or a column has another name since; `table` and `column` are the new ones, as schema.prisma has them.

    Of a `block` enum they are the type and its value.
    """

    table: tuple[str, ...]
    column: str
    old: str
    block: str = "model"


# Of an index or a constraint, which schema.prisma need not name.
_ANOTHER_NAME = Rename((), "", "")


class Undo(NamedTuple):
    """How one statement of a migration is undone: `sql` None where nothing exact is known.

    `in_prisma` tells whether schema.prisma shows what it did; what it does not show, a diff of two cannot undo.
    `of_new` tells that it is about something the same migrations created.
    """

    migration: str
    text: str
    sql: str | None
    in_prisma: bool
    of_new: bool = False
    rename: Rename | None = None


NOTHING = ""


class Inverse:
    """The undoing of migrations; add them in the order in which they were applied."""

    def __init__(self, schema: str) -> None:
        self.steps: list[Undo] = []
        self._schema = schema
        self._migration = ""
        self._text = ""
        self._tables: set[tuple[str, ...]] = set()
        self._columns: set[tuple[str, ...]] = set()
        self._types: set[tuple[str, ...]] = set()

    def add(self, migration: str, sql: str) -> None:
        self._migration = migration
        for node, self._text in grammar.statements(sql, migration):
            if not grammar.is_ignored(node):
                _READERS.get(type(node).__name__, Inverse._unknown)(self, node)

    def is_exact(self, migration: str) -> bool:
        return all(step.sql is not None for step in self.steps if step.migration == migration)

    def script(self, migration: str) -> str:
        """What undoes one migration whose inverse is exact."""
        return _joined(step.sql for step in reversed(self.steps) if step.migration == migration)

    def beside_prisma(self) -> str:
        """What undoes all that a diff of two schema.prisma would not, or not without loss."""
        kept = (step for step in reversed(self.steps) if not step.of_new and (step.rename or not step.in_prisma))
        return _joined(step.sql for step in kept)

    def renames(self) -> list[Rename]:
        return [step.rename for step in self.steps if step.rename and step.rename.table and not step.of_new]

    def impossible(self) -> list[Undo]:
        """What can neither be inverted nor be seen by Prisma."""
        return [step for step in self.steps if step.sql is None and not step.in_prisma]

    # -- steps

    def _step(self, sql: str | None, in_prisma: bool, **more: Any) -> None:
        self.steps.append(Undo(self._migration, self._text, sql, in_prisma, **more))

    def _unknown(self, _node: Any) -> None:
        self._step(None, in_prisma=False)

    def _nothing(self, _node: Any) -> None:
        self._step(NOTHING, in_prisma=True)

    def _table(self, node: Any) -> tuple[str, str]:
        return grammar.relation(node, self._schema)

    def _create_table(self, node: Any) -> None:
        table = self._table(node.relation)
        if node.inhRelations or node.partbound or node.partspec:
            self._unknown(node)
        elif node.if_not_exists:
            self._step(None, in_prisma=True)
        else:
            self._tables.add(table)
            self._step(f"DROP TABLE {quoted(*table)}", in_prisma=True, of_new=True)

    def _create_index(self, node: Any) -> None:
        table = self._table(node.relation)
        in_prisma = not node.whereClause and all(column.name for column in node.indexParams)
        if table in self._tables:
            self._nothing(node)
        elif node.if_not_exists or not node.idxname:
            self._step(None, in_prisma)
        else:
            self._step(f"DROP INDEX {quoted(table[0], node.idxname)}", in_prisma)

    def _create_type(self, node: Any) -> None:
        kind = type(node).__name__
        name = grammar.named(getattr(node, _DROPPED_TYPES[kind]), self._schema)
        self._types.add(name)
        word = "DOMAIN" if kind == "CreateDomainStmt" else "TYPE"
        self._step(f"DROP {word} {quoted(*name)}", in_prisma=kind == "CreateEnumStmt", of_new=kind == "CreateEnumStmt")

    def _create_sequence(self, node: Any) -> None:
        sql = None if node.if_not_exists else f"DROP SEQUENCE {quoted(*self._table(node.sequence))}"
        self._step(sql, in_prisma=False)

    def _create_view(self, node: Any) -> None:
        sql = None if node.replace else f"DROP VIEW {quoted(*self._table(node.view))}"
        self._step(sql, in_prisma=False)

    def _create_trigger(self, node: Any) -> None:
        table = self._table(node.relation)
        if table in self._tables:
            self._nothing(node)
        else:
            sql = None if node.replace else f"DROP TRIGGER {quoted(node.trigname)} ON {quoted(*table)}"
            self._step(sql, in_prisma=False)

    def _create_function(self, node: Any) -> None:
        taken = [each for each in node.parameters or () if each.mode.name not in ("FUNC_PARAM_OUT", "FUNC_PARAM_TABLE")]
        types = ", ".join(grammar.written(each.argType) for each in taken)
        word = "PROCEDURE" if node.is_procedure else "FUNCTION"
        name = quoted(*grammar.named(node.funcname, self._schema))
        self._step(None if node.replace else f"DROP {word} {name}({types})", in_prisma=False)

    def _drop(self, node: Any) -> None:
        self._step(None, in_prisma=grammar.word(node.removeType) in _PRISMA_SEES)

    def _alter_enum(self, node: Any) -> None:
        name = grammar.named(node.typeName, self._schema)
        if name in self._types:
            self._nothing(node)
        elif node.oldVal:
            old, new = grammar.literal(node.oldVal), grammar.literal(node.newVal)
            rename = Rename(name, node.newVal, node.oldVal, "enum")
            self._step(f"ALTER TYPE {quoted(*name)} RENAME VALUE {new} TO {old}", in_prisma=True, rename=rename)
        else:
            self._step(None, in_prisma=True)

    def _rename(self, node: Any) -> None:
        word = grammar.word(node.renameType)
        if word == "column" and node.relation:
            self._rename_column(node)
        elif word == "type":
            schema, old = grammar.named(node.object, self._schema)
            sql = f"ALTER TYPE {quoted(schema, node.newname)} RENAME TO {quoted(old)}"
            is_new = (schema, old) in self._types
            self._step(sql, in_prisma=True, of_new=is_new, rename=Rename((schema, node.newname), "", old, "enum"))
            if is_new:
                self._types.add((schema, node.newname))
        elif word == "constraint" and node.relation:
            table = self._table(node.relation)
            sql = f"ALTER TABLE {quoted(*table)} RENAME CONSTRAINT {quoted(node.newname)} TO {quoted(node.subname)}"
            self._step(sql, in_prisma=True, of_new=table in self._tables, rename=_ANOTHER_NAME)
        elif word in _RENAMED_RELATIONS:
            self._rename_relation(node, word)
        else:
            self._unknown(node)

    def _rename_relation(self, node: Any, word: str) -> None:
        schema, old = self._table(node.relation)
        is_new = (schema, old) in self._tables
        rename = Rename((schema, node.newname), "", old) if word == "table" else _ANOTHER_NAME
        sql = f"ALTER {_RENAMED_RELATIONS[word]} {quoted(schema, node.newname)} RENAME TO {quoted(old)}"
        self._step(sql, in_prisma=word in _PRISMA_SEES, of_new=is_new, rename=rename)
        if is_new:
            self._tables.add((schema, node.newname))
        self._columns |= {(schema, node.newname, name[2]) for name in self._columns if name[:2] == (schema, old)}

    def _rename_column(self, node: Any) -> None:
        table, old, new = self._table(node.relation), node.subname, node.newname
        is_new = table in self._tables or (*table, old) in self._columns
        sql = f"ALTER TABLE {quoted(*table)} RENAME COLUMN {quoted(new)} TO {quoted(old)}"
        self._step(sql, in_prisma=True, of_new=is_new, rename=Rename(table, new, old))
        if is_new:
            self._columns.add((*table, new))

    # -- rows

    def _change_rows(self, node: Any) -> None:
        """Rows and values of what the same migrations created go with it."""
        table = self._table(node.relation)
        written = [(*table, target.name) for target in getattr(node, "targetList", None) or ()]
        if node.withClause or not (table in self._tables or (written and set(written) <= self._columns)):
            self._unknown(node)
        else:
            self._nothing(node)

    # -- ALTER TABLE

    def _alter_table(self, node: Any) -> None:
        table = self._table(node.relation)
        if grammar.word(node.objtype) != "table":
            self._unknown(node)
        elif table in self._tables:
            self._nothing(node)
        else:
            for command in node.cmds:
                self._alter(table, command)

    def _alter(self, table: tuple[str, str], command: Any) -> None:
        kind = command.subtype.name
        column = (*table, command.name or "")
        alter = f"ALTER TABLE {quoted(*table)}"
        if kind == "AT_AddColumn":
            self._add_column(table, command)
        elif kind == "AT_AddConstraint":
            self._add_constraint(alter, command.def_)
        elif kind == "AT_ValidateConstraint" or (column in self._columns and kind in _OF_A_COLUMN):
            self._nothing(command)
        elif kind in ("AT_SetNotNull", "AT_DropNotNull"):
            opposite = "DROP" if kind == "AT_SetNotNull" else "SET"
            self._step(f"{alter} ALTER COLUMN {quoted(command.name)} {opposite} NOT NULL", in_prisma=True)
        else:
            self._step(None, in_prisma=kind in (*_OF_A_COLUMN, "AT_DropColumn", "AT_DropConstraint"))

    def _add_column(self, table: tuple[str, str], command: Any) -> None:
        column = command.def_.colname
        if command.missing_ok:
            self._step(None, in_prisma=True)
        else:
            self._columns.add((*table, column))
            self._step(f"ALTER TABLE {quoted(*table)} DROP COLUMN {quoted(column)}", in_prisma=True, of_new=True)

    def _add_constraint(self, alter: str, constraint: Any) -> None:
        in_prisma = constraint.contype.name not in _NOT_IN_SCHEMA_PRISMA
        known = constraint.conname and not constraint.indexname
        self._step(f"{alter} DROP CONSTRAINT {quoted(constraint.conname)}" if known else None, in_prisma)


_OF_A_COLUMN = ("AT_SetNotNull", "AT_DropNotNull", "AT_ColumnDefault", "AT_AlterColumnType")
_READERS: dict[str, Callable[[Inverse, Any], None]] = {
    "CreateStmt": Inverse._create_table,
    "IndexStmt": Inverse._create_index,
    "CreateEnumStmt": Inverse._create_type,
    "CreateRangeStmt": Inverse._create_type,
    "CreateDomainStmt": Inverse._create_type,
    "CreateSeqStmt": Inverse._create_sequence,
    "ViewStmt": Inverse._create_view,
    "CreateTrigStmt": Inverse._create_trigger,
    "CreateFunctionStmt": Inverse._create_function,
    # They are left where they are: a release that does not know them does not meet them.
    "CreateExtensionStmt": Inverse._nothing,
    "CreateSchemaStmt": Inverse._nothing,
    "CommentStmt": Inverse._nothing,
    "RenameStmt": Inverse._rename,
    "AlterEnumStmt": Inverse._alter_enum,
    "AlterTableStmt": Inverse._alter_table,
    "DropStmt": Inverse._drop,
    "InsertStmt": Inverse._change_rows,
    "UpdateStmt": Inverse._change_rows,
    "DeleteStmt": Inverse._change_rows,
}


def _joined(parts: Any) -> str:
    return "".join(f"{part};\n" for part in parts if part)
