"""DBOS on PostgreSQL: the run of durable.py as a workflow of three steps.

    dbos_peer.py URL SECONDS THREADS        prints one JSON line
"""

import json
import logging
import resource
import sys
import threading
import time

from dbos import DBOS

QUESTION = "count the words of this sentence, please"


@DBOS.step()
def model(messages: list) -> dict:
    if messages[-1]["role"] == "user":
        return {"role": "assistant", "tool_calls": [{"name": "text_processing", "arguments": {"text": QUESTION}}]}
    return {"role": "assistant", "content": "There are seven words."}


@DBOS.step()
def tool(call: dict) -> dict:
    return {"role": "tool", "content": json.dumps({"words": len(call["arguments"]["text"].split())})}


@DBOS.workflow()
def run(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    messages.append(model(messages))
    messages.append(tool(messages[-1]["tool_calls"][0]))
    messages.append(model(messages))
    return messages[-1]["content"]


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    url, seconds, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False})
    logging.getLogger("dbos").setLevel(logging.ERROR)
    DBOS.launch()
    run(QUESTION)
    done, until, used = [0] * threads, time.monotonic() + seconds, cpu()

    def caller(number: int) -> None:
        while time.monotonic() < until:
            run(QUESTION)
            done[number] += 1

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(threads)]
    begin = time.monotonic()
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    runs, wall = sum(done), time.monotonic() - begin
    print(json.dumps({"runs_per_s": runs / wall, "cpu_us_per_run": (cpu() - used) / runs * 1e6}))
    DBOS.destroy()


main()
