"""The paper's models, by name, with the counts of the specification's table."""

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.tinystories import models

TABLE = {  # name: d, layers, total at 50,257 rows, at 10,000 rows, without embeddings
    "1M": (64, 8, 3_745_984, 1_169_536, 398_464),
    "3M": (128, 8, 8_278_400, 3_125_504, 1_583_360),
    "8M": (256, 8, 19_702_528, 9_396_736, 6_312_448),
    "28M": (512, 8, 51_987_968, 31_376_384, 25_207_808),
    "33M": (768, 4, 68_514_048, 37_596_672, 28_343_808),
    "1Layer-21M": (1024, 1, 66_155_520, 24_932_352, 12_595_200),
    "2Layers-33M": (1024, 2, 78_748_672, 37_525_504, 25_188_352),
}


def test_the_parameter_table_is_the_specification_s():
    rows = {row["name"]: row for row in models.parameter_table()}
    assert set(rows) == set(TABLE)
    for name, (d, layers, total, reduced, rest) in TABLE.items():
        row = rows[name]
        assert (row["d"], row["layers"]) == (d, layers)
        assert row["total"] == total
        assert row["with 10K rows"] == reduced
        assert row["non-embedding"] == rest


def test_the_architecture_is_gpt_neo_s():
    config = models.tinystories_config("1M")
    assert config.family == "gpt_neo" and config.n_heads == 16 and config.max_positions == 2048
    assert config.attention_scale == 1.0 and not config.qkv_bias and config.attention_out_bias
    assert [config.layer(i).window for i in range(4)] == [None, 256, None, 256]
    assert config.tied_head and config.norm_eps == 1e-5 and config.init_std == 0.02
    assert config.activation == "gelu_tanh" and config.layer(0).d_mlp == 4 * 64


def test_a_small_model_of_the_family_runs_and_counts_as_a_real_one():
    config = models.story_config(16, 3, vocab_size=50, n_heads=4, max_positions=40)
    model = Transformer(config)
    assert model(torch.arange(12)[None]).shape == (1, 12, 50)
    counted = models.count_parameters(models.Size(16, 3), rows=50, positions=40)
    assert counted == model.count_parameters()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(LabError, match="did you mean 28M"):
        models.tinystories_config("27M")
