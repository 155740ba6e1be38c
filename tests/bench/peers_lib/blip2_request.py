"""The request that all engines are timed with, for the scripts that run in the peers' Python: one image, N text tokens, batch 1,
logits of the last position."""
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from transformers import Blip2ForConditionalGeneration


class LastLogits(torch.nn.Module):
    """Stock BLIP-2 with as little work as it can answer a request with: no cache of keys and values, which nobody would read,
    and the head on the last position only. The query embeddings stand in front of the embedded text."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, input_ids):
        embedded = self.model.get_input_embeddings()(input_ids)
        image = self.model.get_image_features(pixel_values, return_dict=True).pooler_output
        together = torch.cat([image.to(embedded.dtype), embedded], 1)
        hidden = self.model.language_model.model(inputs_embeds=together, use_cache=False).last_hidden_state
        return self.model.language_model.lm_head(hidden[:, -1, :])


def load(path, dtype=torch.float32):
    """Eager attention: the only one that all three stacks have."""
    return LastLogits(Blip2ForConditionalGeneration.from_pretrained(path, attn_implementation="eager", dtype=dtype).eval())


def draw(net, tokens, seed):
    """(pixel_values, input_ids)"""
    config, g = net.model.config, torch.Generator().manual_seed(seed)
    size = config.vision_config.image_size
    return torch.randn(1, 3, size, size, generator=g), torch.randint(4, config.text_config.vocab_size, (1, tokens), generator=g)
