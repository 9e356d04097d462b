import numpy as np
import pytest

from modsync_jax.reporting import _run


def test_layers_come_in_the_order_of_their_numbers(make_run):
    run = _run.read(make_run(layers=12))
    labels = [_run.layer_label(layer) for layer in run.family("keep")]
    assert labels == [f"layer {i}" for i in range(1, 13)]
    assert list(run.thresholds()) == ["boundary", "residual"]
    np.testing.assert_allclose(run.thresholds()["residual"]["Dense_11/kernel"][-1], 1.1)


def test_layers_of_other_networks_keep_their_names():
    assert _run.layer_label("trunk/Dense_0/kernel") == "trunk/Dense_0"
    assert _run.layer_label("embedding") == "embedding"


def test_a_kind_does_not_take_in_columns_of_another(make_run):
    run = _run.read(make_run(columns={"keepsake/x": np.zeros(12)}))
    assert len(run.family("keep")) == 3


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "result.json", "solution.npz"])
def test_a_missing_file_is_named(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {name}; name the folder of a finished"):
        _run.read(folder)
