"""How is one API said in another? Everything passes through OpenAI's chat, which every provider speaks.

| module | what it turns into what |
|---|---|
| `events` | the frame of every stream translator |
| `chat_chunks` | chat chunks into their parts, for every language that they are written in |
| `rest` | the members without a translation of their own: copied, left out or refused |
| `refusal` | a field that has no counterpart into a fault, so that the next candidate may be asked |
| `words` | stop reasons, usage and errors, both ways |
| `json_form`, `json_schema` | a wish for JSON into an instruction, or a schema that fits |
| `chat_request_as_messages` | a chat request into one of Anthropic's Messages |
| `messages_answer_as_chat` | an answer of Anthropic's into a chat completion |
| `messages_stream_as_chat` | the same for a stream |
| `messages_request_as_chat` | a request of Anthropic's Messages into a chat request |
| `chat_answer_as_messages` | a chat completion into a message |
| `chat_stream_as_messages` | the same for a stream |
| `chat_request_as_gemini`, `gemini_answer_as_chat` | the same pair for Gemini's generateContent |
| `messages_as_converse`, `converse_as_messages` | the same pair for Bedrock's Converse, by way of Messages |
| `aws_events` | AWS event streams, cut into messages |
| `chat_messages`, `chat_tools`, `effort` | parts that several share |
| `messages_blocks`, `messages_turns`, `gemini_parts` | turns, in the words of each |

Where client and upstream speak the same language nothing here runs: bytes are passed on.
"""
