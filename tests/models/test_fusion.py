"""Knowledge attention changes exactly what it may: nothing without mentions, nothing while its gate is closed."""

import pytest
import torch
from torch import Tensor, nn

from models.entity_table import FIRST, NULL, PADDING, EntityTable
from models.fusion import FusionConfig, Knowledge, KnowledgeAttention
from tests.models.tiny import tiny_knowledge


def attention(*, opening: float = 1.0, seed: int = 0) -> KnowledgeAttention:
    torch.manual_seed(seed)
    config = FusionConfig(dim=16, num_heads=2, dropout=0.0)
    made = KnowledgeAttention(hidden_size=12, table=EntityTable.random(num_entities=10, dim=8), config=config)
    nn.init.constant_(made.opening, opening)
    return made.eval()


def states(*, batch: int = 3, seq: int = 7) -> Tensor:
    return torch.randn(batch, seq, 12, generator=torch.Generator().manual_seed(4))


def knowledge() -> Knowledge:
    return Knowledge(**tiny_knowledge())


def test_a_text_without_mentions_keeps_its_states_to_the_bit_and_its_neighbours_do_not() -> None:
    hidden = states()
    fused = attention()(hidden, knowledge()).hidden
    assert torch.equal(fused[1], hidden[1])
    assert not torch.equal(fused[0], hidden[0])
    assert not torch.equal(fused[2], hidden[2])


def test_a_mention_that_may_only_be_null_changes_nothing() -> None:
    given = knowledge()
    entities = torch.where(given.mention_entities > NULL, torch.tensor(PADDING), given.mention_entities)
    output = attention()(states(), given._replace(mention_entities=entities))
    assert torch.equal(output.hidden, states())
    assert output.candidate_weights[0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_padding_alone_changes_nothing_and_has_no_nan_in_values_or_gradients(dtype: torch.dtype) -> None:
    block = attention().to(dtype)
    hidden = states().to(dtype).requires_grad_()
    empty = Knowledge(*(torch.zeros_like(part) for part in knowledge()))
    output = block(hidden, empty)
    assert torch.equal(output.hidden, hidden)
    assert all(torch.isfinite(part).all() for part in output)
    output.hidden.float().square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in [hidden, *block.parameters()])


def test_a_closed_gate_lets_nothing_in_whatever_the_knowledge() -> None:
    hidden = states()
    output = attention(opening=0.0)(hidden, knowledge())
    assert torch.equal(output.hidden, hidden)
    assert torch.equal(output.gate, torch.zeros(3, 7))


def test_a_closed_gate_learns_first_and_all_else_once_it_is_open() -> None:
    block = attention(opening=0.0)
    target = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(5))
    nn.functional.mse_loss(block(states(), knowledge()).hidden, target).backward()
    moved = {name for name, parameter in block.named_parameters() if parameter.grad.abs().max() > 0}
    assert moved == {"opening"}

    torch.optim.SGD([block.opening], lr=1.0).step()
    assert block.opening.item() != 0
    block.zero_grad()
    nn.functional.mse_loss(block(states(), knowledge()).hidden, target).backward()
    still = {name for name, parameter in block.named_parameters() if parameter.grad.abs().max() == 0}
    assert still == set()


def test_wider_padding_of_candidates_and_mentions_changes_nothing() -> None:
    block, given = attention(), knowledge()
    wide = Knowledge(
        nn.functional.pad(given.mention_entities, (0, 4, 0, 3)),
        nn.functional.pad(given.mention_priors, (0, 4, 0, 3)),
        given.token_mentions,
    )
    narrow, padded = block(states(), given), block(states(), wide)
    torch.testing.assert_close(padded.hidden, narrow.hidden, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(padded.candidate_weights[:, :2, :3], narrow.candidate_weights)
    torch.testing.assert_close(padded.reading[..., :2], narrow.reading)
    assert padded.candidate_weights[:, 2:].abs().max() == 0
    assert padded.reading[..., 2:].abs().max() == 0


def test_a_text_reads_the_same_whatever_else_is_in_its_batch() -> None:
    block, given = attention(), knowledge()
    together = block(states(), given).hidden[2:]
    alone = block(states()[2:], Knowledge(*(part[2:] for part in given))).hidden
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-6)


def test_the_belief_in_the_candidates_of_a_mention_null_included_sums_to_one() -> None:
    given = knowledge()
    weights = attention()(states(), given).candidate_weights
    real = given.mention_entities != PADDING
    torch.testing.assert_close(weights.sum(-1), real.any(-1).float())
    assert (weights[real] > 0).all()
    assert (weights[~real] == 0).all()


def test_a_likelier_candidate_can_be_believed_more_and_null_is_not_moved_by_its_prior() -> None:
    block, given = attention(), knowledge()
    before = block(states(), given).candidate_weights
    priors = given.mention_priors.clone()
    priors[..., 1] = -6.0
    after = block(states(), given._replace(mention_priors=priors)).candidate_weights
    assert not torch.allclose(before[0, 0], after[0, 0])
    priors = given.mention_priors.clone()
    priors[..., 0] = -6.0
    assert torch.equal(block(states(), given._replace(mention_priors=priors)).candidate_weights, before)


def test_every_token_of_a_text_the_first_one_included_reads_all_its_mentions_and_none_of_the_padding() -> None:
    reading = attention()(states(), knowledge()).reading
    assert (reading[0] > 0).all()
    assert (reading[1] == 0).all()
    assert (reading[2, :, 0] > 0).all()
    assert (reading[2, :, 1] == 0).all()
    assert (reading.sum(-1) < 1).all()  # the rest goes to the sentinel


def test_the_first_token_depends_on_each_mention_of_its_text() -> None:
    block, given = attention(), knowledge()
    before = block(states(), given).hidden
    for mention in (0, 1):
        entities = given.mention_entities.clone()
        entities[0, mention, 1] = FIRST + 9
        after = block(states(), given._replace(mention_entities=entities)).hidden
        assert not torch.equal(after[0, 0], before[0, 0])
        assert torch.equal(after[1:], before[1:])


def test_a_token_reads_its_own_mention_more_when_it_prefers_it_more() -> None:
    block = attention()
    before = block(states(), knowledge()).reading
    nn.init.constant_(block.own_mention, 8.0)
    after = block(states(), knowledge()).reading
    assert (after[0, 1:3, 0] > before[0, 1:3, 0]).all()
    assert after[0, 4, 1] > before[0, 4, 1]
    torch.testing.assert_close(after[0, 0], before[0, 0])  # covered by none


def test_the_gate_never_lets_in_more_than_the_candidates_are_believed() -> None:
    output = attention(opening=9.0)(states(), knowledge())
    trust = 1 - output.candidate_weights[..., 0]
    bound = torch.einsum("bsm,bm->bs", output.reading, trust)
    assert (output.gate.abs() <= bound + 1e-6).all()


def test_the_table_is_neither_trained_nor_saved_with_the_weights() -> None:
    block = attention()
    assert "table" not in block.state_dict()
    assert all(parameter.data_ptr() != block.table.data_ptr() for parameter in block.parameters())


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    table = EntityTable.random(num_entities=2, dim=8)
    with pytest.raises(ValueError, match="fusion dim 10 is no multiple of its 4 heads"):
        KnowledgeAttention(hidden_size=12, table=table, config=FusionConfig(dim=10, num_heads=4))
