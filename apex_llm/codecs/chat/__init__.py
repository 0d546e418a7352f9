"""Chat formats, one module or package each; none imports another.

``bedrock_converse`` is Bedrock's own format for every model it hosts, ``anthropic_messages`` what
Claude speaks natively, ``openai_chat`` what Azure OpenAI and many others speak. ``_common`` holds
what several formats do alike, ``_claude`` what both ways to Claude must know of its generations.
"""
