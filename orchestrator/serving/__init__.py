"""An HTTP server that speaks Chat Completions, for any object with the ``Model`` protocol.

``longthought serve-model`` is this on the command line; ``docs/serving.md`` says what is supported.
"""

from longthought.orchestrator.serving.app import ChatApp
from longthought.orchestrator.serving.server import ChatServer, chat_server

__all__ = ["ChatApp", "ChatServer", "chat_server"]
