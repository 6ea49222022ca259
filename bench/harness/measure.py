"""Times an operation in a state: in this process by turns, or in a fresh process for each round.

Invariants:
- Engines take turns within each round, whatever the state.
- A round of a fresh process begins when its packages are imported and, unless opening is what is
  timed, its database is open.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.harness.context import Context
from bench.harness.line import AMBER, Line
from bench.harness.operation import Notes, Operation
from bench.harness.process import turn
from bench.harness.row import Row
from bench.harness.sampler import Sampler, garbage_apart
from bench.harness.stage import BLOCK, Stage
from bench.harness.state import State

_Contenders = Mapping[str, tuple[str, Callable[[Any, Any], object]]]


def timed(context: Context, row: Row, place: int, state: State) -> Line:
    """The line of the row's operation number `place`."""
    operation: Operation[Any, Any] = row.operations[place]
    context.say(f"row {row.name}, {state.name}: {operation.title.format(scale=context.scale)}")
    base = context.base(operation.family)
    names = base.names(operation.kinds)
    notes: Notes = {
        note: why
        for note, why in base.left_out.items()
        if not operation.kinds or note.removeprefix("left out: ") in operation.kinds
    }
    if state.is_killed and (unable := [name for name in names if not base.kind(name).recovers]):
        names = [name for name in names if name not in unable]
        notes |= {f"left out: {name}": "loses commits in a kill" for name in unable}
    samplers = {name: Sampler(operation.documents) for name in operation.contenders(names)}
    with garbage_apart():
        if state.in_process:
            notes |= _by_turns(context, operation, state, names, samplers)
        else:
            notes |= _by_processes(context, row, place, state, names, samplers)
    notes |= {
        f"ef of {name}": ef
        for name in names
        if (ef := base.options[name].get("ef")) and not getattr(base.kind(name), "is_exact", False)
    }
    return Line(
        row.name,
        operation.title.format(scale=context.scale),
        "us",
        {name: sampler.measured() for name, sampler in samplers.items()},
        operation.budget,
        notes,
        state=state.name,
    )


def _by_turns(
    context: Context,
    operation: Operation[Any, Any],
    state: State,
    names: Sequence[str],
    samplers: Mapping[str, Sampler],
) -> Notes:
    notes: Notes = {}
    for number in range(operation.family.rounds(context.scale)):
        if operation.restaged:
            with context.restaged(operation.family, state, names) as stage:
                notes |= _round(operation, stage, number, names, samplers)
        else:
            stage = context.stage(operation.family, state)
            notes |= _round(operation, stage, number, names, samplers)
    return notes


def _round(
    operation: Operation[Any, Any],
    stage: Stage[Any],
    number: int,
    names: Sequence[str],
    samplers: Mapping[str, Sampler],
) -> Notes:
    notes: Notes = {}
    opened = stage.engines()
    engines = {name: opened[name] for name in names}
    draw = stage.draw(number)
    items = operation.items(draw)
    is_checked_after = operation.writes or operation.restaged
    if number == 0 and not is_checked_after:
        notes |= _checked(operation, engines, items, draw)
    if number == 0 and operation.is_apart:
        for engine, call in operation.contenders(names).values():
            call(engines[engine], items[0])
    puts = stage.reserve(len(items)) if stage.state.alternates else range(0)
    before = stage.documents(puts) if puts else []
    for name, (engine, call) in operation.contenders(names).items():
        # The puts of a way replace documents: AmberDB's own call had them before.
        operation.time(samplers[name], engines[engine], call, items, before=before)
    if puts:
        for name, engine in opened.items():
            if name not in names:
                engine.put_many(before)
        stage.was_stored(puts)
    if number == 0 and is_checked_after:
        notes |= _checked(operation, engines, items, draw)
    return notes


def _checked(
    operation: Operation[Any, Any],
    engines: Mapping[str, Any],
    items: Sequence[Any],
    draw: Any,
) -> Notes:
    if operation.answer is None:
        return {}
    answers = {
        name: operation.answers(engine, items)
        for name, engine in engines.items()
        if operation.is_checked(name)
    }
    return operation.check(answers, draw)


def _by_processes(
    context: Context,
    row: Row,
    place: int,
    state: State,
    names: Sequence[str],
    samplers: dict[str, Sampler],
) -> Notes:
    operation: Operation[Any, Any] = row.operations[place]
    notes: Notes = {}
    stage = context.stage(operation.family, state)
    for number in range(context.scale.process_rounds):
        start = stage.reserve(BLOCK).start
        answers: dict[str, list[Any]] = {}
        for name, (engine, _) in operation.contenders(names).items():
            if name not in samplers:
                continue
            task = {
                "row": row.name,
                "place": place,
                "contender": name,
                "state": state.name,
                "number": number,
                "start": start,
            }
            try:
                with stage.turn(engine) as path:
                    found = turn(stage.task(engine, path) | task)
            except RuntimeError as error:
                if engine == AMBER:
                    raise
                del samplers[name]  # the peer's own affair: the row is measured without it
                notes[f"left out: {name}"] = str(error)
                continue
            samplers[name].add_round(
                found["elapsed_ns"],
                found["samples_ns"],
                operations=found["operations"],
                cpu_ns=found["cpu_ns"],
            )
            if name == engine and operation.is_checked(name):
                answers[name] = found["answers"]
        if operation.answer is not None:
            notes |= operation.check(answers, stage.draw(number))
    return notes
