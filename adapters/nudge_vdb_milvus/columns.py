"""Columns of the protocol as arrays, and picked, mended and filled for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.wire import FieldData

_CELLS = {
    DataType.BOOL: "bool_data",
    DataType.INT8: "int_data",
    DataType.INT16: "int_data",
    DataType.INT32: "int_data",
    DataType.INT64: "long_data",
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.VARCHAR: "string_data",
    DataType.JSON: "json_data",
    DataType.ARRAY: "array_data",
}
_DENSE_BYTES = {
    DataType.BINARY_VECTOR: "binary_vector",
    DataType.FLOAT16_VECTOR: "float16_vector",
    DataType.BFLOAT16_VECTOR: "bfloat16_vector",
}
CARRIED = {DataType.FLOAT_VECTOR, DataType.SPARSE_FLOAT_VECTOR, *_DENSE_BYTES, *_CELLS}
"""The types of fields that can be sent back as they came."""


def pks_of(column: FieldData) -> list[Pk]:
    """Return the primary keys that *column* holds."""
    return list(_cells(column))


def vectors_of(column: FieldData, count: int, width: int) -> tuple[Vectors, Mask]:
    """Return the vectors (*count*, *width*) that *column* holds, and which rows have none."""
    held = _floats(column).reshape(-1, width)
    if len(held) > count or (len(held) < count and not column.valid_data):
        raise ValueError(f"{count} keys and {len(held)} vectors")
    if not column.valid_data:
        return held, np.zeros(count, bool)
    valid = np.fromiter(column.valid_data, bool, count)
    if len(held) == count:
        return held, ~valid
    vectors = np.zeros((count, width), np.float32)  # servers leave out the places of rows without a vector
    vectors[valid] = held
    return vectors, ~valid


def picked(column: FieldData, places: Sequence[int], count: int) -> FieldData:
    """Return a copy of *column* with the rows at *places* of its *count*, in that order."""
    copy = type(column)(type=column.type, field_name=column.field_name, is_dynamic=column.is_dynamic)
    if column.type in _CELLS:
        _pick_cells(column, places, copy)
    elif column.type == DataType.SPARSE_FLOAT_VECTOR:
        held = column.vectors.sparse_float_vector
        copy.vectors.sparse_float_vector.contents.extend(held.contents[place] for place in places)
        copy.vectors.sparse_float_vector.dim = held.dim
        copy.vectors.dim = column.vectors.dim
    else:
        _pick_dense(column, np.asarray(places, np.intp), count, copy)
    return copy


def filled(column: FieldData, vectors: Vectors) -> FieldData:
    """Return a column like *column* that holds *vectors*."""
    return dense(column.field_name, vectors, nullable=bool(column.valid_data))


def mended(column: FieldData, element: int) -> FieldData:
    """Say in every empty cell of an ARRAY *column* what it is empty of; a server may crash over one that does not."""
    for cell in column.scalars.array_data.data:
        if cell.WhichOneof("data") is None:
            getattr(cell, _CELLS[DataType(element)]).SetInParent()
    return column


def _cells(column: FieldData) -> Any:  # noqa: ANN401 - a repeated field
    return getattr(column.scalars, _CELLS[DataType(column.type)]).data


def _floats(column: FieldData) -> NDArray[np.float32]:
    """Return the floats of *column* as one array.

    Serialized, they are a tag, a length and the floats themselves; reading them one by one takes 30 times as long.
    """
    held = column.vectors.float_vector
    count = len(held.data)
    return np.frombuffer(held.SerializeToString()[-4 * count :] if count else b"", "<f4")


def _pick_cells(column: FieldData, places: Sequence[int], copy: FieldData) -> None:
    held, kept = _cells(column), _cells(copy)
    kept.extend(held[place] for place in places)
    if column.type == DataType.ARRAY:
        copy.scalars.array_data.element_type = column.scalars.array_data.element_type


def _pick_dense(column: FieldData, places: NDArray[np.intp], count: int, copy: FieldData) -> None:
    copy.vectors.dim = column.vectors.dim
    if column.type == DataType.FLOAT_VECTOR:
        copy.vectors.float_vector.data.extend(_floats(column).reshape(count, -1)[places].ravel().tolist())
    else:
        name = _DENSE_BYTES[DataType(column.type)]
        held = np.frombuffer(getattr(column.vectors, name), np.uint8).reshape(count, -1)
        setattr(copy.vectors, name, held[places].tobytes())


def listed(name: str, kind: DataType, pks: Sequence[Pk]) -> FieldData:
    """Return a column of primary keys."""
    column = schema_pb2.FieldData(type=kind, field_name=name)
    _cells(column).extend(pks)
    return column


def dense(name: str, vectors: Vectors, nullable: bool) -> FieldData:
    """Return a column of *vectors*, each marked as being there where it might not be."""
    column = schema_pb2.FieldData(type=DataType.FLOAT_VECTOR, field_name=name)
    column.vectors.dim = vectors.shape[1]
    column.vectors.float_vector.data.extend(vectors.ravel().tolist())
    if nullable:
        column.valid_data.extend([True] * len(vectors))
    return column
