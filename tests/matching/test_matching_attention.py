"""`pairs: auto` of the losses between attention modules: what is found, how it is paired, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

import tutelage as tt
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import AttentionMap, AttentionRelation, HiddenState, KLDivergence, ValueRelation
from tutelage.losses.routed import Routed
from tutelage.matching.blocks import find_attention, token_maps
from tutelage.plan import propose_pairs
from tutelage.recipe import Match
from tutelage.signals import Batch

WIDTH, TOKENS = 8, 5


class Attention(nn.Module):
    """Self-attention with one head, its projections under the given names."""

    def __init__(self, query: str, key: str, value: str) -> None:
        super().__init__()
        self.names = (query, key, value)
        for name in self.names:
            self.add_module(name, nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        q, k, v = (self.get_submodule(name) for name in self.names)
        memory = x if memory is None else memory
        return torch.softmax(q(x) @ k(memory).mT, -1) @ v(memory)


class Block(nn.Module):
    """Self-attention, attention to a sequence of another length if so, and a feed-forward part."""

    def __init__(self, names: tuple[str, str, str], *, crossed: bool) -> None:
        super().__init__()
        self.attention = Attention(*names)
        self.crossed = Attention(*names) if crossed else None
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        if self.crossed is not None:
            x = x + self.crossed(x, x[:, :2])
        return x + self.down(self.up(x).relu())


class Network(nn.Module):
    def __init__(self, depth: int, names: tuple[str, str, str] = ("query", "key", "value"), *, crossed: bool = False):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(names, crossed=crossed) for _ in range(depth)))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


OTHER = ("q_lin", "k_lin", "v_lin")
THEIRS = {"teacher_query": "q_lin", "teacher_key": "k_lin"}


def recipe(*losses: Any, **changes: Any) -> tt.Recipe:
    """A teacher of six blocks whose projections have names of their own, and a student of three."""
    torch.manual_seed(0)
    inputs = np.random.default_rng(0).normal(size=(60, TOKENS, WIDTH)).astype(np.float32)
    settings = {
        "name": "attention",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(inputs, np.arange(60) % 3)),
        "teacher": tt.ModuleTeacher(Network(6, OTHER, crossed=True)),
        "student": tt.ModuleStudent(lambda: Network(3)),
        "losses": [KLDivergence(), *losses],
        "training": tt.Training(steps=2, batch_size=8),
    }
    return tt.Recipe(**(settings | changes))


def attention_map(**arguments: Any) -> AttentionMap:
    return AttentionMap("auto", student_heads=1, teacher_heads=1, **arguments)


def pairs(*numbers: tuple[int, int]) -> dict[str, str]:
    return {f"blocks.{i}.attention": f"blocks.{j}.attention" for i, j in numbers}


RELATIONS = {
    "queries and keys": lambda: AttentionRelation("auto", 2, **THEIRS),
    "values": lambda: ValueRelation("auto", 2, teacher_layer="v_lin"),
}


def test_maps_of_all_layers_are_paired_by_depth_and_no_attention_to_other_sequences_is() -> None:
    plan = tt.make_plan(recipe(attention_map(**THEIRS)))
    assert plan.losses[1].pairs == plan.recipe.losses[1].pairs == pairs((0, 1), (1, 3), (2, 5))
    assert "blocks.2.attention.query" in plan.losses[1].needs.student.features
    assert "blocks.5.attention.k_lin" in plan.losses[1].needs.teacher.features


@pytest.mark.parametrize("kind", RELATIONS)
def test_relations_are_those_of_the_last_layers_as_in_the_paper_unless_more_are_asked_for(kind: str) -> None:
    make = RELATIONS[kind]
    assert tt.make_plan(recipe(make())).losses[1].pairs == pairs((2, 5))
    assert tt.make_plan(recipe(make(), match=Match(count=3))).losses[1].pairs == pairs((0, 1), (1, 3), (2, 5))
    # A loss beside it keeps as many as there are.
    both = tt.make_plan(recipe(make(), attention_map(**THEIRS))).losses
    assert (len(both[1].pairs), len(both[2].pairs)) == (1, 3)


def test_fewer_maps_are_spread_over_the_depth() -> None:
    found = tt.make_plan(recipe(attention_map(**THEIRS), match=Match(count=1))).losses[1].pairs
    assert found == pairs((2, 5))


def test_cka_is_for_what_layers_put_out_and_the_table_says_so() -> None:
    teacher = tt.ModuleTeacher(Network(6))
    given = recipe(attention_map(), HiddenState("auto"), teacher=teacher, match=Match(by="cka"))
    of_attention, of_blocks = propose_pairs(given)
    assert (of_attention.by, of_blocks.by) == ("depth", "cka")
    assert of_attention.layers == pairs((0, 1), (1, 3), (2, 5))
    assert "note: attention modules are paired by depth" in of_attention.table()
    assert "paired by depth" not in of_blocks.table()
    assert "blocks.2.attention  (5, 8)  blocks.5.attention  (5, 8)  3/3 -> 6/6" in of_attention.table()


def test_a_loss_within_another_is_matched_at_the_peer_that_is_delivered() -> None:
    peers = tt.students.Peers(tt.ModuleStudent(lambda: Network(3)))
    found = tt.make_plan(recipe(Routed(attention_map(**THEIRS)), student=peers)).losses[1].loss.pairs
    assert found == {f"peers.0.{path}": other for path, other in pairs((0, 1), (1, 3), (2, 5)).items()}


def trace(module: nn.Module, inputs: dict[str, Tensor]) -> Batch:
    return Batch(inputs=inputs, rows=torch.arange(2), views=torch.zeros(2, dtype=torch.long))


SIZES = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
SIZES_OF_DISTILBERT = {"dim": 12, "n_heads": 2, "n_layers": 2, "hidden_dim": 16}


@pytest.mark.parametrize(
    ("module", "names", "expected"),
    [
        (
            BertForSequenceClassification(BertConfig(vocab_size=9, **SIZES)),
            ("query", "key"),
            "bert.encoder.layer.{}.attention.self",
        ),
        (
            DistilBertForSequenceClassification(DistilBertConfig(vocab_size=9, **SIZES_OF_DISTILBERT)),
            ("q_lin", "k_lin"),
            "distilbert.transformer.layer.{}.attention",
        ),
        (
            BertForSequenceClassification(BertConfig(vocab_size=9, **SIZES)),
            ("self.value",),
            "bert.encoder.layer.{}.attention",
        ),
    ],
    ids=["bert", "distilbert", "a name with a dot"],
)
def test_the_attention_of_known_models_is_found_layer_by_layer(module: nn.Module, names: Any, expected: str) -> None:
    ids = torch.randint(0, 9, (2, 4))
    found = find_attention(module.eval(), trace(module, {"input_ids": ids}), names)
    assert [block.path for block in found] == [expected.format(layer) for layer in range(2)]
    assert all(block.shape == (4, 12) for block in found)


def test_what_is_listed_of_a_model_are_linear_maps_beside_each_other_once() -> None:
    """Embeddings put out tokens too; the layers of a stack all have the same names."""
    bert = BertForSequenceClassification(BertConfig(vocab_size=9, **SIZES)).eval()
    assert token_maps(bert, trace(bert, {"input_ids": torch.randint(0, 9, (2, 4))})) == {
        "bert.encoder.layer.0.attention.self": ["query", "key", "value"],
        "bert.encoder.layer.0.attention.output": ["dense"],
    }


def refusal(given: tt.Recipe) -> str:
    with pytest.raises(ModelError) as error:
        tt.make_plan(given)
    for part in ("expected:", "found:", "harm:", "mend:"):
        assert part in str(error.value), error.value
    return str(error.value)


def test_projections_by_other_names_are_refused_with_the_names_that_there_are() -> None:
    said = refusal(recipe(attention_map()))
    assert "losses[1] (AttentionMap)" in said and "modules of the teacher with `query` and `key`" in said
    assert "`q_lin` and `k_lin` and `v_lin` in `blocks.0.attention`" in said
    assert "`up` and `down` in `blocks.0`" in said and "blocks.1" not in said
    assert "set `teacher_query` and `teacher_key` to" in said
    said = refusal(recipe(ValueRelation("auto", layer="v", teacher_layer="v_lin")))
    assert "modules of the student with `v`" in said and "set `layer` to" in said
    assert "`query` and `key` and `value` in `blocks.0.attention`" in said


def test_a_model_without_attention_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(TOKENS * WIDTH, 3))
    assert "the maps of tokens are none" in refusal(recipe(attention_map(), teacher=tt.ModuleTeacher(flat)))


def test_more_pairs_than_there_are_modules_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"losses\[1\] \(AttentionMap\): match.count[\s\S]*at most 3"):
        tt.make_plan(recipe(attention_map(**THEIRS), match=Match(count=4)))


def test_a_loss_whose_modules_are_open_compares_nothing() -> None:
    with pytest.raises(RecipeError, match="auto, for which no layers have been looked for"):
        _ = attention_map().needs
