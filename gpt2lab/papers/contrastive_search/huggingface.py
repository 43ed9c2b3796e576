"""Contrastive search for models of transformers, which no longer ships it: `generate(custom_generate=contrastive_search)`.

    model.generate(**inputs, custom_generate=contrastive_search, penalty_alpha=0.6, top_k=4, max_new_tokens=64)

As in `decoder`: the k candidates are k queries for one place of one cache, kept apart by the attention mask, and nothing
is copied k times. The model given is the one that runs; transformers itself is not imported here.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.processors import IMPOSSIBLE
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch, States, likeliest


@torch.inference_mode()
def contrastive_search(
    model: Any,
    input_ids: Tensor,
    *,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    penalty_alpha: float | None = None,
    top_k: int | None = None,
    streamer: Any = None,
    **inputs: Any,
) -> Tensor:
    """Continue input_ids [batch, time], padded on the left, and return prompts and continuations [batch, time + new].

    Called by `generate`. penalty_alpha and top_k: arguments of that call, or in its generation_config; by default 0.6 and
    5. Processors act on the logits before the softmax; a finished row gets the pad token.
    LabError: sampling, beams, several sequences from one prompt, a dictionary as result, padding on the right, an option
    out of range, a model whose attention has windows, one without a key/value cache or positions of its own (Mamba, BLOOM).
    """
    search = _search(generation_config, model, penalty_alpha, top_k)
    # Named in the signature they would come twice: generate looks for its own extra arguments there.
    attention_mask, cache = inputs.get("attention_mask"), inputs.get("past_key_values")
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    _check(model, generation_config, real)
    batch, width = input_ids.shape
    room = int(generation_config.max_length) - width
    real = torch.cat([real, real.new_ones(batch, room)], dim=1).bool()
    places = real.long().cumsum(1).sub(1).clamp_min(0)  # positions of the slots
    rows = torch.arange(batch, device=input_ids.device)
    running = torch.ones(batch, dtype=torch.bool, device=input_ids.device)
    out = _forward(model, input_ids, real[:, :width].long(), places[:, :width], cache)
    logits, cache = out.logits[:, -1], out.past_key_values
    states = States(out.hidden_states[-1], real, room)
    while True:
        start = input_ids.shape[1]
        ready = logits.float() if logits_processor is None else logits_processor(input_ids, logits.float())
        probabilities, candidates = likeliest(ready.softmax(-1), search.k)
        mask = _siblings(real[:, :start], search.k, model.dtype)
        out = _forward(model, candidates, mask, places[:, start : start + 1].expand(batch, search.k), cache)
        unit = states.unit(out.hidden_states[-1])
        scores = (1 - search.alpha) * probabilities - search.alpha * states.penalties(unit, 0)
        scores = scores.masked_fill(ready.gather(1, candidates) == IMPOSSIBLE, IMPOSSIBLE)
        best = scores.argmax(dim=1)
        if bool(scores[rows, best].isnan().any()):
            raise LabError("contrastive search: the model's states or logits are not numbers (NaN)")
        chosen = candidates[rows, best]
        if not bool(running.all()):
            chosen = torch.where(running, chosen, _pad(generation_config, chosen))
        _keep(cache, start, rows, best, search.k)
        states.append(unit[rows, best])
        logits = out.logits[rows, best]
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        if streamer is not None:
            streamer.put(chosen.cpu())
        running &= ~_stopped(stopping_criteria, input_ids, logits)
        if not bool(running.any()) or input_ids.shape[1] == width + room:
            break
    states.warn_of_zeros()
    if streamer is not None:
        streamer.end()
    return input_ids


def _search(config: Any, model: Any, alpha: float | None, k: int | None) -> ContrastiveSearch:
    """Return the options that are given; LabError where one is out of range or the configuration speaks of sampling."""
    if alpha is None and getattr(config, "penalty_alpha", None) is not None:
        alpha = config.penalty_alpha
        k = config.top_k if k is None else k  # without a penalty_alpha the top_k there is that of sampling
    usual = ContrastiveSearch()
    search = ContrastiveSearch(k=usual.k if k is None else k, alpha=usual.alpha if alpha is None else alpha)
    if search.k > model.config.get_text_config().vocab_size:
        raise LabError(f"contrastive search: top_k {search.k} exceeds the vocabulary")
    if getattr(config, "do_sample", False):
        raise LabError("contrastive search is deterministic; leave do_sample out")
    for name in ("num_beams", "num_return_sequences"):
        if (getattr(config, name, None) or 1) > 1:
            raise LabError(f"contrastive search gives one text for each prompt; leave {name} at 1")
    if getattr(config, "return_dict_in_generate", False):
        raise LabError("contrastive search returns token ids; leave return_dict_in_generate out")
    return search


def _check(model: Any, config: Any, real: Tensor) -> None:
    text = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False):
        raise LabError("contrastive search here is for decoder-only models")
    taken = inspect.signature(model.forward).parameters
    if missing := [
        name for name in ("position_ids", "past_key_values") if name not in taken and "input_ids" in taken
    ]:
        raise LabError(
            f"contrastive search needs a model with a key/value cache that is told the positions of its tokens; "
            f"{type(model).__name__} takes no {' and no '.join(missing)}"
        )
    if not bool(real[:, -1].all()):
        raise LabError(
            "contrastive search: prompts are padded on the right; set tokenizer.padding_side = 'left'"
        )
    if getattr(text, "sliding_window", None) or "local" in str(getattr(text, "attention_types", "")):
        raise LabError(
            "contrastive search: this model's attention has windows, which transformers counts by slots; load it with "
            "gpt2lab.load and use the decoder contrastive-search"
        )
    if "flash" in str(getattr(model.config, "_attn_implementation", "")):
        raise LabError(
            "contrastive search keeps candidates apart by a mask: load with attn_implementation='sdpa'"
        )
    most = getattr(text, "max_position_embeddings", None)
    if most is not None and config.max_length > most:
        raise LabError(
            f"contrastive search reads every new token: after {real.shape[1]} tokens {max(most - real.shape[1], 0)} of the "
            f"model's {most} positions are left"
        )


def _forward(model: Any, tokens: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Any:
    return model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
        return_dict=True,
    )


def _siblings(real: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """Return what each of k candidates sees, real [batch, slots] and itself: an additive mask [batch, 1, k, slots + k]."""
    own = torch.eye(k, dtype=torch.bool, device=real.device).expand(len(real), k, k)
    seen = torch.cat([real[:, None].expand(-1, k, -1), own], dim=-1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=real.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _keep(cache: Any, start: int, rows: Tensor, best: Tensor, k: int) -> None:
    """Leave in the cache, of the candidates behind slot `start`, the best one of each row."""
    for layer in getattr(cache, "layers", ()):
        if layer.keys.shape[-2] != start + k:
            break
        for name in ("keys", "values"):
            held = getattr(layer, name)  # [batch, heads, start + k, d_head]
            held[:, :, start] = held[rows, :, start + best]
            setattr(layer, name, held[:, :, : start + 1])
    else:
        return
    raise LabError("contrastive search needs transformers' dynamic cache; leave cache_implementation out")


def _pad(config: Any, like: Tensor) -> Tensor:
    """Return the pad token, or else the end token; LabError if neither is known."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if token is not None:
            return torch.as_tensor(token, device=like.device).flatten()[0].to(like.dtype)
    raise LabError("contrastive search: rows end at different lengths; set pad_token_id")


def _stopped(criteria: Any, tokens: Tensor, logits: Tensor) -> Tensor:
    if criteria is None or not len(criteria):
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    stopped: Tensor = criteria(tokens, logits)
    return stopped.to(tokens.device)
