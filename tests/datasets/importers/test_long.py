"""A long table of one's own is read: any kind of file, any names, and every fault with its line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.datasets.tables import check_sentence, column, extra, write
from turnout.cli.main import main
from turnout.core import InputError, TableError
from turnout.datasets import detect, load, read

CSV = """\
id,prompt,model,score,cost,category,split
1,"Say hello,
please",small,0.5,0.001,chat,train
1,,large,1,0.01,,
2,Add 2 and 3,small,,0.002,maths,test
"""


def records(path: Path, *rows: dict[str, object]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_known_names_need_no_telling(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", CSV)
    assert detect(path) == "long"
    table = load(path)
    assert [(q.id, q.text, q.task) for q in table.queries] == [
        ("1", "Say hello,\nplease", "chat"),
        ("2", "Add 2 and 3", "maths"),
    ]
    assert table.splits == ("train", "test")
    assert column(table, "quality") == {("1", "small"): 0.5, ("1", "large"): 1.0, ("2", "small"): None}
    assert column(table, "cost_usd")["1", "large"] == 0.01


@pytest.mark.parametrize("kind", ["csv", "crlf", "bom", "jsonl", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, object]] = [
        {"query": '\u00dcn\u00ef, "quoted"\nline', "llm": "a", "quality": 0.25, "task": "t"},
        {"query": '\u00dcn\u00ef, "quoted"\nline', "llm": "b", "quality": None, "task": "t"},
        {"query": "second", "llm": "a", "quality": 1.0, "task": None},
    ]
    path = tmp_path / f"x.{kind}"
    if kind in ("csv", "crlf", "bom"):
        end = "\r\n" if kind == "crlf" else "\n"
        text = end.join(
            [
                "query,llm,quality,task",
                '"\u00dcn\u00ef, ""quoted""\nline",a,0.25,t',
                '"\u00dcn\u00ef, ""quoted""\nline",b,,t',
                "second,a,1,",
                "",
            ]
        )
        path = tmp_path / "x.csv"
        path.write_bytes((b"\xef\xbb\xbf" if kind == "bom" else b"") + text.encode())
    elif kind == "jsonl":
        records(path, *rows)
    elif kind == "json":
        write(path, json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    table = load(path)
    assert table.names == ("a", "b")
    assert [(q.text, q.task) for q in table.queries] == [
        ('\u00dcn\u00ef, "quoted"\nline', "t"),
        ("second", None),
    ]
    np.testing.assert_array_equal(table.quality_QM, [[0.25, np.nan], [1.0, np.nan]])


def test_a_parquet_file_of_any_name_is_known_by_its_bytes(tmp_path: Path) -> None:
    rows = [{"query_id": 7, "model": "a", "score": 3.0}, {"query_id": 7, "model": "b", "score": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "export")
    table = read(tmp_path / "export", options={"scale": (1, 5)})
    assert column(table, "quality") == {("7", "a"): 0.5, ("7", "b"): None}
    with pytest.raises(TableError) as caught:
        read(tmp_path / "export")
    check_sentence(caught, "export', row 0: quality of 'a'", "[0, 1]", "got: 3.0", "--scale 0,100")


def test_columns_scale_ignored_and_dropped_rows_are_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "frage,wer,note,usd,state,junk\nhi,a,1,0.5,ok,x\nhi,b,6,0.5,ok,y\nho,a,NaN,,ok,z\nho,b,3,1,failed,\n",
    )
    table = read(
        path,
        format_name="long",
        options={
            "columns": {"text": "frage", "model": "wer", "quality": "note", "cost_usd": "usd"},
            "scale": (6, 1),
            "ignore": ["junk"],
            "drop": {"state": "failed"},
            "missing": ["NaN"],
        },
    )
    assert column(table, "quality") == {("a/0", "a"): 1.0, ("a/0", "b"): 0.0, ("a/1", "a"): None}
    assert "state" not in table.extras


def test_prices_give_cards_and_the_cost_of_counted_tokens(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    write(
        prices,
        '{"date": "2026-11-01", "models": {"a": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10}, '
        '"unused": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}}}',
    )
    path = records(
        tmp_path / "a.jsonl",
        {"query": "x", "model": "a", "quality": 1, "prompt_tokens": 1000, "completion_tokens": 100},
        {"query": "y", "model": "a", "quality": 1, "prompt_tokens": 1000, "completion_tokens": None},
        {"query": "z", "model": "a", "quality": 1, "cost": 0.5, "prompt_tokens": 1, "completion_tokens": 1},
        {"query": "z", "model": "b", "quality": 1, "prompt_tokens": 1, "completion_tokens": 1},
    )
    table = read(path, format_name="long", options={"prices": prices})
    assert column(table, "cost_usd") == {
        ("a/0", "a"): pytest.approx(0.002),
        ("a/1", "a"): None,
        ("a/2", "a"): 0.5,
        ("a/2", "b"): None,
    }
    assert table.candidates[0].price_card is not None
    assert table.candidates[1].price_card is None
    for bad, part in (("[]", "is no price file"), ('{"models": {"a": {}}}', "input_usd_per_mtok of 'a'")):
        with pytest.raises(TableError, match=part):
            read(path, format_name="long", options={"prices": write(prices, bad)})


def test_answers_are_kept_and_blanks_around_names_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,model,quality,answer\n1, a,1,  as it is \n 1,a ,0,\n2,a,1,\n")
    with pytest.raises(TableError) as caught:
        load(path)
    check_sentence(caught, "a.csv', line 3 repeats", "'a' of ", "line 2", "repeats='sample'")
    table = read(path, options={"repeats": "sample"})
    assert table.sample.tolist() == [0, 1, 0]
    assert table.queries[0].text is None
    assert extra(table, "response")["2", "a"] is None
    assert "  as it is " in table.extras["response"]


FAULTS = [
    ("id,model,quality\n1,a,yes\n", ("line 2: column 'quality'", "a finite number", "got: 'yes'")),
    ("id,model,quality\n1,a,nan\n", ("line 2: column 'quality'", "empty", "got: 'nan'")),
    ("id,model,quality\n1,a,inf\n", ("line 2: column 'quality'", "got: 'inf'")),
    ("id,model,quality,cost\n1,a,1,-2\n", ("line 2: cost_usd of 'a'", "at least 0", "got: -2.0")),
    ("id,model,quality\n1,,1\n", ("line 2: column 'model'", "the name of a model")),
    ("id,text,model,quality\n,,a,1\n", ("line 2: the query", "an id or a text")),
    ("id,model,quality,notes\n1,a,1,x\n", ("line 1: columns that nothing explains", "['notes']", "'ignore'")),
    ("id,model,quality,score\n1,a,1,1\n", ("line 1: several columns may be the quality", "quality=quality")),
    ("id,model\n1,a\n", ("line 1: no column holds quality", "option 'columns'", "quality=NAME")),
    ("id,model,quality\n", ("holds no outcome",)),
    ("id,model,quality\n1,a\n", ("line 2: wrong number of cells", "got: 2")),
    (
        "id,text,model,quality\n1,hi,a,1\n\n1,ho,b,1\n",
        (
            "line 4: text of the query '1' differs from ",
            "line 2",
            "allowed: 'hi', or nothing; got: 'ho'",
            "got: 'ho'",
        ),
    ),
    ("id,split,model,quality\n1,train,a,1\n1,test,b,1\n", ("line 3: split of the query '1' differs",)),
]


@pytest.mark.parametrize(("text", "parts"), FAULTS)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(TableError) as caught:
        read(path, format_name="long")
    check_sentence(caught, "a.csv'", *parts)


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ({"id": True, "model": "a", "quality": 1}, ("line 2: column 'id'", "text, or a whole number")),
        ({"id": 1, "model": ["a"], "quality": 1}, ("line 2: column 'model'",)),
        ({"id": 1, "model": "b", "quality": {"x": 1}}, ("line 2: column 'quality'", "a finite number")),
        ({"id": 1, "model": "b"}, ("line 2: no column holds quality",)),
        (
            {"id": 1, "model": "b", "quality": 1, "new": 1},
            ("line 2: columns that nothing explains", "['new']"),
        ),
    ],
)
def test_records_of_mixed_kinds_are_checked_one_by_one(
    tmp_path: Path, record: dict[str, object], parts: tuple[str, ...]
) -> None:
    path = records(tmp_path / "a.jsonl", {"id": "1", "model": "a", "quality": "0.5"}, record)
    with pytest.raises(TableError) as caught:
        load(path)
    check_sentence(caught, "a.jsonl'", *parts)


def test_a_record_may_lack_what_another_has_and_ids_are_compared_as_text(tmp_path: Path) -> None:
    path = records(
        tmp_path / "a.jsonl",
        {"id": 1, "model": "a", "quality": True},
        {"id": "1", "model": "b", "quality": 0, "text": "told later", "task": "t", "split": "test"},
        {"id": 1.0, "model": "c", "quality": 0, "error": "timeout"},
    )
    table = read(path, options={"drop": {"error": "timeout"}})
    assert [(q.id, q.text, q.task) for q in table.queries] == [("1", "told later", "t")]
    assert table.splits == ("test",)
    assert column(table, "quality") == {("1", "a"): 1.0, ("1", "b"): 0.0}
    with pytest.raises(TableError, match=r"no column is called 'eror'; .*did you mean 'error'"):
        read(path, options={"ignore": ["error"], "drop": {"eror": "timeout"}})


def test_python_s_nan_is_refused_in_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 1, "model": "a", "quality": NaN}\n')
    with pytest.raises(TableError, match="write null for unknown"):
        read(path, format_name="long")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"columns": {"modle": "x"}}, "did you mean 'model'"),
        ({"columns": {"model": "nobody"}}, "no column is called 'nobody'"),
        ({"drop": {"stat": "x"}}, "no column is called 'stat'"),
        ({"scale": (1, 1)}, "two different numbers"),
        ({"sclae": (0, 1)}, "has no option 'sclae'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object], part: str) -> None:
    path = write(tmp_path / "a.csv", "id,model,quality\n1,a,1\n")
    with pytest.raises((InputError, TableError), match=part):
        read(path, format_name="long", options=options)


def test_another_project_s_format_that_fits_comes_first(tmp_path: Path) -> None:
    path = records(tmp_path / "a.jsonl", {"query": "x", "model_name": "a", "performance": 1, "token_num": 3})
    assert detect(path) == "llmrouter"
    assert read(path, format_name="long", options={"ignore": ["token_num"]}).num_rows == 1


def test_a_hundred_thousand_rows_are_read_with_progress(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("query,model,score,task\n")
        for query in range(10_000):
            file.writelines(f'"question {query},\nin two lines",m{m},0.5,t\n' for m in range(10))
    steps: list[tuple[int, int]] = []
    started = time.process_time()
    table = read(path, progress=lambda _, done, total: steps.append((done, total)))
    assert time.process_time() - started < 20.0
    assert (len(table.queries), table.num_rows) == (10_000, 100_000)
    assert len(steps) == 50
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {total for _, total in steps} == {200_001}


def test_the_command_passes_every_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "frage,model,note,state,junk\nhi,a,1,ok,x\nhi,a,3,ok,y\nhi,b,-,ok,z\nho,b,3,failed,\n"
    command = [
        "import",
        str(write(tmp_path / "a.csv", text)),
        "--out",
        str(tmp_path / "t"),
        "--force",
        "--json",
    ]
    command += ["--column", "text=frage", "--column", "quality=note", "--scale", "1,5", "--ignore", "junk"]
    command += ["--drop", "state=failed", "--missing=-,none", "--repeats", "sample"]
    assert main(command) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["format"], about["rows"], about["queries"]) == ("long", 3, 1)
    table = load(tmp_path / "t")
    assert table.quality[:2].tolist() == [0.0, 0.5]
    assert np.isnan(table.quality[2])
    for wrong, part in (
        (["--scale", "1-5"], "--scale"),
        (["--column", "text"], "--column"),
        (["--option", "sclae=1"], "has no option 'sclae'"),
    ):
        assert main([*command, *wrong]) != 0
        assert part in capsys.readouterr().err


def test_the_command_passes_options_of_other_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.csv", "question,a/b/score\nhi,7\n")
    command = ["import", str(path), "--out", str(tmp_path / "t"), "--json", "--scale", "1,10"]
    assert main([*command, "--option", 'prompt_column="question"']) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "notdiamond"
    assert load(tmp_path / "t").quality.tolist() == pytest.approx([2 / 3])


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_spreadsheets_semicolons_and_tabs_stand_between_cells_too(tmp_path: Path, sign: str) -> None:
    lines = ["question, as asked|llm|points", "add 1, 2|small|0.5", '"a|b"|small|', "add 1, 2|large|1"]
    path = write(tmp_path / "mine.csv", "".join(line.replace("|", sign) + "\n" for line in lines))
    table = read(path, options={"columns": {"text": "question, as asked", "quality": "points"}})
    assert table.names == ("small", "large")
    assert [query.text for query in table.queries] == ["add 1, 2", f"a{sign}b"]
    assert np.nansum(table.quality_QM) == 1.5
    known = write(
        tmp_path / "known.txt",
        path.read_text().replace("question, as asked", "text").replace("points", "score"),
    )
    assert detect(known) == "long"


def test_columns_that_nobody_knows_lead_to_the_command_that_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "Frage,Modell,Punkte\nsag hallo,klein,gut\n")
    with pytest.raises(InputError, match="--column text=NAME --column model=NAME --column quality=NAME"):
        load(path)
    columns = {"text": "Frage", "model": "Modell", "quality": "Punkte"}
    with pytest.raises(TableError, match=r"got: 'gut'; .*--missing"):
        read(path, options={"columns": columns})
