"""Stand-ins for a network: what a loss tells it, and where its answers lead the pipeline."""

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from workflow_scripts.finetune.draws import Draws


class Recorder:
    """A network that answers with what it is told to, and keeps what it was given."""

    def __init__(self, answer=0.0):
        self.answer = answer

    def __call__(self, hidden_states, **given):
        self.given = {"hidden_states": hidden_states, **given}
        answer = self.answer
        if not torch.is_tensor(answer):
            answer = torch.full_like(hidden_states, answer)
        return Transformer2DModelOutput(sample=answer)


def told(family, pipeline, pixels, captions, network):
    """Let a loss tell a network two images; return these encoded, their conditions and the loss."""
    draws = Draws(5, 2, range(2), torch.device("cpu"))
    with torch.no_grad():
        encoded = family.encode_images(pipeline, pixels)
        conditions = family.encode_captions(pipeline, captions)
        return encoded, conditions, family.loss(pipeline, network, encoded, conditions, draws)


def led_by(pipeline, answer, shape, **call):
    """Sample with a network that answers with `answer(hidden_states, timestep, clean)`.

    Returns the latents that the pipeline ends at, those it should end at, and the network's times.
    """
    clean, start = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    times = []

    class Perfect(type(pipeline.transformer)):
        def forward(self, hidden_states, timestep, **_):
            times.append(float(timestep[0]))
            time = timestep.view(-1, *[1] * (clean.ndim - 1))
            return (answer(hidden_states, time, clean),)

    network = Perfect.from_config(pipeline.transformer.config)
    sampler = type(pipeline)(**{**pipeline.components, "transformer": network})
    sampler.set_progress_bar_config(disable=True)
    found = sampler(
        "any",
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=start,
        output_type="latent",
        **call,
    ).images
    return found, clean, times
