"""What language does the client speak? One module per API; all of them read the same `ChatRequest` out of it.

| module | API |
|---|---|
| `base` | the contract |
| `chat` | OpenAI's Chat Completions |
| `messages` | Anthropic's Messages |
| `responses` | OpenAI's Responses |
| `compact` | the compaction of Responses |
| `embeddings` | OpenAI's Embeddings |

A further protocol is one module here and one line in `PROTOCOLS`; `turnout.gateway.app` serves its path.
"""

from __future__ import annotations

from turnout.gateway.protocols.base import Protocol
from turnout.gateway.protocols.chat import ChatProtocol
from turnout.gateway.protocols.compact import CompactProtocol
from turnout.gateway.protocols.embeddings import EmbeddingsProtocol
from turnout.gateway.protocols.messages import MessagesProtocol
from turnout.gateway.protocols.responses import ResponsesProtocol

PROTOCOLS: tuple[Protocol, ...] = (
    ChatProtocol(),
    MessagesProtocol(),
    ResponsesProtocol(),
    CompactProtocol(),
    EmbeddingsProtocol(),
)
"""Every protocol that is served; each names its path."""
