"""Models behind OpenAI's protocols: Chat Completions and Responses, streamed or not."""

from longthought.orchestrator.models.openai.model import OpenAIModel

__all__ = ["OpenAIModel"]
