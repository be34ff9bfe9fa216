"""What is saved is loaded to the bit, and what is damaged, newer or foreign is refused."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.things import TABLE, Clashing, Leaf, Stranger, Tree
from turnout.core import artifact
from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import ArtifactError, ArtifactVersionError, NotFittedError, UnknownNameError
from turnout.core.registry import Registry


@pytest.fixture(autouse=True)
def small_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let artifacts know the classes of `things` alone."""
    registry = Registry("features", TABLE)
    monkeypatch.setattr(artifact, "find_registry", lambda room: registry)


def leaf(value: float = 1.5) -> Leaf:
    return Leaf(rate=value).learn(np.array([[value, np.nan], [-0.0, np.inf]]))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and give it a checksum that fits, as a careful forger would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_sha256"]
    change(manifest)
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**manifest, "manifest_sha256": checksum}))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int8, np.uint8, np.bool_])
def test_an_array_survives_to_the_bit(tmp_path: Path, dtype: Any) -> None:
    x = np.arange(12).reshape(3, 4)[:, ::2].astype(dtype)
    loaded = artifact.load(artifact.save(Leaf().learn(x), tmp_path / "new" / "deep"))
    assert isinstance(loaded, Leaf)
    assert loaded.x_ is not None
    assert loaded.x_.dtype == dtype
    np.testing.assert_array_equal(loaded.x_, x)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_an_empty_array_and_a_scalar_survive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    loaded = artifact.load(artifact.save(Leaf().learn(np.full(shape, 7.0)), tmp_path))
    assert isinstance(loaded, Leaf)
    assert loaded.x_ is not None
    assert loaded.x_.shape == shape


def test_every_kind_of_setting_survives(tmp_path: Path) -> None:
    pool = (Candidate(model="owl", price_card=PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)),)
    tree = Tree(
        goal=Goal(usd_per_quality=math.inf, risk=0.1),
        budget=Budget(price=math.inf, min_quality=0.5),
        pool=pool,
        name="\u00e9\u4f60 $object",
        is_tall=True,
        height=7,
    )
    loaded = artifact.load(artifact.save(tree, tmp_path))
    assert loaded.config() == tree.config()
    assert repr(loaded) == repr(tree)


def test_fitted_objects_among_the_settings_and_parts_keep_their_own_arrays(tmp_path: Path) -> None:
    tree = Tree(leaf=leaf(1.0), leaves=(leaf(2.0), leaf(3.0)))
    tree.parts = {"a": leaf(4.0), "b": Tree(leaves=(leaf(5.0),))}
    loaded = artifact.load(artifact.save(tree, tmp_path))
    assert isinstance(loaded, Tree)
    inner = loaded.parts["b"]
    assert isinstance(inner, Tree)
    found = [loaded.leaf, *loaded.leaves, loaded.parts["a"], *inner.leaves]
    values = [one.x_[0, 0] for one in found if isinstance(one, Leaf) and one.x_ is not None]
    assert values == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_setting_that_has_learned_nothing_is_loaded_as_such(tmp_path: Path) -> None:
    loaded = artifact.load(artifact.save(Tree(leaf=Leaf(rate=3.0)), tmp_path))
    assert isinstance(loaded, Tree)
    assert loaded.leaf is not None
    assert not loaded.leaf.is_fitted
    assert loaded.leaf.rate == 3.0


def test_what_is_said_about_an_artifact_is_kept(tmp_path: Path) -> None:
    artifact.save(leaf(), tmp_path, about={"table": "abc", "rows": 3})
    manifest = artifact.read_manifest(tmp_path)
    assert manifest["about"] == {"table": "abc", "rows": 3}
    assert manifest["format"] == artifact.FORMAT


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = artifact.save(leaf(), tmp_path / "a"), artifact.save(leaf(), tmp_path / "b")
    for name in ("manifest.json", "tensors.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_saving_over_an_artifact_replaces_it(tmp_path: Path) -> None:
    artifact.save(leaf(1.0), tmp_path)
    artifact.save(leaf(2.0), tmp_path)
    loaded = artifact.load(tmp_path)
    assert isinstance(loaded, Leaf)
    assert loaded.rate == 2.0


def test_a_folder_with_both_files_is_an_artifact(tmp_path: Path) -> None:
    assert not artifact.is_artifact(tmp_path)
    artifact.save(leaf(), tmp_path)
    assert artifact.is_artifact(tmp_path)
    (tmp_path / "tensors.safetensors").unlink()
    assert not artifact.is_artifact(tmp_path)


def test_what_has_learned_nothing_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"Leaf.save was called before fit; call fit first"):
        artifact.save(Leaf(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("something")
    with pytest.raises(ArtifactError, match=r"file' is a file; allowed: a folder for the artifact"):
        artifact.save(leaf(), path)
    assert path.read_text() == "something"


@pytest.mark.parametrize("odd", [{1, 2}, {"a": 1}, np.float32(1), b"bytes", [object()]])
def test_a_setting_of_another_kind_is_refused(tmp_path: Path, odd: object) -> None:
    with pytest.raises(
        ArtifactError, match=r"the setting 'odd.*' cannot be stored; allowed: numbers, strings, None"
    ):
        artifact.save(Tree(odd=odd), tmp_path)


def test_a_class_without_a_name_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"'tests.core.things:Stranger' has no name in the room 'features'"
    ):
        artifact.save(Stranger().learn(np.zeros(1)), tmp_path)
    artifact.save(leaf(), tmp_path)
    rewrite(tmp_path, lambda manifest: manifest["object"].update(name="os.system"))
    with pytest.raises(UnknownNameError, match=r"no features entry is called 'os.system'"):
        artifact.load(tmp_path)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"state: two arrays would be stored as 'leaf.x'"):
        artifact.save(Clashing(leaf=leaf()), tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_one_flipped_bit_is_noticed(tmp_path: Path, name: str, share: float) -> None:
    path = artifact.save(leaf(), tmp_path) / name
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"is damaged; got: .*; fit it again|has another format version"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 100])
def test_a_cut_file_is_noticed(tmp_path: Path, name: str, keep: int) -> None:
    path = artifact.save(leaf(), tmp_path) / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (artifact.save(leaf(), tmp_path) / name).unlink()
    with pytest.raises(ArtifactError, match=rf"no artifact at .*: {name} cannot be read; got: 'No such file"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", '{"format": 1}', "\udcff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    artifact.save(leaf(), tmp_path)
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"forma": 1}'])
def test_a_manifest_without_a_format_says_so(tmp_path: Path, text: str) -> None:
    artifact.save(leaf(), tmp_path)
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="it is no JSON object with a member 'format'"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("version", [artifact.FORMAT + 1, 0, "1", None, 1.5])
def test_another_format_version_is_refused_before_anything_else(tmp_path: Path, version: object) -> None:
    artifact.save(leaf(), tmp_path)
    rewrite(tmp_path, lambda manifest: manifest.update(format=version, object="unreadable"))
    with pytest.raises(
        ArtifactVersionError, match=rf"has another format version; allowed: 1 to 1; got: {version!r}"
    ):
        artifact.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["config"].update(colour="red"),
        lambda tree: tree.pop("arrays"),
        lambda tree: tree["arrays"].append("y"),
        lambda tree: tree.update(config=None),
    ],
    ids=["an unknown setting", "no list of arrays", "an array that is not there", "no settings"],
)
def test_a_forged_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[Any], object]
) -> None:
    artifact.save(leaf(), tmp_path)
    rewrite(tmp_path, lambda manifest: change(manifest["object"]))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.load(tmp_path)


def test_an_unknown_kind_of_setting_is_refused(tmp_path: Path) -> None:
    artifact.save(leaf(), tmp_path)
    rewrite(tmp_path, lambda manifest: manifest["object"]["config"].update(rate={"$eval": "1"}))
    with pytest.raises(ArtifactError, match=r"the manifest holds an unknown kind of setting; got: '\$eval'"):
        artifact.load(tmp_path)


def test_tensors_of_another_format_are_refused_even_with_a_fitting_checksum(tmp_path: Path) -> None:
    artifact.save(leaf(), tmp_path)
    (tmp_path / "tensors.safetensors").write_bytes(b"\x80\x04not tensors")
    checksum = hashlib.sha256(b"\x80\x04not tensors").hexdigest()
    rewrite(tmp_path, lambda manifest: manifest.update(tensors_sha256=checksum))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.load(tmp_path)


def test_no_module_of_the_package_imports_pickle_or_lets_numpy_use_it() -> None:
    import turnout

    modules = sorted(Path(turnout.__file__).parent.rglob("*.py"))
    assert len(modules) > 30
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            source = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "shelve", "dill"} & {*names, *source}, path
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), path
