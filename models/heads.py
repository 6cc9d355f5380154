"""The head of a language model, which is as dear as six blocks of MiniLM: 30,522 words for each token."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def predict_only(model: Any, asked: Callable[[], Tensor]) -> RemovableHandle:
    """Let the head of ``model`` work at some tokens alone: its logits are ``[asked, vocabulary]``.

    Args:
        asked: gives the mask ``[batch, seq]`` of those tokens, each time that the head is reached.
    """
    words = model.get_output_embeddings()
    head: nn.Module = next(child for child in model.children() if any(module is words for module in child.modules()))

    def take_states(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][asked()], *args[1:])

    return head.register_forward_pre_hook(take_states)
