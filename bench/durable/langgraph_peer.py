"""LangGraph with its SQLite checkpointer: the run of durable.py, made by its own rules.

    langgraph_peer.py FOLDER SECONDS THREADS TURNS      prints one JSON line

A run is model -> tool -> model, as the offline model of Nexus answers: at once.  Durability "sync": each step's checkpoint is committed
before the next step.  One process, THREADS callers; a turn is one more run in a conversation that goes on.
"""

import json
import operator
import os
import resource
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

QUESTION = "count the words of this sentence, please"


class State(TypedDict):
    messages: Annotated[list[dict], operator.add]


def model(state: State) -> dict:
    last = state["messages"][-1]
    if last["role"] == "user":
        return {"messages": [{"role": "assistant", "tool_calls": [{"name": "text_processing", "arguments": {"text": QUESTION}}]}]}
    return {"messages": [{"role": "assistant", "content": "There are seven words."}]}


def tool(state: State) -> dict:
    call = state["messages"][-1]["tool_calls"][0]
    return {"messages": [{"role": "tool", "content": json.dumps({"words": len(call["arguments"]["text"].split())})}]}


def graph(saver: SqliteSaver):
    builder = StateGraph(State)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda s: "tool" if s["messages"][-1].get("tool_calls") else END)
    builder.add_edge("tool", "model")
    return builder.compile(checkpointer=saver)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def size(file: Path) -> int:
    return sum(os.path.getsize(f"{file}{end}") for end in ("", "-wal") if os.path.exists(f"{file}{end}"))


def ask(app, thread: str) -> None:
    app.invoke({"messages": [{"role": "user", "content": QUESTION}]}, {"configurable": {"thread_id": thread}}, durability="sync")


def main() -> None:
    folder, seconds, threads, turns = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    file = folder / "langgraph.db"
    connection = sqlite3.connect(file, check_same_thread=False)
    app = graph(SqliteSaver(connection))
    ask(app, "warm")
    connection.execute("PRAGMA synchronous=FULL")
    done, until, used = [0] * threads, time.monotonic() + seconds, cpu()

    def caller(number: int) -> None:
        while time.monotonic() < until:
            ask(app, f"{number}-{done[number]}")
            done[number] += 1

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(threads)]
    begin = time.monotonic()
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    runs, wall, used = sum(done), time.monotonic() - begin, cpu() - used
    report = {"runs_per_s": runs / wall, "cpu_us_per_run": used / runs * 1e6, "bytes_per_run": size(file) / runs}

    file = folder / "langgraph-turns.db"
    app = graph(SqliteSaver(sqlite3.connect(file, check_same_thread=False)))
    sizes = []
    for turn in range(turns):
        ask(app, "one")
        if (turn + 1) % (turns // 10) == 0:
            sizes.append(size(file))
    tenth = turns // 10
    report["bytes_per_turn_first"] = sizes[0] / tenth
    report["bytes_per_turn_last"] = (sizes[-1] - sizes[-2]) / tenth
    print(json.dumps(report))


main()
