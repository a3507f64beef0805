# Everything runs in .venv, which is made when it is first needed. PYTHON=python3.13 make test uses another Python.
PYTHON ?= python3
BIN := .venv/bin
# The tests that need no server share the cores, up to four; the servers of the others take them all.
SHARED := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast test-milvus test-clients test-large torture check clean
.PHONY: bench bench-quality bench-cold bench-compute bench-memory bench-paging bench-traffic bench-price bench-cluster

demo: .venv/installed
	$(BIN)/nudge-vdb demo

test: test-fast
	$(BIN)/python -m pytest integration -m 'not large'

test-fast: .venv/installed
	$(BIN)/python -m pytest tests $(SHARED)

test-milvus: .venv/installed
	$(BIN)/python -m pytest integration -m 'milvus_server and not large'

test-large: .venv/installed
	$(BIN)/python -m pytest integration/test_large.py -m large

test-clients: .venv/installed
	$(BIN)/python -m integration.clients

torture: .venv/installed
	$(BIN)/python -m integration.torture qdrant
	$(BIN)/python -m integration.torture milvus
	NUDGE_VDB_WIRE_POSITIONS=24 $(BIN)/python -m pytest integration/test_wire_faults.py

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Hours: an index of a million rows is built for the last, once, and Milvus's anew every time. Each writes its section of
# docs/benchmarks.md.
bench: bench-quality bench-cold bench-compute bench-memory bench-paging bench-traffic bench-price bench-cluster

bench-quality: .venv/installed
	$(BIN)/python -m benchmarks.quality

bench-compute: .venv/installed
	$(BIN)/python -m benchmarks.compute

bench-memory: .venv/installed
	$(BIN)/python -m benchmarks.memory

bench-cold: .venv/installed
	$(BIN)/python -m benchmarks.cold_rows --record
	$(BIN)/python -m benchmarks.false_proofs

bench-paging: .venv/installed
	$(BIN)/python -m benchmarks.paging

bench-traffic: .venv/installed
	$(BIN)/python -m benchmarks.traffic

bench-price: .venv/installed
	$(BIN)/python -m benchmarks.price

bench-cluster: .venv/installed
	$(BIN)/python -m benchmarks.pushdown
	$(BIN)/python -m benchmarks.pushdown_milvus

clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	touch $@
