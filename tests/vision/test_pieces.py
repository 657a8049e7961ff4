"""How rows are cut, and who takes the pieces."""

import threading

import pytest
import torch

from hybrid.vision.pieces import LEAST_ROWS, MOST_ROWS, PIECES, Crew, crew

CPU = torch.device("cpu")


def nothing():
    pass


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000, 4144, 21408])
@pytest.mark.parametrize("most", [1, 7, MOST_ROWS])
def test_pieces_cover_rows_once_and_evenly(count, most):
    cut = Crew(None, whole=False, poll=nothing).pieces(count, most)
    sizes = [piece.stop - piece.start for piece in cut]
    assert [piece.start for piece in cut] == [0, *(piece.stop for piece in cut[:-1])]
    assert cut[-1].stop == count
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert Crew(None, whole=True, poll=nothing).pieces(count, most) == [slice(0, count)]


@pytest.mark.parametrize("count", [1, 128, 1024, 4144, 16384, 21408])
def test_many_cores_find_work_and_few_lose_little(count):
    sizes = [p.stop - p.start for p in Crew(None, whole=False, poll=nothing).pieces(count)]
    assert max(sizes) <= MOST_ROWS
    assert len(sizes) >= min(PIECES, max(count // LEAST_ROWS, 1))
    assert min(sizes) > LEAST_ROWS // 2 or len(sizes) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_piece_is_taken_once_on_one_blas_thread(threads):
    seen, blas, lock = [], set(), threading.Lock()

    def work(piece):
        with lock:
            seen.append(piece)
            blas.add(torch.get_num_threads())
            assert torch.is_inference_mode_enabled()

    with crew(CPU, threads, nothing) as workers, torch.inference_mode():
        workers.over(5000, work)
        assert (workers.executor is None) == (threads == 1)
    assert sorted(seen, key=lambda piece: piece.start) == workers.pieces(5000)
    assert blas == {1}


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_piece_raises_is_raised_and_all_is_put_back(threads):
    before, active = torch.get_num_threads(), threading.active_count()

    def work(piece):
        raise ValueError(piece.start)

    with pytest.raises(ValueError, match=r"^0$"), crew(CPU, threads, nothing) as workers:
        workers.over(5000, work)
    assert torch.get_num_threads() == before
    assert threading.active_count() == active


def test_a_device_gets_everything_at_once():
    before = torch.get_num_threads()
    with crew(torch.device("cuda"), 4, nothing) as workers:
        assert workers.whole
        assert workers.executor is None
        assert torch.get_num_threads() == before
