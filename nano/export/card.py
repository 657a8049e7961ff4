"""README.md of the checkpoint: what the model is, what it learnt, what it cannot do."""

from hybrid.config import ModelConfig
from nano.data.mix import FAMILIES
from nano.training.schedule import Plan

CARD = """\
# kimi-nano

A trained model of Kimi K2.5's architecture and file format, small enough for a repository.

It comes with kimi-local and has {parameters:.1f} million parameters. It exists so that a newcomer
can see everything work, and so that every part of the runtime is tested by something with meaning.

## What it is

* {layers} layers, the first one dense; hidden size {hidden}
* {experts} routed experts, {chosen} of them chosen, and a shared one
* multi-head latent attention with YaRN, contexts up to {context} tokens, trained on up to 3,000
* routed experts in native INT4 (groups of 32, trained with it), everything else in bf16
* MoonViT-3D of {blocks} blocks with patch merger

## What it learnt

{steps} steps, {tokens:.0f} million tokens, on conversations that the scripts in `nano/data`
generate; nothing was scraped and no other model was asked. Families: {families}.

## What it cannot do

Anything else. It knows no facts about the world, does not write, translate or reason beyond the
families above, knows a few hundred English words and some seventy Chinese phrases, sees plain
shapes on plain grounds and no photographs. It says so when it notices; often it does not notice.
Do not use it for anything that matters.

## Make it again

    python -m nano.train --out RUN --seed {seed}
    python -m nano.write RUN MODEL_DIR
"""


def card(config: ModelConfig, plan: Plan, parameters: int) -> str:
    """Return the card's text."""
    text = config.text
    return CARD.format(
        parameters=parameters / 1e6,
        layers=text.num_hidden_layers,
        experts=text.n_routed_experts,
        chosen=text.num_experts_per_tok,
        hidden=text.hidden_size,
        context=f"{text.max_position_embeddings:,}",
        blocks=config.vision.vt_num_hidden_layers if config.vision else 0,
        steps=f"{plan.steps:,}",
        tokens=plan.left(0) / 1e6,
        families=", ".join(FAMILIES),
        seed=plan.seed,
    )
