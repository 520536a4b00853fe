"""What processes compare before they wait for each other."""

from tests.experiment import small
from transformer_jax import experiment
from transformer_jax.experiment import peers
from transformer_jax.parallel import multihost


def test_settings_code_devices_data_and_checkpoints_are_compared(monkeypatch):
    told, settings = {}, small.tiny(data__threads="3")
    data = experiment.Shared().train_pipeline(settings)
    monkeypatch.setattr(multihost, "count", lambda: 2)
    monkeypatch.setattr(multihost, "agree", told.update)
    peers.require(settings, data, [8, 4], weights="x.npz")
    assert told["config.schedule.base"] == "0.001" and told["config.train.total"] == "6"
    assert told["devices"] == "8 x cpu" and told["examples of the training data"] == 1257
    assert told["step of the newest checkpoint"] == 8 and told["weights"] == "x.npz"
    assert told["code of transformer_jax"] and told["version of jax"] and told["training data"]
    assert not any("threads" in name or "data_dir" in name for name in told), "how a process reads is its own"


def test_alone_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(multihost, "agree", None)
    peers.require(small.tiny())
