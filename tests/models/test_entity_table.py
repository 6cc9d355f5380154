"""The entity table comes back as it was saved, and a shuffled one says nothing true while looking the same."""

import json
from pathlib import Path

import pytest
import torch

from kg.errors import InputError, SnapshotMismatch
from models.entity_table import FIRST, NULL, PADDING, EntityTable
from tests.builders import tiny_snapshot


def made(count: int = 12) -> EntityTable:
    return EntityTable.random(num_entities=count, dim=4, seed=1)


def rows_of(table: EntityTable) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in table.vectors.tolist())


def test_a_table_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    vectors = torch.randn(5, 3)
    table = EntityTable(("umls:C1", "ex:née", "ex:a b"), vectors, "hash", "encoder")
    table.save(tmp_path)
    loaded = EntityTable.load(tmp_path)
    assert (loaded.ids, loaded.snapshot_hash, loaded.encoder_hash) == (table.ids, "hash", "encoder")
    assert torch.equal(loaded.vectors, table.vectors)
    assert loaded.vectors.dtype == table.vectors.dtype
    assert EntityTable.load(str(tmp_path)).ids == table.ids


def test_rows_of_entities_come_after_padding_and_null() -> None:
    assert (PADDING, NULL, FIRST) == (0, 1, 2)
    assert made(3).rows == {"random:0": 2, "random:1": 3, "random:2": 4}


@pytest.mark.parametrize("count", [2, 3, 12, 101])
@pytest.mark.parametrize("seed", [0, 1, 20])
def test_a_shuffled_table_has_the_same_vectors_and_none_at_its_own_entity(count: int, seed: int) -> None:
    table = made(count)
    shuffled = table.shuffled(seed)
    assert shuffled.ids == table.ids
    assert rows_of(shuffled) == rows_of(table)
    assert not (shuffled.vectors[FIRST:] == table.vectors[FIRST:]).all(dim=1).any()


def test_shuffling_leaves_padding_null_and_the_table_itself_alone() -> None:
    table = made()
    table.vectors[NULL] = 7.0
    before = table.vectors.clone()
    shuffled = table.shuffled(3)
    assert torch.equal(shuffled.vectors[:FIRST], before[:FIRST])
    assert torch.equal(table.vectors, before)


def test_a_seed_gives_one_shuffle_another_seed_another_and_both_are_told_apart_from_the_real_table() -> None:
    table = made()
    assert torch.equal(table.shuffled(3).vectors, table.shuffled(3).vectors)
    assert not torch.equal(table.shuffled(3).vectors, table.shuffled(4).vectors)
    assert len({table.encoder_hash, table.shuffled(3).encoder_hash, table.shuffled(4).encoder_hash}) == 3
    assert table.shuffled(3).snapshot_hash == table.snapshot_hash


def test_a_shuffle_within_groups_keeps_vectors_in_their_group_and_moves_all() -> None:
    table = made(12)
    groups = [0, 0, 0, 1, 1, 1, 1, 2, 3, 2, 2, 4]  # 3 and 4 have one entity each
    shuffled = table.shuffled(3, groups=groups)
    origin = {tuple(row.tolist()): index for index, row in enumerate(table.vectors[FIRST:])}
    came_from = [origin[tuple(row.tolist())] for row in shuffled.vectors[FIRST:]]
    assert all(index != source for index, source in enumerate(came_from))
    assert [groups[source] for source in came_from] == [0, 0, 0, 1, 1, 1, 1, 2, 4, 2, 2, 3]
    assert sorted(came_from) == list(range(12))


def test_an_emptied_table_knows_its_entities_and_nothing_of_them_and_a_random_one_has_the_lengths() -> None:
    table = made()
    assert table.emptied().ids == table.ids
    assert not table.emptied().vectors.any()
    drawn = table.randomised(3)
    assert torch.allclose(drawn.vectors.norm(dim=1), table.vectors.norm(dim=1))
    assert not torch.allclose(drawn.vectors[FIRST:], table.vectors[FIRST:])
    assert torch.equal(drawn.vectors, table.randomised(3).vectors)


def test_a_random_table_depends_on_its_seed_alone_and_is_zero_where_there_is_no_entity() -> None:
    torch.manual_seed(0)
    first = made()
    torch.manual_seed(99)
    assert torch.equal(made().vectors, first.vectors)
    assert not torch.equal(EntityTable.random(num_entities=12, dim=4, seed=2).vectors, first.vectors)
    assert first.vectors.shape == (14, 4)
    assert first.dim == 4
    assert first.vectors[:FIRST].abs().max() == 0
    assert (first.vectors[FIRST:].abs().sum(1) > 0).all()


def test_vectors_that_do_not_fit_the_entities_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows for 2 entities; expected 4"):
        EntityTable(("a", "b"), torch.zeros(3, 4), "", "")


def test_a_table_belongs_to_one_snapshot(tmp_path: Path) -> None:
    snapshot = tiny_snapshot(tmp_path / "v1")
    other = tiny_snapshot(tmp_path / "v2", names=("Acme Bank", "Zephyr Trust"), triples=[("ex:0", "OWNS", "ex:1")])
    table = EntityTable(tuple(snapshot.ids), torch.zeros(snapshot.num_entities + FIRST, 4), snapshot.hash, "")
    table.check(snapshot)
    with pytest.raises(SnapshotMismatch, match=r"built from snapshot .*v2 is"):
        table.check(other)


def test_a_folder_without_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no entity table") as caught:
        EntityTable.load(tmp_path / "nowhere")
    assert caught.value.path == tmp_path / "nowhere"


def cut_vectors(folder: Path) -> None:
    file = folder / "entity_table.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def no_vectors(folder: Path) -> None:
    (folder / "entity_table.safetensors").unlink()


def cut_ids(folder: Path) -> None:
    (folder / "entity_table.json").write_text('{"ids": ["a"')


def other_ids(folder: Path) -> None:
    about = json.loads((folder / "entity_table.json").read_text())
    (folder / "entity_table.json").write_text(json.dumps({**about, "ids": about["ids"][:-1]}))


def no_ids(folder: Path) -> None:
    (folder / "entity_table.json").write_text('{"snapshot_hash": ""}')


def a_list(folder: Path) -> None:
    (folder / "entity_table.json").write_text("[]")


@pytest.mark.parametrize("damage", [cut_vectors, no_vectors, cut_ids, other_ids, no_ids, a_list])
def test_a_broken_table_is_an_input_error_of_one_line_that_names_the_folder(damage: object, tmp_path: Path) -> None:
    made().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match="cannot be read") as caught:
        EntityTable.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
