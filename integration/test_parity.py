"""The whole of two real sets, row by row, against what the authors' code made of them."""

import numpy as np
import pytest

from benchmarks.sets import ELSEWHERE
from nudge_vdb.contract import Metric
from nudge_vdb.exam import Exam, Field
from nudge_vdb.nudge import Method, Pulls, rays_m, rays_n, unit
from nudge_vdb.selection import authors_step

pytestmark = pytest.mark.needs_data


class Reference:
    """A set, split as its authors' run was, and the vectors that nudge-ft 0.1.2 returned."""

    def __init__(self, folder):
        with np.load(folder / "vectors.npz") as data, np.load(folder / "nudge_ft_reference.npz") as outputs:
            self.rows, _ = unit(data["doc_vectors"])
            self.queries, self.lengths = unit(data["query_vectors"])
            self.query, self.row = data["qrel_query"].astype(np.int64), data["qrel_doc"].astype(np.int64)
            self.split = data["query_split"][self.query]
            self.outputs = dict(outputs)
        train = np.flatnonzero(self.split == "train")
        train = train[np.argsort(self.row[train], kind="stable")]
        ones = np.ones(len(train))
        self.pulls = Pulls(self.queries, self.query[train], self.row[train], ones, len(self.rows))

    def authors_step(self, k):
        dev = np.flatnonzero(self.split == "dev")
        dev = dev[np.argsort(self.query[dev], kind="stable")]
        asked, place = np.unique(self.query[dev], return_inverse=True)
        ones = np.ones(len(dev))
        exam = Exam(self.queries[asked], self.lengths[asked], place, self.row[dev], ones, 0 * ones)
        nobody, order = np.empty((len(asked), 0)), np.zeros(len(self.rows))
        field = Field(Method.NUDGE_N, Metric.COSINE, self.pulls, lambda part: self.rows[part], order, nobody)
        return authors_step(field, exam, k)


@pytest.fixture(params=["cranfield", "metatool"])
def reference(request):
    folder = ELSEWHERE / request.param
    if not (folder / "nudge_ft_reference.npz").is_file():
        pytest.skip(f"{folder.name} is not at hand; set NUDGE_VDB_DATA to the folder that holds it")
    return Reference(folder)


@pytest.mark.parametrize(
    ("name", "rays", "step"),
    [("nudge_n_gamma0_2", rays_n, 0.2), ("nudge_n_gamma0_46", rays_n, 0.46), ("nudge_m_gamma0_3", rays_m, 0.3)],
)
def test_every_row_ends_where_the_authors_code_put_it(reference, name, rays, step):
    moved = rays(reference.rows, reference.pulls.of(0, reference.pulls.rows)).at(step)
    np.testing.assert_allclose(moved, reference.outputs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10])
def test_the_authors_rule_ends_where_the_authors_code_ended(reference, k):
    step = reference.authors_step(k)
    # Where the rule chose .2, the output at .2 was not kept twice.
    name = f"nudge_n_valk{k}" if f"nudge_n_valk{k}" in reference.outputs else "nudge_n_gamma0_2"
    moved = rays_n(reference.rows, reference.pulls.of(0, reference.pulls.rows)).at(step)
    np.testing.assert_allclose(moved, reference.outputs[name], rtol=0, atol=1e-5)
