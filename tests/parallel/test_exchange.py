"""What processes hear of each other when the service of `jax.distributed` answers, and when it does not."""

import json

import jax
import pytest

from transformer_jax import types
from transformer_jax.parallel import detection, exchange, multihost

FAILED = json.dumps({"index": 1, "host": "b", "code": 1, "end": 1})


class Client:
    """Answers `key_value_try_get` with one after the other, the last one for ever."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), 0

    def key_value_try_get(self, key):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is FAILED:
            return answer
        raise jax.errors.JaxRuntimeError(answer)

    def blocking_key_value_get_bytes(self, key, milliseconds):
        answer = self.answers[0]
        if answer is FAILED:
            return answer.encode()
        raise jax.errors.JaxRuntimeError(answer)


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(exchange, "_POLL", 0.0)
    monkeypatch.setattr(exchange, "_PATIENCE", 0.0)

    def make(*answers):
        monkeypatch.setattr(exchange, "_client", lambda: Client(answers))
        made, ended = exchange.Board(0, ["a", "b"]), []
        monkeypatch.setattr(made, "end", ended.append)
        return made, ended

    return make


def test_a_failed_peer_is_heard_after_calls_that_went_wrong(board):
    made, ended = board(*["UNAVAILABLE"] * 3, "NOT_FOUND", *["DEADLINE_EXCEEDED"] * 8, "NOT_FOUND", FAILED)
    made._watch()
    assert ended == [1]


def test_a_service_that_has_gone_is_not_asked_for_ever(board):
    made, ended = board("UNAVAILABLE")
    made._watch()
    assert ended == [] and made._client.asked == exchange._UNHEARD


def test_why_a_peer_was_lost_is_what_it_said_itself(board, monkeypatch):
    for answer, code in ((FAILED, 1), ("DEADLINE_EXCEEDED", None), ("UNAVAILABLE", None)):
        monkeypatch.setattr(multihost, "_board", board(answer)[0])
        assert multihost.told_to_end(0.0) == code
    multihost._board.index = 1
    multihost._board._client.answers = [FAILED]
    assert multihost.told_to_end(0.0) is None, "it said so itself"
    monkeypatch.setattr(multihost, "_board", None)
    assert multihost.told_to_end() is None


def test_the_service_gone_is_a_lost_peer_wherever_it_is_asked(board):
    with pytest.raises(detection.PeerLost, match="cannot be reached"):
        board("UNAVAILABLE")[0].failure(0.0)


def test_a_process_whose_devices_have_another_number_is_refused(board, monkeypatch):
    monkeypatch.setattr(multihost, "_board", board(FAILED)[0])
    multihost.check_index()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(
        types.InputError, match=r"told 0 \(on a\), its cpu devices are those of process 1.*TPU_WORKER_ID"
    ):
        multihost.check_index()
