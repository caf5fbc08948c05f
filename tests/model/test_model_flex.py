"""Attention inside documents by blocks, against the mask that is a tensor. (A GPU's kernels are another backend of the
same rule; here it runs uncompiled.)
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llmctl.model import flex
from llmctl.model.attention import segment_mask
from llmctl.model.config import dial
from llmctl.model.transformer import Transformer

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def documents(rows: int, t: int) -> torch.Tensor:
    """Segments of random lengths, numbered as the stream has them: not from 0 in each row."""
    torch.manual_seed(t)
    return (torch.rand(rows, t) < 0.05).long().cumsum(1) + 7 * torch.arange(rows)[:, None]


@pytest.mark.parametrize("t", [5, 128, 200, 300])
def test_the_rule_is_that_of_the_mask(t: int) -> None:
    segments = documents(3, t)
    mask, wanted = flex.document_mask(segments), segment_mask(segments)
    at = torch.arange(t)
    found = torch.stack([torch.stack([mask.mask_mod(b, 0, q, at) for q in at]) for b in range(3)])
    assert torch.equal(found, wanted[:, 0])
    # A block of 128 x 128 is left out just where the mask has nothing in it.
    padded = F.pad(wanted[:, 0], (0, -t % 128, 0, -t % 128))
    blocks = padded.unflatten(1, (-1, 128)).unflatten(3, (-1, 128)).any(4).any(2)
    assert torch.equal(mask.to_dense()[:, 0].bool(), blocks)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("t", [40, 200])
def test_the_output_is_that_of_masked_attention(kv_heads: int, t: int) -> None:
    segments = documents(2, t)
    q, k, v = (torch.randn(2, heads, t, 16) for heads in (4, kv_heads, kv_heads))  # PyTorch has no backward on a CPU
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=segment_mask(segments), enable_gqa=True)
    ours = flex.attend(q, k, v, flex.document_mask(segments))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_model_computes_the_same_either_way(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Transformer(dial(2, 60, 200, width=64, head_dim=16, kv_heads=0 if family == "gpt2" else 2, family=family))
    for p in model.parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=0.1)
    segments, ids = documents(2, 200), torch.randint(60, (2, 200))
    with torch.no_grad():
        before = model(ids, segments=segments)
        assert not flex.suits(segments, 16), "on a CPU nothing changes"
        monkeypatch.setattr(flex, "suits", lambda segments, head_dim: True)
        after = model(ids, segments=segments)
    assert not torch.equal(before, after) and not torch.allclose(before, model(ids), atol=1e-2)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_mask_and_attention_are_part_of_the_model_s_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "suits", lambda segments, head_dim: True)
    model = Transformer(dial(1, 60, 150, width=32, head_dim=16)).eval()
    segments, ids = documents(2, 150), torch.randint(60, (2, 150))
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(ids, segments=segments), model(ids, segments=segments))
