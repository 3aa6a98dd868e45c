"""data_analysis against an independent computation in Python, on random data and on the edges."""

import csv
import io
import json
import math
import random
import statistics

import pytest
from host import MIB, Failure, Host


def ask(steps, files=None, memory=64 * MIB, **request):
    return Host(files=files, memory=memory).run("data_analysis", {"steps": steps, **request})


def table(text, *steps, **more):
    return ask(list(steps), files={"t.csv": text.encode()}, file="t.csv", **more)


def close(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b


# ---- random data ----------------------------------------------------------------------------------------------

WORDS = ["rain", "sun", "snow", 'say "hi"', "a,b", "two\nlines", "crlf\r\nx", "é😀", " padded "]


def random_table(rng):
    """Rows of (kind, place, whole, real, date), with nulls, and their CSV in one of many spellings."""
    rows = []
    for _ in range(rng.choice([1, 3, 50, 700])):
        whole = rng.choice([None, rng.randint(-1000, 1000), rng.randint(-(2**53), 2**53)])
        real = rng.choice([None, round(rng.uniform(-1e3, 1e3), 3), rng.uniform(-1, 1) * 10 ** rng.randint(-9, 9)])
        date = f"20{rng.randint(0, 30):02}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        rows.append((rng.choice(WORDS), rng.choice("xyz"), whole, real, date))
    out = io.StringIO()
    separator = rng.choice(",;\t|")
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerow(["kind", "place", "whole", "real", "date"])
    writer.writerows(["" if v is None else repr(v) if isinstance(v, float) else v for v in row] for row in rows)
    text = out.getvalue()
    if rng.random() < 0.3:
        text = text.rstrip("\r\n")
    if rng.random() < 0.3:
        text = "\ufeff" + text
    return rows, text


def expected(op, values):
    values = [v for v in values if v is not None]
    if op == "count":
        return len(values)
    if op == "count_distinct":
        return len(set(values))
    if op == "sum":
        return sum(values) if all(isinstance(v, int) for v in values) else math.fsum(values)
    if not values:
        return None
    if op == "mean":
        return math.fsum(values) / len(values)
    if op == "median":
        return statistics.median(values)
    if op == "stddev":
        return statistics.stdev(values) if len(values) > 1 else None
    return {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}[op]


OPS = ["count", "sum", "mean", "min", "max", "median", "stddev", "count_distinct", "first", "last"]


@pytest.mark.parametrize("seed", range(25))
def test_groups_agree_with_python(seed):
    rng = random.Random(seed)
    rows, text = random_table(rng)
    column = rng.choice([2, 3])
    name = ["kind", "place", "whole", "real"][column]
    answer = table(
        text,
        {"group_by": ["kind", "place"], "aggregate": [{"op": op, "column": name} for op in OPS] + [{"op": "count"}]},
    )
    groups = {}
    for row in rows:
        groups.setdefault(row[:2], []).append(row[column])
    assert answer["columns"] == ["kind", "place"] + [f"{op}_{name}" for op in OPS] + ["count"]
    assert [tuple(r[:2]) for r in answer["rows"]] == list(groups)
    for got, values in zip(answer["rows"], groups.values()):
        for op, value in zip(OPS, got[2:]):
            assert close(value, expected(op, values)), (op, values)
        assert got[-1] == len(values)


@pytest.mark.parametrize("seed", range(25))
def test_filter_sort_limit_agree_with_python(seed):
    rng = random.Random(1000 + seed)
    rows, text = random_table(rng)
    bound, descending, limit = rng.uniform(-500, 500), rng.random() < 0.5, rng.choice([1, 5, 2000])
    answer = table(
        text,
        {"filter": [{"column": "real", "op": "gt", "value": bound}, {"column": "place", "op": "in", "value": ["x", "y"]}]},
        {"sort": [{"column": "real", "order": "desc" if descending else "asc"}]},
        {"limit": limit},
    )
    kept = [r for r in rows if r[3] is not None and r[3] > bound and r[1] in "xy"]
    kept.sort(key=lambda r: -r[3] if descending else r[3])
    assert answer["row_count"] == len(kept[:limit])
    for got, want in zip(answer["rows"], kept[:limit]):
        assert all(close(a, b) for a, b in zip(got, want)), (got, want)


@pytest.mark.parametrize("seed", range(10))
def test_json_and_csv_of_the_same_rows_give_the_same_answer(seed):
    rng = random.Random(2000 + seed)
    rows, text = random_table(rng)
    names = ["kind", "place", "whole", "real", "date"]
    objects = [dict(zip(names, rows[0]))] + [{k: v for k, v in zip(names, row) if v is not None} for row in rows[1:]]
    steps = [{"group_by": "place", "aggregate": [{"op": op, "column": "real"} for op in OPS]}, {"sort": "place"}]
    files = {
        "a.csv": text.encode(),
        "a.json": json.dumps(objects, indent=rng.choice([None, 1])).encode(),
        "a.jsonl": "\n".join(json.dumps(o) for o in objects).encode(),
    }
    answers = [ask(steps, files=files, file=name)["rows"] for name in files]
    answers.append(ask(steps, data=objects)["rows"])
    for other in answers[1:]:
        for a, b in zip(answers[0], other):
            assert all(close(x, y) for x, y in zip(a, b))


# ---- CSV edges ------------------------------------------------------------------------------------------------


def test_quotes_newlines_and_empty_lines():
    answer = table('a,b\r\n"x ""y""","1\n2"\r\n\r\n"",3\n')
    assert answer["rows"] == [['x "y"', "1\n2"], [None, "3"]]


def test_leading_zeros_stay_text_and_numbers_become_numbers():
    answer = table("zip,n\n00123,1.50\n00456,2\n")
    assert answer["rows"] == [["00123", 1.5], ["00456", 2]]


def test_missing_words_are_null_only_among_numbers():
    answer = table("n,t\n1,NA\nNA,b\n3,c\n", {"describe": True})
    by_name = {row[0]: dict(zip(answer["columns"], row)) for row in answer["rows"]}
    assert by_name["n"]["nulls"] == 1 and by_name["n"]["mean"] == 2
    assert by_name["t"]["nulls"] == 0 and by_name["t"]["distinct"] == 3


def test_ragged_records_are_kept_and_told():
    answer = table("a,b\n1\n1,2,3\n4,5\n")
    assert answer["rows"] == [[1, None], [1, 2], [4, 5]]
    assert "2 records" in answer["notes"][0] and "line 2" in answer["notes"][0]


def test_header_names_are_made_unique():
    assert table("a,a,,a\n1,2,3,4\n")["columns"] == ["a", "a_2", "column_3", "a_3"]


def test_a_file_without_header():
    answer = table("1,x\n2,y\n", header=False)
    assert answer == {"columns": ["column_1", "column_2"], "rows": [[1, "x"], [2, "y"]], "row_count": 2}


def test_an_unclosed_quote_names_its_line():
    with pytest.raises(Failure, match="line 3 has a quote that is never closed"):
        table('a\n1\n"open\n2\n')


def test_bytes_that_are_no_utf8_are_shown_as_such():
    answer = ask([], files={"l.csv": "n\xe4me\nM\xfcller\n".encode("latin-1")}, file="l.csv")
    assert answer["columns"] == ["n\ufffdme"] and answer["rows"] == [["M\ufffdller"]]
    assert "not UTF-8" in answer["notes"][0]


def test_a_record_longer_than_the_window_and_one_beyond_the_limit():
    long = "x" * 1_000_000
    assert table(f"a,b\n{long},1\n", {"aggregate": {"op": "sum", "column": "b"}})["rows"] == [[1]]
    with pytest.raises(Failure, match="longer than 4 MiB"):
        table('a\n"' + "x" * 9_000_000)


@pytest.mark.parametrize("size", range(262130, 262150))
def test_records_across_the_read_window(size):
    text = "a,b\n" + "y" * (size - 20) + ',"q ""z"""\n1,"2\n3"\n4,5'
    answer = table(text, {"select": ["b"]})
    assert answer["rows"] == [['q "z"'], ["2\n3"], ["5"]]


# ---- numbers --------------------------------------------------------------------------------------------------


def test_whole_sums_are_exact_and_overflow_is_told():
    big = 9_007_199_254_740_993
    assert table(f"n\n{big}\n1\n", {"aggregate": {"op": "sum", "column": "n"}})["rows"] == [[big + 1]]
    answer = table("n\n9223372036854775807\n9223372036854775807\n", {"aggregate": {"op": "sum", "column": "n"}})
    assert close(answer["rows"][0][0], 2.0 * (2**63 - 1)) and "64 bits" in answer["notes"][0]


def test_sums_of_reals_do_not_lose_small_values():
    text = "n\n1e100\n1.5\n-1e100\n" * 1000
    text = "n\n" + text.replace("n\n", "")
    assert table(text, {"aggregate": {"op": "sum", "column": "n"}})["rows"] == [[1500.0]]


@pytest.mark.parametrize("word", ["0", "-0.0", "1e308", "1e-320", "123456789012345678901234567890", ".5", "5.", "0.1", "1E+2"])
def test_numbers_read_as_python_reads_them(word):
    rows = ask([{"aggregate": {"op": "max", "column": "n"}}], data="n\n1\n".replace("1", word), format="csv")["rows"]
    value = rows[0][0]
    assert float(value) == float(word)


def test_a_mean_of_text_is_an_error_and_stray_text_is_a_note():
    with pytest.raises(Failure, match='holds only text, such as "x" at line 2'):
        table("n\nx\ny\n", {"aggregate": {"op": "mean", "column": "n"}})
    answer = table("n\n1\n2\nx\n", {"aggregate": {"op": "mean", "column": "n"}})
    assert answer["rows"] == [[1.5]] and 'first "x" at line 4' in answer["notes"][0]


# ---- steps ----------------------------------------------------------------------------------------------------


def test_aggregates_over_no_rows():
    answer = table("n\n", {"aggregate": [{"op": "count"}, {"op": "sum", "column": "n"}, {"op": "mean", "column": "n"}]})
    assert answer["rows"] == [[0, 0, None]]
    assert table("n\n", {"group_by": "n", "aggregate": {"op": "count"}})["rows"] == []


def test_derive_dates_and_arithmetic():
    answer = table(
        "d,a,b\n2024-02-29,6,4\n2024/12/31,1,0\nnot a date,,2\n",
        {"derive": {"as": "m", "op": "month", "column": "d"}},
        {"derive": {"as": "w", "op": "weekday", "column": "d"}},
        {"derive": {"as": "q", "op": "divide", "column": "a", "other": "b"}},
        {"derive": {"as": "a", "op": "multiply", "column": "a", "value": 2}},
    )
    assert answer["columns"] == ["d", "a", "b", "m", "w", "q"]
    assert [r[1:2] + r[3:] for r in answer["rows"]] == [
        [12, 2, "Thursday", 1.5],
        [2, 12, "Tuesday", None],
        [None, None, None, None],
    ]
    assert any("not a date" in note for note in answer["notes"])


def test_dates_compare_as_dates_whatever_their_spelling():
    answer = table("d\n2012/01/05\n2012/02/01\n", {"filter": {"column": "d", "op": "ge", "value": "2012-02-01"}})
    assert answer["rows"] == [["2012/02/01"]]


def test_null_matches_only_is_null():
    text = "n,k\n1,a\n,b\n"
    for op, value, want in [("ne", 5, ["a"]), ("lt", 5, ["a"]), ("is_null", None, ["b"]), ("not_null", None, ["a"])]:
        answer = table(text, {"filter": {"column": "n", "op": op, "value": value}}, {"select": ["k"]})
        assert [r[0] for r in answer["rows"]] == want, op


def test_distinct_select_offset_and_numbers_given_as_text():
    text = "a,b\nx,1\nx,1\ny,2\nz,3\n"
    assert table(text, {"distinct": True})["row_count"] == 3
    assert table(text, {"distinct": ["a"]}, {"limit": {"count": 1, "offset": 1}})["rows"] == [["y"]]
    assert table(text, {"filter": {"column": "b", "value": "2"}})["rows"] == [["y", 2]]


def test_more_rows_than_are_returned_are_still_counted():
    answer = table("n\n" + "1\n" * 5000)
    assert answer["row_count"] == 5000 and len(answer["rows"]) == 1000
    assert "first 1000 of 5000" in answer["notes"][0]


@pytest.mark.parametrize(
    "step, message",
    [
        ({"filter": {"column": "nn", "value": 1}}, 'no column "nn" at this step; the columns are: n, t'),
        ({"filter": {"column": "N", "value": 1}}, 'did you mean "n"'),
        ({"filter": {"column": "n", "op": "like", "value": 1}}, 'unknown op "like"'),
        ({"filter": {"column": "n", "op": "in", "value": 1}}, "in needs a list"),
        ({"group_by": ["t"]}, "needs aggregate beside it"),
        ({"aggregate": {"op": "mode", "column": "n"}}, 'unknown op "mode"'),
        ({"aggregate": {"op": "sum"}}, 'sum needs a "column"'),
        ({"sort": [{"column": "n", "order": "up"}]}, '"order" is asc or desc'),
        ({"limit": -1}, "limit must be a number"),
        ({"limit": 1, "sort": "n"}, "exactly one of"),
        ({"pivot": 1}, "exactly one of filter"),
        ({"derive": {"as": "x", "op": "sqrt", "column": "n"}}, "unknown op"),
    ],
)
def test_errors_say_what_where_and_how(step, message):
    with pytest.raises(Failure) as failure:
        table("n,t\n1,a\n", step)
    assert message in failure.value.message


def test_wrong_sources():
    for request, message in [
        ({"file": "no.csv"}, 'no file "no.csv"'),
        ({}, 'give either "file"'),
        ({"file": "a", "data": []}, 'give either "file"'),
        ({"data": [1]}, "each row must be a JSON object"),
        ({"data": '[{"a": 1}', "format": "json"}, "not closed"),
        ({"data": '{"a": 1}\n{"a": }', "format": "jsonl"}, "line 2 is not valid"),
        ({"data": ""}, "empty"),
    ]:
        with pytest.raises(Failure) as failure:
            ask([], **request)
        assert message in failure.value.message


def test_limits_are_named():
    text = "id,v\n" + "".join(f"{i},{i}\n" for i in range(210_000))
    with pytest.raises(Failure, match="more than 100000 groups") as failure:
        table(text, {"group_by": "id", "aggregate": {"op": "count"}})
    assert failure.value.code == "limit"
    with pytest.raises(Failure, match="sort holds at most 200000 rows"):
        table(text, {"sort": "v"})
    top = table(text, {"sort": [{"column": "v", "order": "desc"}]}, {"limit": 3})
    assert [r[1] for r in top["rows"]] == [209_999, 209_998, 209_997]


def test_a_hundred_megabytes_within_sixty_four():
    row = "2012-03-04,rain,12.5,some more text to fill the line up\n"
    data = ("date,weather,temp,note\n" + row * (100_000_000 // len(row))).encode()
    host = Host(files={"big.csv": data}, memory=64 * MIB, fuel=60_000_000_000)
    steps = [{"group_by": "weather", "aggregate": [{"op": "mean", "column": "temp"}, {"op": "median", "column": "temp"}]}]
    answer = host.run("data_analysis", {"file": "big.csv", "steps": steps})
    assert answer["rows"] == [["rain", 12.5, 12.5]]
    print(f"{len(data) / host.seconds / 1e6:.0f} MB/s, {host.memory_used / MIB:.0f} MiB")
