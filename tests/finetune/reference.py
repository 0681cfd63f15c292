"""What the reference trainers do to two images, written from their formulas in our words.

Of the code under test only the random draws and the order of images are shared: all else
(components, captions, noise, targets, adapters, optimisers, learning rates) is written here once
more. Sources: diffusers' train_text_to_image (Stable Diffusion), PixArt-Sigma's and Sana's
trainers, ai-toolkit (Stable Diffusion 3.5, Lumina 2, FLUX.1).
"""

import math

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch.nn import functional

from workflow_scripts.finetune.draws import Draws, batch_order

CPU = torch.device("cpu")


def per_image(values, like):
    return values.view(-1, *[1] * (like.ndim - 1))


class Reference:
    """One family's objective; `text`, `level`, `noised`, `target`, `answer` are what differs."""

    network_name = "transformer"

    def __init__(self, folder):
        self.pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        self.network = getattr(self.pipe, self.network_name)
        for part in self.pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)

    def latents(self, pixels, draws):
        vae = self.pipe.vae
        mean, log_variance = vae.encode(pixels).latent_dist.parameters.chunk(2, dim=1)
        deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))
        drawn = mean + deviation * draws.normal(mean.shape[1:])
        return (drawn - (vae.config.shift_factor or 0)) * vae.config.scaling_factor

    def ids(self, captions, name="tokenizer", length=None):
        tokenizer = getattr(self.pipe, name)
        length = min(length or tokenizer.model_max_length, tokenizer.model_max_length)
        found = tokenizer(
            captions,
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        return found.input_ids, found.attention_mask

    def losses(self, pixels, captions, dropout, draws):
        dropped = draws.uniform() < dropout
        with torch.no_grad():
            shown = ["" if drop else text for text, drop in zip(captions, dropped, strict=True)]
            text = self.text(shown)
            clean = self.latents(pixels, draws)
        noise = draws.normal(clean.shape[1:])
        level = self.level(draws)
        away = self.answer(self.noised(clean, noise, level), level, text) - self.target(
            clean, noise, level
        )
        return away.square().flatten(1).mean(dim=1)

    # Flow matching, unless a family says otherwise.
    def noised(self, clean, noise, sigma):
        sigma = per_image(sigma, clean)
        return clean + sigma * (noise - clean)

    def target(self, clean, noise, sigma):
        return noise - clean


class StableDiffusion(Reference):
    network_name = "unet"

    def text(self, captions):
        return self.pipe.text_encoder(self.ids(captions)[0]).last_hidden_state

    def level(self, draws):
        return draws.integers(1000)

    def kept(self, time, like):
        betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
        return per_image(torch.from_numpy(np.cumprod(1 - betas))[time].float(), like)

    def noised(self, clean, noise, time):
        kept = self.kept(time, clean)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def target(self, clean, noise, time):
        return noise

    def answer(self, noisy, time, text):
        return self.network(noisy, time, text).sample


class StableDiffusion2(StableDiffusion):
    def target(self, clean, noise, time):
        kept = self.kept(time, clean)
        return kept.sqrt() * noise - (1 - kept).sqrt() * clean


class PixArtSigma(StableDiffusion):
    network_name = "transformer"

    def text(self, captions):
        ids, mask = self.ids([caption.lower().strip() for caption in captions], length=300)
        return self.pipe.text_encoder(ids, attention_mask=mask).last_hidden_state, mask

    def kept(self, time, like):
        betas = np.linspace(0.0001, 0.02, 1000)
        return per_image(torch.from_numpy(np.cumprod(1 - betas))[time].float(), like)

    def answer(self, noisy, time, text):
        known = {"resolution": None, "aspect_ratio": None}
        both = self.network(noisy, *text[:1], time, known, encoder_attention_mask=text[1]).sample
        return both[:, : noisy.shape[1]]


class Sana(Reference):
    def latents(self, pixels, draws):
        return self.pipe.vae.encode(pixels).latent * self.pipe.vae.config.scaling_factor

    def text(self, captions):
        ids, mask = self.ids([caption.lower().strip() for caption in captions], length=300)
        return self.pipe.text_encoder(ids, attention_mask=mask).last_hidden_state, mask

    def level(self, draws):
        odds = 3.0 * draws.normal(()).exp()  # of a logit-normal level, shifted by 3
        return odds / (1 + odds)

    def answer(self, noisy, sigma, text):
        return self.network(noisy, text[0], 1000 * sigma, encoder_attention_mask=text[1]).sample


class StableDiffusion3(Reference):
    def text(self, captions):
        clips = [
            getattr(self.pipe, f"text_encoder{name}")(
                self.ids(captions, f"tokenizer{name}")[0], output_hidden_states=True
            )
            for name in ("", "_2")
        ]
        words = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        pooled = torch.cat([clip.text_embeds for clip in clips], dim=-1)
        long = self.pipe.text_encoder_3(self.ids(captions, "tokenizer_3", 512)[0])[0]
        words = functional.pad(words, (0, long.shape[-1] - words.shape[-1]))
        return torch.cat([words, long], dim=1), pooled

    def level(self, draws):
        return 1 - draws.uniform()

    def answer(self, noisy, sigma, text):
        return self.network(noisy, text[0], text[1], 1000 * sigma).sample


class Lumina2(Reference):
    def text(self, captions):
        system = (
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        )
        shown = [caption and system + caption for caption in captions]
        ids, mask = self.ids(shown, length=256)
        found = self.pipe.text_encoder(ids, attention_mask=mask, output_hidden_states=True)
        return found.hidden_states[-2], mask

    def level(self, draws):
        return 1 - draws.uniform()

    def target(self, clean, noise, sigma):
        return clean - noise

    def answer(self, noisy, sigma, text):
        return self.network(noisy, 1 - sigma, *text).sample


class Flux(Reference):
    def text(self, captions):
        pooled = self.pipe.text_encoder(self.ids(captions)[0]).pooler_output
        return self.pipe.text_encoder_2(self.ids(captions, "tokenizer_2", 512)[0])[0], pooled

    def level(self, draws):
        return torch.sigmoid(draws.normal(()))

    def answer(self, noisy, sigma, text):
        n, channels, height, width = noisy.shape
        rows, columns = height // 2, width // 2
        tokens = noisy.view(n, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        places = torch.stack(
            [
                torch.zeros(rows, columns),
                torch.arange(rows)[:, None].expand(rows, columns),
                torch.arange(columns).expand(rows, columns),
            ],
            dim=-1,
        )
        found = self.network(
            tokens.reshape(n, rows * columns, channels * 4),
            text[0],
            text[1],
            sigma,
            places.reshape(-1, 3),
            torch.zeros(text[0].shape[1], 3),
            torch.ones(n),
        ).sample
        found = found.view(n, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return found.reshape(noisy.shape)


class Came:
    """Algorithm 2 of arXiv 2307.02047 in float64, sums as written.

    A weight is a stack of matrices (PixArt's: over the last two dimensions; Sana's: one matrix, or
    a convolution of one pixel), or not factored.
    """

    def __init__(self, weights, as_sana):
        self.weights, self.state = weights, [{} for _ in weights]
        self.as_sana = as_sana

    def shape(self, weight):
        if self.as_sana and weight.ndim == 4 and weight.shape[2] == weight.shape[3] == 1:
            return (1, weight.shape[0], weight.shape[1])
        if weight.ndim == 2 or (weight.ndim > 2 and not self.as_sana):
            return (-1, *weight.shape[-2:])
        return None

    def step(self, rate):
        for weight, state in zip(self.weights, self.state, strict=True):
            shape = self.shape(weight)
            g = weight.grad.double() if shape is None else weight.grad.double().reshape(shape)
            if not state:
                state["theta"] = weight.detach().double().reshape(g.shape)
                state["m"] = torch.zeros_like(g)
            u = self.normalised(g, g.square() + 1e-30, state, "V", 0.999, shape)
            u = u / max(1.0, float(u.square().mean().sqrt()))
            m = state["m"] = 0.9 * state["m"] + 0.1 * u
            if shape is not None:
                m = self.normalised(m, (u - m).square() + 1e-16, state, "U", 0.9999, shape)
            state["theta"] = state["theta"] - rate * m
            weight.data.copy_(state["theta"].reshape(weight.shape))

    def normalised(self, value, squares, state, name, beta, shape):
        if shape is None:
            whole = state[name] = beta * state.get(name, 0) + (1 - beta) * squares
            return value / whole.sqrt()
        rows = beta * state.get(f"{name} rows", 0) + (1 - beta) * squares.sum(-1, keepdim=True)
        columns = beta * state.get(f"{name} columns", 0) + (1 - beta) * squares.sum(
            -2, keepdim=True
        )
        state[f"{name} rows"], state[f"{name} columns"] = rows, columns
        return value / (rows.sqrt() * columns.sqrt()) * rows.sum(-2, keepdim=True).sqrt()


class AdamW:
    """Loshchilov and Hutter, 2019, algorithm 2, in float64."""

    def __init__(self, weights, decay):
        self.weights, self.decay, self.steps = weights, decay, 0
        self.theta = [weight.detach().double() for weight in weights]
        self.m = [torch.zeros_like(theta) for theta in self.theta]
        self.v = [torch.zeros_like(theta) for theta in self.theta]

    def step(self, rate):
        self.steps += 1
        for i, weight in enumerate(self.weights):
            g = weight.grad.double()
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g.square()
            m, v = self.m[i] / (1 - 0.9**self.steps), self.v[i] / (1 - 0.999**self.steps)
            self.theta[i] = (1 - rate * self.decay) * self.theta[i] - rate * m / (v.sqrt() + 1e-8)
            weight.data.copy_(self.theta[i])


ATTENTION = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")


def adapters(network, drawn, rank, alpha):
    """Add alpha / sqrt(rank) B A x to the queries, keys and values; return the factors.

    Args:
        network: frozen.
        drawn: the first factors by module name; the second ones start from zero.
        rank: of both.
        alpha: see above.
    """
    factors = []
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in ATTENTION and isinstance(module, torch.nn.Linear):
            first = torch.nn.Parameter(drawn[name].clone())
            second = torch.nn.Parameter(torch.zeros(module.out_features, rank))
            factors += [first, second]

            def add(_, given, out, first=first, second=second):
                return out + alpha / math.sqrt(rank) * (given[0] @ first.T @ second.T)

            module.register_forward_hook(add)
    return factors


def train(reference, weights, optimiser, pictures, settings, steps):
    """Return the loss of each step; `settings` are those of the run that is compared with."""
    pixels = np.stack([np.asarray(Image.fromarray(image)) for image in pictures.values()])
    pixels = torch.from_numpy(pixels).float()[:, None].repeat(1, 3, 1, 1) / 127.5 - 1
    captions, found = list(pictures), []
    rate = settings.learning_rate
    if settings.auto_learning_rate:
        rate *= math.sqrt(settings.batch_size / 256)
    for step in range(steps):
        rows = batch_order(settings.seed, len(captions), settings.batch_size, step)
        draws = Draws(settings.seed, step, range(settings.batch_size), CPU)
        loss = reference.losses(
            pixels[rows], [captions[row] for row in rows], settings.caption_dropout, draws
        ).mean()
        for weight in weights:
            weight.grad = None
        loss.backward()
        used = [weight for weight in weights if weight.grad is not None]
        norm = math.sqrt(sum(float(weight.grad.double().square().sum()) for weight in used))
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad *= min(1.0, settings.max_grad_norm / (norm + 1e-6))
        optimiser.step(rate * min(1.0, (step + 1) / max(1, settings.warmup_steps)))
        found.append(float(loss.detach()))
    return found
