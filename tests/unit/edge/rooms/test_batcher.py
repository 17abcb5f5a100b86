"""Batched store calls: order of the results, failures, and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs

from support.asyncio_fakes import VirtualLoop
from waitroom.edge.rooms.batcher import MAX_BATCH, Batcher
from waitroom.errors import StoreUnavailable


class Asking:
    """A batcher, and a store that answers on demand."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.calls: list[list[int]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.held = False
        self.batch: Batcher[int, str] = Batcher(self.call)

    async def call(self, questions: Sequence[int]) -> Sequence[str]:
        self.calls.append(list(questions))
        if self.held:
            gate: asyncio.Future[None] = self.loop.create_future()
            self.gates.append(gate)
            await gate
        return [f"{question}!" for question in questions]

    async def _asks(self, question: int) -> str:
        return await self.batch.submit(question)

    def ask(self, *questions: int) -> list[asyncio.Task[str]]:
        tasks = [self.loop.create_task(self._asks(question)) for question in questions]
        self.loop.settle()
        return tasks

    def answer(self, error: BaseException | None = None) -> None:
        gate = self.gates.pop(0)
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        self.loop.settle()

    def close(self) -> None:
        self.loop.wait(self.batch.close())


@pytest.fixture
def asking() -> Iterator[Asking]:
    asking = Asking()
    yield asking
    asking.close()
    assert not asyncio.all_tasks(asking.loop)
    assert asking.loop.errors == []
    asking.loop.close()


def test_a_single_item_is_sent_immediately(asking):
    (task,) = asking.ask(1)
    assert task.result() == "1!"
    assert asking.calls == [[1]]
    (task,) = asking.ask(2)
    assert task.result() == "2!"


def test_items_submitted_during_a_call_go_with_the_next(asking):
    asking.held = True
    (first,) = asking.ask(1)
    later = asking.ask(2, 3) + asking.ask(4)
    assert asking.calls == [[1]]
    asking.answer()
    assert first.result() == "1!"
    assert asking.calls == [[1], [2, 3, 4]]
    asking.answer()
    assert [task.result() for task in later] == ["2!", "3!", "4!"]


def test_calls_are_bounded(asking):
    asking.held = True
    tasks = asking.ask(0) + asking.ask(*range(1, 2 * MAX_BATCH + 1))
    for _ in range(3):
        asking.answer()
    assert [len(call) for call in asking.calls] == [1, MAX_BATCH, MAX_BATCH]
    assert [task.result() for task in tasks] == [f"{number}!" for number in range(2 * MAX_BATCH + 1)]


def test_a_cancelled_item_does_not_affect_the_others(asking):
    asking.held = True
    tasks = asking.ask(0) + asking.ask(1, 2, 3)
    tasks[2].cancel()
    asking.answer()
    tasks[1].cancel()
    asking.answer()
    assert asking.calls == [[0], [1, 2, 3]]
    assert [task.cancelled() for task in tasks] == [False, True, True, False]
    assert tasks[3].result() == "3!"


def test_a_failed_call_fails_its_items_and_the_next_call_is_made(asking):
    asking.held = True
    tasks = asking.ask(0) + asking.ask(1, 2)
    asking.answer(StoreUnavailable("gone"))
    assert isinstance(tasks[0].exception(), StoreUnavailable)
    asking.answer()
    assert [task.result() for task in tasks[1:]] == ["1!", "2!"]


def test_an_unexpected_error_is_logged_and_fails_the_items(asking):
    asking.held = True
    tasks = asking.ask(0) + asking.ask(1, 2)
    with capture_logs() as logs:
        asking.answer(RuntimeError("a mistake"))
    assert isinstance(tasks[0].exception(), StoreUnavailable)
    assert [entry["log_level"] for entry in logs] == ["error"]
    asking.answer()
    assert [task.result() for task in tasks[1:]] == ["1!", "2!"], "the others' call goes on"


@pytest.mark.parametrize("answers", [[], ["a"], ["a", "b", "c"]])
def test_a_wrong_number_of_results_fails_the_items(asking, answers):
    async def call(_: Sequence[int]) -> Sequence[str]:
        return answers

    asking.batch._call = call
    with capture_logs() as logs:
        tasks = asking.ask(1, 2)
    assert all(isinstance(task.exception(), StoreUnavailable) for task in tasks)
    assert [entry["log_level"] for entry in logs] == ["error"]


def test_closing_fails_the_pending_items(asking):
    asking.held = True
    tasks = asking.ask(0) + asking.ask(1)
    asking.close()
    assert all(isinstance(task.exception(), StoreUnavailable) for task in tasks)


def test_closing_before_the_call_fails_the_pending_items(asking):
    async def both() -> BaseException | None:
        answer = asking.batch.submit(1)
        await asking.batch.close()
        return answer.exception()

    assert isinstance(asking.loop.wait(both()), StoreUnavailable)
    assert asking.calls == []
