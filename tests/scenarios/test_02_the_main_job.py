"""The main job: a question about a file, and figures that an independent computation confirms."""

import pytest

from harness.tables import figures_of, generate, is_among, means_by, numbers_in, sums_by


def analyse(nexus, name: str, content: bytes, question: str):
    """One question about one file, to the agent that is there without any configuration."""
    session = nexus.admin.open_session()
    stored = nexus.admin.upload(session, name, content)
    assert stored["bytes"] == len(content)
    return nexus.admin.ask(question, session=session)


def check_every_figure_is_traceable(outcome):
    """No figure of the answer was made up: each stands in what a tool said."""
    known = [figure for output in outcome.tool_outputs() for figure in figures_of(output)]
    figures = numbers_in(outcome.answer)
    assert figures, outcome.answer
    for figure in figures:
        digits = len(str(figure).partition(".")[2]) if figure != int(figure) else 0
        assert is_among(figure, known, digits), f"{figure} is in no tool's output: {outcome.answer}"


def test_the_seattle_weather_is_analysed_as_an_independent_computation_does(nexus, data_sets):
    content = (data_sets / "seattle-weather.csv").read_bytes()
    outcome = analyse(nexus, "seattle-weather.csv", content, "What is the average temp_max for each weather?")
    assert outcome.status == "completed", outcome.run
    figures = numbers_in(outcome.answer)
    for weather, mean in means_by(content, "weather", "temp_max").items():
        assert weather in outcome.answer
        assert is_among(mean, figures), f"{weather}: {mean} is not in {outcome.answer}"
    check_every_figure_is_traceable(outcome)


def test_a_total_by_category_is_right_too(nexus, data_sets):
    content = (data_sets / "seattle-weather.csv").read_bytes()
    outcome = analyse(nexus, "seattle-weather.csv", content, "What is the total precipitation by weather?")
    assert outcome.status == "completed", outcome.run
    figures = numbers_in(outcome.answer)
    for weather, total in sums_by(content, "weather", "precipitation").items():
        assert weather in outcome.answer and is_among(total, figures), f"{weather}: {total} is not in {outcome.answer}"


UNSEEN = [
    ("orders.csv", "region", ["north", "south", "east", "west"], "revenue", 900, 10, 5000, 2, "average"),
    ("lab.csv", "reagent", ["alpha", "beta", "gamma"], "yield_pct", 333, 0, 100, 3, "mean"),
    ("fleet.csv", "vehicle_type", ["van", "truck", "bike"], "distance_km", 1500, 1, 900, 1, "total"),
    ("payroll.csv", "Department", ["Sales", "Legal", "Research", "Support"], "Salary", 240, 28000, 140000, 0, "average"),
    ("harvest.csv", "crop", ["wheat", "rye", "barley", "oats", "maize"], "tonnes", 77, 0, 40, 2, "sum"),
]


@pytest.mark.parametrize("case", UNSEEN, ids=[case[0] for case in UNSEEN])
def test_a_file_nobody_has_seen_before_is_analysed_right(nexus, case):
    name, category, values, number, rows, low, high, digits, measure = case
    content = generate(len(name) + rows, category, values, number, rows=rows, low=low, high=high, digits=digits,
                       more={"year": ["2021", "2022", "2023"], "note": ["ok", "late", "good"]})
    outcome = analyse(nexus, name, content, f"What is the {measure} {number} for each {category}?")
    assert outcome.status == "completed", outcome.run
    expected = sums_by(content, category, number) if measure in ("total", "sum") else means_by(content, category, number)
    figures = numbers_in(outcome.answer)
    for value, figure in expected.items():
        assert value in outcome.answer and is_among(figure, figures), f"{value}: {figure} is not in {outcome.answer}"
    check_every_figure_is_traceable(outcome)


def test_the_journal_tells_the_whole_story_of_the_run(nexus, data_sets):
    content = (data_sets / "seattle-weather.csv").read_bytes()
    outcome = analyse(nexus, "seattle-weather.csv", content, "What is the highest wind for each weather?")
    kinds = [event["type"] for event in outcome.events]
    assert kinds[0] == "run.started" and kinds[-1] == "run.completed"
    for kind in ("message.added", "policy.decided", "budget.reserved", "model.requested", "model.delta", "model.completed",
                 "tool.intended", "tool.completed", "budget.settled"):
        assert kind in kinds, f"{kind} is missing: {kinds}"
    assert [event["seq"] for event in outcome.events] == list(range(1, len(kinds) + 1))
    decided = [event["data"]["action"] for event in outcome.of("policy.decided")]
    assert decided[0] == "run.start" and "model.call" in decided and "tool.call" in decided
    assert all(event["data"]["verdict"] == "allow" and event["data"]["rule"] for event in outcome.of("policy.decided"))


def test_the_answer_says_that_it_comes_from_a_stand_in_and_what_it_cost(nexus, data_sets):
    content = (data_sets / "seattle-weather.csv").read_bytes()
    outcome = analyse(nexus, "seattle-weather.csv", content, "How many days of each weather?")
    assert "stand-in" in outcome.answer
    assert outcome.run["cost"]["tokens"] > 0 and outcome.run["cost"]["tool_calls"] >= 1
    assert len(outcome.run["trace_id"]) == 32


def test_a_question_without_a_file_is_answered_too(nexus):
    outcome = nexus.admin.ask("Hello, who are you?")
    assert outcome.status == "completed" and "stand-in" in outcome.answer


def test_files_come_back_byte_for_byte_and_can_be_listed_and_removed(nexus):
    session = nexus.admin.open_session()
    content = bytes(range(256)) * 4096
    nexus.admin.upload(session, "all bytes.bin", content)
    files = f"/api/v1/sessions/{session}/files"
    assert [item["name"] for item in nexus.admin.get(files).json()["items"]] == ["all bytes.bin"]
    assert nexus.admin.get(files + "/all%20bytes.bin").content == content
    assert nexus.admin.delete(files + "/all%20bytes.bin").status_code == 204
    assert nexus.admin.get(files + "/all%20bytes.bin").status_code == 404
