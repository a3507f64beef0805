"""Collections on a Milvus server that the tests fill and look at round the adapter."""

import re

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2

from integration.engines_cluster import wait_until
from integration.judged import judged_rows, write_judgements
from nudge_vdb_milvus.fixture import ID, VECTOR

TIMEOUT = 30.0
WIDTH = 8


@pytest.fixture
def name(tmp_path):
    """A name for a collection that no other test has."""
    return re.sub(r"\W", "_", tmp_path.name)


@pytest.fixture
def client(milvus_server):
    client = MilvusClient(milvus_server.uri, timeout=TIMEOUT, dedicated=True)
    yield client
    client.close()


@pytest.fixture
def wire(client):
    """The protocol itself, to see rows as the server holds them."""
    return client._get_connection()._stub


@pytest.fixture(scope="session")
def shared_docs(milvus_server):
    """A loaded collection of integer ids and dynamic fields: making one costs more than most tests."""
    client = MilvusClient(milvus_server.uri, timeout=TIMEOUT, dedicated=True)
    create(client, "shared_docs")
    client.close()
    return "shared_docs"


@pytest.fixture
def docs(client, shared_docs):
    """The name of a collection without rows."""

    def emptied():  # what another client wrote last may show after the first deletion
        client.delete(shared_docs, filter=f"{ID} >= 0 or {ID} < 0")
        return copies(client, shared_docs) == 0

    wait_until(emptied, "a collection without rows")
    return shared_docs


def vector_field(width=WIDTH):
    return VECTOR, DataType.FLOAT_VECTOR, {"dim": width}


def create(client, name, *fields, index=True, load=True, auto_id=False, **options):
    """Create a collection with integer ids and *fields*, each given as name, type and options."""
    schema = client.create_schema(auto_id=auto_id, enable_dynamic_field=True)
    schema.add_field(ID, DataType.INT64, is_primary=True)
    for field, kind, more in fields or [vector_field()]:
        schema.add_field(field, kind, **more)
    client.create_collection(name, schema=schema, consistency_level="Strong", **options)
    if index:
        params = client.prepare_index_params()
        params.add_index(VECTOR, index_type="FLAT", metric_type="COSINE")
        client.create_index(name, params, sync=False)
        if load:
            client.load_collection(name)


def entities(ids, vectors, **payload):
    return [{ID: pk, VECTOR: vector, **payload} for pk, vector in zip(ids, vectors, strict=True)]


def random_vectors(count, width=WIDTH, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def stored(wire, name, *partitions, database=""):
    """Every row as the protocol tells it: primary key to its other fields but for the vector, as bytes."""
    request = milvus_pb2.QueryRequest(
        db_name=database,
        collection_name=name,
        expr=f"{ID} >= 0 or {ID} < 0",
        output_fields=["*"],
        partition_names=partitions,
        consistency_level=0,
        use_default_consistency=False,
    )
    request.query_params.add(key="limit", value="16384")
    columns = {column.field_name: column for column in wire.Query(request, timeout=TIMEOUT).fields_data}
    pks = list(columns.pop(ID).scalars.long_data.data)
    del columns[VECTOR]
    cells = {field: cells_of(column) for field, column in columns.items()}
    return {pk: {field: held[place] for field, held in cells.items()} for place, pk in enumerate(pks)}


def cells_of(column):
    cells = getattr(column.scalars, column.scalars.WhichOneof("data")).data
    return [cell.SerializeToString() if hasattr(cell, "SerializeToString") else cell for cell in cells]


def copies(client, name, where="", *partitions):
    """How many rows there are, one that is there twice counted twice."""
    return client.query(name, where, output_fields=["count(*)"], partition_names=list(partitions) or None)[0][
        "count(*)"
    ]


def live(client, name, *pks):
    """The vectors of rows, as the client tells them."""
    rows = client.query(name, f"{ID} in {list(pks)}", output_fields=[ID, VECTOR], consistency_level="Strong")
    held = {row[ID]: row[VECTOR] for row in rows}
    return np.array([held[pk] for pk in pks], np.float32)


def insert_raw(wire, name, ids, vectors, **trees):
    request = milvus_pb2.InsertRequest(collection_name=name, num_rows=len(ids))
    pks = request.fields_data.add(field_name=ID, type=DataType.INT64)
    pks.scalars.long_data.data.extend(ids)
    column = request.fields_data.add(field_name=VECTOR, type=DataType.FLOAT_VECTOR)
    column.vectors.dim = vectors.shape[1]
    column.vectors.float_vector.data.extend(vectors.ravel().tolist())
    for field, cells in trees.items():
        request.fields_data.add(field_name=field, type=DataType.JSON).scalars.json_data.data.extend(cells)
    meta = request.fields_data.add(field_name="$meta", type=DataType.JSON, is_dynamic=True)
    meta.scalars.json_data.data.extend([b"{}"] * len(ids))
    assert wire.Insert(request, timeout=TIMEOUT).status.code == 0


def judged_docs(client, name, folder):
    """Fill a collection with rows that judgements are worth something for; return the file of these."""
    rows, queries = judged_rows()
    create(client, name, vector_field(rows.vectors.shape[1]))
    client.insert(name, entities(rows.ids, rows.vectors, note="kept"))
    return write_judgements(folder / "judgements.jsonl", queries)
