"""The journey: real work on real data, sleep, another server, and the work goes on. Through the public SDK only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 60
LOADED = """
import pandas as pd
from sklearn.datasets import load_breast_cancer

raw = load_breast_cancer(as_frame=True)
frame = raw.frame.copy()
frame.loc[frame.index % 50 == 0, "mean radius"] = None
frame = pd.concat([frame, frame.iloc[:5]])
frame.shape
"""
CLEANED = """
clean = frame.drop_duplicates().dropna()
clean.columns = [name.replace(" ", "_") for name in clean.columns]
assert not clean.isna().any().any()
clean.shape
"""
TRAINED = """
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, target = clean.drop(columns="target"), clean["target"]
train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=0.25, random_state=0, stratify=target)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train_x, train_y)
print("trained on", len(train_x), "rows")
score = float(model.score(test_x, test_y))
score
"""
PLOTTED = """
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(4, 3))
axes.scatter(clean["mean_radius"], clean["mean_texture"], c=clean["target"], s=4)
axes.set_xlabel("mean radius")
plt.show()
"""
PREDICTED = "float(model.score(test_x, test_y)), model.predict(test_x.head(3)).tolist() == test_y.head(3).tolist()"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose machines fall asleep soon."""
    with ServerProcess(tmp_path_factory.mktemp("journey"), idle_seconds=2, quiet_save_seconds=0.5) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


def run(machine: torpor.Machine, code: str) -> torpor.Result:
    return machine.run(code, timeout_seconds=300).raise_for_error()


def wait_until_asleep(server: ServerProcess, machine: torpor.Machine) -> None:
    """Wait until the machine sleeps and no process of it is left."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := machine.detail().state) != "asleep" or server.holds(machine.name):
        assert time.monotonic() < deadline, f"{state}, {server.held()}\n{server.log[-4000:]}"
        time.sleep(0.1)


def test_a_trained_model_predicts_after_sleep_and_under_another_server(
    server: ServerProcess, client: torpor.Client
) -> None:
    machine = client.new_machine(tags={"story": "journey"})
    assert run(machine, LOADED).value == "(574, 31)"
    assert run(machine, CLEANED).value == "(557, 31)"
    trained = run(machine, TRAINED)
    assert trained.stdout == "trained on 417 rows\n"
    assert trained.value is not None
    assert float(trained.value) > 0.9
    plotted = run(machine, PLOTTED)
    assert plotted.png is not None
    picture = Image.open(BytesIO(plotted.png))
    assert picture.format == "PNG"
    assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10

    wait_until_asleep(server, machine)
    server.restart()
    assert not server.holds(machine.name)

    predicted = run(machine, PREDICTED)
    assert predicted.value == f"({trained.value}, True)"
    assert predicted.notices == ()
    again = client.machine(machine.name)
    assert [instruction.seq for instruction in again.history()] == [4, 3, 2, 1, 0]
    assert again.attach(plotted.seq).result().png == plotted.png
    stored = again.instruction(plotted.seq).events
    assert stored is not None
    assert [event.png for event in stored if isinstance(event, torpor.Display)] == [plotted.png]


def test_an_awake_machine_goes_on_after_a_stop_and_start_as_if_nothing_had_been(
    server: ServerProcess, client: torpor.Client
) -> None:
    machine = client.new_machine(idle_seconds=None)
    run(machine, "def count():\n    n = 0\n    while True:\n        yield n\n        n += 1\ncounter = count()")
    assert run(machine, "next(counter)").value == "0"
    server.restart()
    assert run(machine, "next(counter)").value == "1"
    assert machine.detail().name in {found.name for found in client.machines()}
